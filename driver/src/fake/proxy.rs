//! A process with one configuration: its threads, their requests, and the loop that a back end runs.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{FakeExchange, FakeHost, FakeReply, FakeResponse, InFlight, Sent};
use crate::configure::{Configured, configure};
use crate::dispatcher::{Dispatcher, TICK};
use crate::host::{CallId, StreamId};
use crate::state::Core;
use crate::worker::{Action, Worker};

pub struct FakeProxy {
    pub host: FakeHost,
    pub core: Arc<Core>,
    pub dispatcher: Dispatcher,
    pub workers: Vec<Worker>,
    requests: BTreeMap<StreamId, Running>,
    next: StreamId,
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Request {
    pub exchange: FakeExchange,
    /// It has no body.
    pub ends: bool,
}

/// What a client or an upstream sees of a request.
#[derive(Debug, Clone)]
pub enum Seen {
    Waiting,
    /// With the headers that the upstream gets.
    Forwarded(FakeExchange),
    Replied(Sent),
    /// The host would not send the reply: the client waits for the proxy's own timeout.
    Unanswered,
    /// It was forwarded, and its stream was ended: with a reply if its response had not begun.
    Ended(Option<Sent>),
}

struct Running {
    worker: usize,
    exchange: FakeExchange,
    seen: Option<Action>,
    /// Its stream was ended.
    is_ended: bool,
}

impl Request {
    /// A GET without a body. Names in lower case.
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Self {
        let pseudo = [(":method", "GET"), (":path", path), (":authority", "localhost"), (":scheme", "http")];
        let pairs =
            pseudo.iter().chain(headers).map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Self { exchange: FakeExchange::new(pairs.collect()), ends: true }
    }
}

impl FakeProxy {
    /// # Errors
    /// The configuration is refused, in words.
    pub fn start(mut host: FakeHost, document: &[u8], workers: usize) -> Result<Self, String> {
        let Configured { core, dispatcher } = configure(&mut host, document.to_vec())?;
        let workers = (0..workers.max(1)).map(|_| Worker::new(Arc::clone(&core))).collect();
        Ok(Self { host, core, dispatcher, workers, requests: BTreeMap::new(), next: 0 })
    }

    /// The headers of a request arrive at a worker.
    pub fn send(&mut self, worker: usize, request: Request) -> StreamId {
        self.next += 1;
        let stream = self.next;
        let Request { mut exchange, ends } = request;
        let action = match self.workers.get_mut(worker) {
            Some(worker) => worker.begin(stream, ends, &mut self.host, &mut exchange, &mut self.dispatcher),
            None => panic!("there is no worker {worker}"),
        };
        self.requests.insert(stream, Running { worker, exchange, seen: None, is_ended: false });
        self.note(stream, action);
        self.resume();
        stream
    }

    /// The upstream answers a request with these headers: those that the client gets.
    pub fn respond_with(&mut self, stream: StreamId, headers: Vec<(String, String)>) -> Vec<(String, String)> {
        let Some(running) = self.requests.get(&stream) else { panic!("there is no request {stream}") };
        let mut response = FakeResponse(headers);
        if let Some(worker) = self.workers.get_mut(running.worker) {
            worker.on_response_headers(stream, &mut self.host, &mut response);
        }
        response.0
    }

    pub fn seen(&self, stream: StreamId) -> Seen {
        let Some(running) = self.requests.get(&stream) else { panic!("there is no request {stream}") };
        if running.is_ended {
            return Seen::Ended(running.exchange.reply.clone());
        }
        match running.seen {
            None => Seen::Waiting,
            Some(Action::Continue) => Seen::Forwarded(running.exchange.clone()),
            Some(Action::Replied | Action::Pause) => match &running.exchange.reply {
                Some(reply) => Seen::Replied(reply.clone()),
                None => Seen::Unanswered,
            },
        }
    }

    /// The upstream begins to respond.
    pub fn respond(&mut self, stream: StreamId) {
        self.respond_with(stream, Vec::new());
    }

    /// Has it been forwarded, and is its stream open?
    pub fn is_open(&self, stream: StreamId) -> bool {
        matches!(self.seen(stream), Seen::Forwarded(_))
    }

