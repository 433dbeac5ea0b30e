//! Callouts queued for the main thread, which alone can send them, and the owners of their answers.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use authn::time::Monotonic;
use driver::{CallId, Callout, CalloutReply, HostError};

use crate::callout_log::CalloutLog;
use crate::clock;
use crate::envoy::{self, Config};
use crate::ticker::{Bell, Event};

/// One configuration's callouts. The driver bounds how many there are at once. `C` is the type of configurations.
pub struct Outbox<C> {
    bell: Arc<Bell>,
    next: AtomicU64,
    calls: Mutex<Calls<C>>,
    log: Mutex<CalloutLog>,
    /// None is in flight any more.
    answered: Condvar,
}

struct Calls<C> {
    waiting: Vec<(Ticket<C>, OwnedCallout)>,
    /// By Envoy's number.
    in_flight: HashMap<u64, Ticket<C>>,
    /// Envoy's configuration is gone, so nothing can be sent.
    closed: bool,
}

/// A callout, and the configuration that wants its answer.
pub struct Ticket<C> {
    /// `None`: the configuration that has this outbox.
    pub owner: Option<Weak<C>>,
    pub call: CallId,
}

struct OwnedCallout {
    cluster: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
}

/// The answer to a callout, during its hook. Without headers if none came.
pub struct Answer<'h> {
    pub headers: Vec<(&'h [u8], &'h [u8])>,
    /// The body in pieces.
    pub body: Vec<&'h [u8]>,
}

impl<C> Outbox<C> {
    pub fn new(bell: Arc<Bell>) -> Self {
        let calls = Calls { waiting: Vec::new(), in_flight: HashMap::new(), closed: false };
        Self {
            bell,
            next: AtomicU64::new(1),
            calls: Mutex::new(calls),
            log: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    /// Wakes the main thread to send, from any thread.
    pub fn ring(&self) {
        self.bell.ring(Event::Work);
    }

    /// From any thread. Somebody must [`Outbox::send`] it.
    pub fn post(&self, callout: &Callout<'_>) -> CallId {
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let headers = callout.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let callout = OwnedCallout {
            cluster: callout.cluster.to_owned(),
            headers,
            body: callout.body.to_vec(),
            timeout: callout.timeout,
        };
        self.calls().waiting.push((Ticket { owner: None, call: id }, callout));
        id
    }

    /// Sends the posted callouts, on the main thread. Returns those that Envoy refuses.
    pub fn send(&self, config: &mut Config<'_>) -> Vec<Ticket<C>> {
        let waiting = std::mem::take(&mut self.calls().waiting);
        let mut unsent = Vec::new();
        for (ticket, callout) in waiting {
            let headers: Vec<_> =
                callout.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            // Envoy can answer within this call, and the answer's hook takes the lock.
            let sent = config.call(&envoy::Callout {
                cluster: &callout.cluster,
                headers: &headers,
                body: &callout.body,
                timeout: callout.timeout,
            });
            match sent {
                Ok(number) => {
                    self.calls().in_flight.insert(number, ticket);
                }
                Err(refused) => {
                    self.log().refused(&callout.cluster, refused.reason(), now());
                    unsent.push(ticket);
                }
            }
        }
        unsent
    }

    /// Has another configuration a callout here that is not answered?
    pub fn carries(&self) -> bool {
        let calls = self.calls();
        calls.in_flight.values().chain(calls.waiting.iter().map(|(ticket, _)| ticket)).any(|it| it.owner.is_some())
    }

    /// On the main thread, every tick: says how many refused callouts were not logged.
    pub fn tick(&self) {
        self.log().on_time(now());
    }

    /// The owner of the answer with this number.
    pub fn answered(&self, number: u64) -> Option<Ticket<C>> {
        let mut calls = self.calls();
        let ticket = calls.in_flight.remove(&number);
        if calls.in_flight.is_empty() {
            self.answered.notify_all();
        }
        ticket
    }

    /// Leaves the posted callouts of `owner`, which has this outbox, to another configuration. False if Envoy has removed
    /// that one.
    pub fn hand_over(&self, to: &Self, owner: &Weak<C>) -> bool {
        // The locks are taken one after the other, never nested.
        let mut waiting = std::mem::take(&mut self.calls().waiting);
        if waiting.is_empty() {
            return true;
        }
        for (ticket, _) in &mut waiting {
            ticket.owner.get_or_insert_with(|| Weak::clone(owner));
        }
        let mut theirs = to.calls();
        if theirs.closed {
            drop(theirs);
            self.calls().waiting.append(&mut waiting);
            return false;
        }
        theirs.waiting.append(&mut waiting);
        drop(theirs);
        to.bell.ring(Event::Work);
        true
    }

    /// Waits until no callout is in flight, but not longer than `limit`.
    pub fn wait(&self, limit: Duration) {
        let is_any = |calls: &mut Calls<C>| !calls.in_flight.is_empty();
        drop(self.answered.wait_timeout_while(self.calls(), limit, is_any));
    }

    /// Envoy's configuration is gone. Returns the callouts that will have no answer.
    pub fn close(&self) -> Vec<Ticket<C>> {
        self.log().end();
        let mut calls = self.calls();
        calls.closed = true;
        let waiting = std::mem::take(&mut calls.waiting);
        let in_flight = std::mem::take(&mut calls.in_flight);
        waiting.into_iter().map(|(ticket, _)| ticket).chain(in_flight.into_values()).collect()
    }

    fn log(&self) -> MutexGuard<'_, CalloutLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, Calls<C>> {
        // All of it is consistent after every step.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Monotonic {
    clock::now().map(|now| now.monotonic).unwrap_or_default()
}

impl Answer<'_> {
    /// No answer came, and none will.
    pub const NONE: Self = Self { headers: Vec::new(), body: Vec::new() };
}

impl CalloutReply for Answer<'_> {
    fn header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.headers.iter().find(|(given, _)| *given == name).map(|(_, value)| value.to_vec())
    }

    fn body(&self, max: usize) -> Result<Vec<u8>, HostError> {
        let mut whole = Vec::new();
        for chunk in &self.body {
            let room = max.saturating_sub(whole.len());
            whole.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        }
        Ok(whole)
    }
}
