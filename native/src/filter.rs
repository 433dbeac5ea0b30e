//! One request under the module: its hooks, and its state between them.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use driver::{Action, StreamId};

use crate::abi::{BodyStatus, HeadersStatus, TrailersStatus};
use crate::configuration::{Configuration, END, Gate, LOST, RESUME};
use crate::envoy::{HeaderMap, Meter, Stream};
use crate::exchange::HookExchange;
use crate::flags::{ENDED, FAULT};
use crate::reply::OwnedReply;
use crate::response::HookResponse;

/// The last step for the stream, because it may end the stream.
pub enum After {
    Nothing,
    /// The request was held and goes on.
    Resume,
    /// The stream ends after its response has begun.
    Reset,
    Reply(OwnedReply),
}

pub struct Filter {
    configuration: Arc<Configuration>,
    id: StreamId,
    worker: u32,
    state: Cell<State>,
    /// The worker has something about this request. It has not for most requests, and then it is not locked again.
    is_known: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No headers have come.
    New,
    Held,
    Forwarded,
    /// Forwarded, and ended with its session or token.
    Watched,
    Replied,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Filter {
    /// The request has entered the configuration.
    pub fn new(configuration: Arc<Configuration>, stream: &Stream<'_>) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { configuration, id, worker: stream.worker(), state: Cell::new(State::New), is_known: Cell::new(false) }
    }

    pub fn on_request_headers(&self, stream: &mut Stream<'_>, ends: bool) -> (HeadersStatus, After) {
        let meter = stream.meter();
        let mut gate = self.configuration.gate();
        let mut exchange = HookExchange::new(stream);
        let Some(mut worker) = self.configuration.worker(self.worker) else {
            return (HeadersStatus::StopIteration, self.unavailable("NO_WORKER", stream));
        };
        let mut host = self.configuration.host(Some(meter));
        // Also if what follows panics.
        self.is_known.set(true);
        let mut action = worker.begin(self.id, ends, &mut host, &mut exchange, &mut gate);
        let is_parked = action == Action::Pause;
        if is_parked {
            self.configuration.park(self.id, exchange.stream.scheduler(), &gate);
            // The event may have come before the request could be woken.
            action = worker.resume(self.id, &mut host, &mut exchange, &mut gate);
        }
        if let Some(reply) = &mut exchange.reply {
            worker.on_response_headers(self.id, &mut host, reply);
        }
        self.is_known.set(worker.knows(self.id));
        let is_watched = worker.watches(self.id);
        drop(worker);
        if gate.was_used {
            self.configuration.wake_ready();
        }
        let after = self.conclude(action, exchange, is_parked, is_watched.then_some(&gate));
        match action {
            Action::Continue => (HeadersStatus::Continue, after),
            Action::Pause => (HeadersStatus::StopAllIterationAndWatermark, after),
            Action::Replied => (HeadersStatus::StopIteration, after),
        }
    }

    pub fn on_request_body(&self) -> BodyStatus {
        match self.state.get() {
            State::New | State::Forwarded | State::Watched => BodyStatus::Continue,
            State::Held => BodyStatus::StopIterationAndWatermark,
            State::Replied => BodyStatus::StopIterationNoBuffer,
        }
    }

    /// Removes the trailers that only this filter may set, since some upstreams take a trailer for a header.
    pub fn on_request_trailers(&self, stream: &mut Stream<'_>) -> (TrailersStatus, After) {
        let Some(worker) = self.configuration.worker(self.worker) else {
            return (TrailersStatus::StopIteration, After::Nothing);
        };
        let cleared: Option<Vec<Vec<u8>>> = stream.with_headers(HeaderMap::RequestTrailers, |trailers| {
            let names = trailers.iter().map(|(name, _)| *name).filter(|name| worker.clears_trailer(name));
            names.map(<[u8]>::to_vec).collect()
        });
        let cleared = cleared.unwrap_or_else(|| worker.cleared().map(|name| name.as_bytes().to_vec()).collect());
        for name in cleared {
            // Without trailers there is nothing to remove.
            let _ = stream.remove(HeaderMap::RequestTrailers, &name);
        }
        match self.state.get() {
            State::New | State::Forwarded | State::Watched => (TrailersStatus::Continue, After::Nothing),
            State::Held | State::Replied => (TrailersStatus::StopIteration, After::Nothing),
        }
    }

    pub fn on_response_headers(&self, stream: &mut Stream<'_>) -> (HeadersStatus, After) {
        if self.is_known.get()
            && let Some(mut worker) = self.configuration.worker(self.worker)
        {
            let mut host = self.configuration.host(Some(stream.meter()));
            worker.on_response_headers(self.id, &mut host, &mut HookResponse { stream });
        }
        (HeadersStatus::Continue, After::Nothing)
    }

    pub fn on_response_trailers(&self, stream: &mut Stream<'_>) -> (TrailersStatus, After) {
        if self.is_known.get()
            && let Some(worker) = self.configuration.worker(self.worker)
        {
            let removed: Option<Vec<Vec<u8>>> = stream.with_headers(HeaderMap::ResponseTrailers, |trailers| {
                let names = trailers.iter().map(|(name, _)| *name);
                names.filter(|name| worker.removes_response_trailer(self.id, name)).map(<[u8]>::to_vec).collect()
            });
            for name in removed.unwrap_or_default() {
                let _ = stream.remove(HeaderMap::ResponseTrailers, &name);
            }
        }
        (TrailersStatus::Continue, After::Nothing)
    }

    /// It was woken.
    pub fn on_event(&self, stream: &mut Stream<'_>, event: u64) -> After {
        match (self.state.get(), event) {
            (State::Held, RESUME) => {}
            (State::Watched, END) => return self.end(stream),
            (State::Held, LOST) => {
                self.configuration.forget(self.id);
                return self.unavailable("FAULT", stream);
            }
            // Nobody knows whether it would still be ended.
            (State::Watched, LOST) => {
                self.configuration.forget(self.id);
                self.state.set(State::Replied);
                return After::Reset;
            }
            _ => return After::Nothing,
        }
        let meter = stream.meter();
        let mut gate = self.configuration.gate();
        let mut exchange = HookExchange::new(stream);
        let Some(mut worker) = self.configuration.worker(self.worker) else {
            return self.unavailable("NO_WORKER", stream);
        };
        let mut host = self.configuration.host(Some(meter));
        let action = worker.resume(self.id, &mut host, &mut exchange, &mut gate);
        if let Some(reply) = &mut exchange.reply {
            worker.on_response_headers(self.id, &mut host, reply);
        }
        self.is_known.set(worker.knows(self.id));
        let is_watched = worker.watches(self.id);
        drop(worker);
        if gate.was_used {
            self.configuration.wake_ready();
        }
        match self.conclude(action, exchange, true, is_watched.then_some(&gate)) {
            After::Nothing if action == Action::Continue => After::Resume,
            after => after,
        }
    }

    /// Its session or token has ended.
    fn end(&self, stream: &mut Stream<'_>) -> After {
        let meter = stream.meter();
        let mut gate = self.configuration.gate();
        let mut exchange = HookExchange::new(stream);
        let Some(mut worker) = self.configuration.worker(self.worker) else { return After::Reset };
        let mut host = self.configuration.host(Some(meter));
        worker.end(self.id, &mut host, &mut exchange, &mut gate);
        if let Some(reply) = &mut exchange.reply {
            worker.on_response_headers(self.id, &mut host, reply);
        }
        drop(worker);
        match (exchange.reply, exchange.is_reset) {
            // It was named for an end that has come already.
            (None, false) => After::Nothing,
            (reply, _) => {
                stream.add_flag(ENDED);
                self.state.set(State::Replied);
                self.configuration.unwatch(self.id);
                reply.map_or(After::Reset, After::Reply)
            }
        }
    }

    /// A hook of this request panicked. The request is refused in any state.
    pub fn refuse_for_fault(&self, stream: &mut Stream<'_>) -> After {
        stream.add_flag(FAULT);
        if self.state.get() == State::Replied { After::Nothing } else { self.unavailable("FAULT", stream) }
    }

    /// The same, about what the panic left behind. `meter`: unless Envoy's objects are gone.
    pub fn clean_up_after_fault(&self, meter: Option<Meter<'_>>) {
        self.configuration.on_fault(meter);
        self.configuration.forget(self.id);
    }

    /// Envoy destroys its side of this request when this returns.
    pub fn on_destroy(&self) {
        self.configuration.leave();
    }

    /// Envoy is done with this request.
    pub fn on_gone(&self) {
        match self.state.replace(State::Replied) {
            State::Held => self.configuration.unpark(self.id),
            State::Watched => self.configuration.unwatch(self.id),
            State::New | State::Forwarded | State::Replied => {}
        }
        if !self.is_known.get() {
            return;
        }
        let mut gate = self.configuration.gate();
        if let Some(mut worker) = self.configuration.worker(self.worker) {
            worker.gone(self.id, &mut gate);
        }
        if gate.was_used {
            self.configuration.wake_ready();
        }
    }

    /// The state of the request after the driver's decision.
    fn conclude(
        &self,
        action: Action,
        exchange: HookExchange<'_, '_>,
        is_parked: bool,
        watched: Option<&Gate<'_>>,
    ) -> After {
        match action {
            Action::Continue => {
                self.state.set(if watched.is_some() { State::Watched } else { State::Forwarded });
                if let Some(gate) = watched {
                    self.configuration.watch(self.id, exchange.stream.scheduler(), gate);
                }
                // As in Wasm: a route can match a header that was set here.
                if exchange.edited {
                    exchange.stream.clear_route_cache();
                }
            }
            Action::Pause => self.state.set(State::Held),
            Action::Replied => self.state.set(State::Replied),
        }
        if action != Action::Pause && is_parked {
            self.configuration.unpark(self.id);
        }
        exchange.reply.map_or(After::Nothing, After::Reply)
    }

    fn unavailable(&self, details: &str, stream: &Stream<'_>) -> After {
        self.state.set(State::Replied);
        After::Reply(OwnedReply::unavailable(details, "the filter cannot judge this request").for_request(stream))
    }
}