    /// The client is gone.
    pub fn reset(&mut self, stream: StreamId) {
        if let Some(running) = self.requests.remove(&stream)
            && let Some(worker) = self.workers.get_mut(running.worker)
        {
            worker.gone(stream, &mut self.dispatcher);
        }
        self.resume();
    }

    /// A callout has its reply. One that is not in flight is replied to as well: a host may be late.
    pub fn answer(&mut self, call: CallId, reply: &FakeReply) {
        self.host.take(call);
        self.dispatcher.answered(&mut self.host, call, reply);
        self.resume();
    }

    /// Answers callouts until none is in flight, those that answers cause included. `None` leaves one in flight.
    pub fn answer_all(&mut self, mut answer: impl FnMut(&InFlight) -> Option<FakeReply>) {
        let mut left = Vec::new();
        while let Some(at) = self.host.in_flight.iter().position(|call| !left.contains(&call.id)) {
            let call = self.host.in_flight.remove(at);
            match answer(&call) {
                Some(reply) => self.answer(call.id, &reply),
                None => {
                    left.push(call.id);
                    self.host.in_flight.push(call);
                }
            }
        }
    }

    /// Time passes, tick by tick. Callouts that are not answered end by their timeouts, with what Envoy answers then.
    pub fn advance(&mut self, by: Duration) {
        let end = self.host.now.monotonic.plus(by);
        while self.host.now.monotonic < end {
            let left = end.since(self.host.now.monotonic);
            self.host.advance(left.min(TICK));
            let now = self.host.now.monotonic;
            let over: Vec<CallId> = self
                .host
                .in_flight
                .iter()
                .filter(|call| now.since(call.sent) >= call.timeout)
                .map(|call| call.id)
                .collect();
            for call in over {
                self.answer(call, &FakeReply::new(504, "text/plain", "upstream request timeout"));
            }
            self.tick();
        }
    }

    pub fn tick(&mut self) {
        for worker in &mut self.workers {
            worker.flush(&mut self.host);
        }
        self.dispatcher.tick(&mut self.host);
        self.resume();
    }

    /// A counter or gauge, by name and labels.
    pub fn metric(&mut self, series: &str) -> i64 {
        for worker in &mut self.workers {
            worker.flush(&mut self.host);
        }
        self.dispatcher.flush(&mut self.host);
        self.host.metrics.get(series).copied().unwrap_or_default()
    }

    fn resume(&mut self) {
        while let Some(stream) = self.dispatcher.poll_wake() {
            let Some(running) = self.requests.get_mut(&stream) else { panic!("a request that is gone is woken") };
            let Some(worker) = self.workers.get_mut(running.worker) else { panic!("a request without a worker") };
            let action = worker.resume(stream, &mut self.host, &mut running.exchange, &mut self.dispatcher);
            self.note(stream, action);
        }
        while let Some(stream) = self.dispatcher.poll_end() {
            let Some(running) = self.requests.get_mut(&stream) else { panic!("a stream that is gone is ended") };
            let Some(worker) = self.workers.get_mut(running.worker) else { panic!("a stream without a worker") };
            assert_eq!(running.seen, Some(Action::Continue), "a request that was not forwarded is ended");
            worker.end(stream, &mut self.host, &mut running.exchange, &mut self.dispatcher);
            running.is_ended = running.exchange.is_reset || running.exchange.reply.is_some();
            if running.is_ended {
                worker.gone(stream, &mut self.dispatcher);
            }
        }
    }

    fn note(&mut self, stream: StreamId, action: Action) {
        let Some(running) = self.requests.get_mut(&stream) else { return };
        let is_held = self.workers.get(running.worker).is_some_and(|worker| worker.is_held(stream));
        match action {
            Action::Pause => assert!(is_held, "a request that waits lets its body pass"),
            Action::Continue => assert!(!is_held, "a request that is forwarded holds its body"),
            Action::Replied => {}
        }
        if action != Action::Pause {
            assert!(running.seen.is_none(), "a request is decided twice");
            running.seen = Some(action);
        }
        // A reply of the filter's own passes the filter too.
        if let (Some(reply), Some(worker)) = (&mut running.exchange.reply, self.workers.get_mut(running.worker)) {
            let mut response = FakeResponse(std::mem::take(&mut reply.headers));
            worker.on_response_headers(stream, &mut self.host, &mut response);
            reply.headers = response.0;
        }
    }
}
