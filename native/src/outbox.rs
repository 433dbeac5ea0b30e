//! Callouts on their way to the main thread, which alone can send them, and their answers.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driver::{CallId, Callout, CalloutReply, HostError};

use crate::envoy::{self, Config};
use crate::ticker::{Bell, Event};

/// One configuration's callouts. The driver bounds how many there are at once.
pub struct Outbox {
    bell: Arc<Bell>,
    next: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    waiting: Vec<(CallId, OwnedCallout)>,
    /// By Envoy's number.
    in_flight: HashMap<u64, CallId>,
}

struct OwnedCallout {
    cluster: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
}

/// The answer to a callout, while its hook runs; without headers where none came.
pub struct Answer<'h> {
    pub headers: Vec<(&'h [u8], &'h [u8])>,
    /// The body in pieces.
    pub body: Vec<&'h [u8]>,
}

impl Outbox {
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { bell, next: AtomicU64::new(1), calls: Mutex::default() }
    }

    /// From any thread.
    pub fn post(&self, callout: &Callout<'_>) -> CallId {
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let headers = callout.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let callout = OwnedCallout {
            cluster: callout.cluster.to_owned(),
            headers,
            body: callout.body.to_vec(),
            timeout: callout.timeout,
        };
        self.calls().waiting.push((id, callout));
        self.bell.ring(Event::Work);
        id
    }

    /// Sends what was posted, on the main thread. Returns what Envoy would not send.
    pub fn send(&self, config: &mut Config<'_>) -> Vec<CallId> {
        let waiting = std::mem::take(&mut self.calls().waiting);
        let mut unsent = Vec::new();
        for (id, callout) in waiting {
            let headers: Vec<_> =
                callout.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            // Envoy can answer within this call, and the answer's hook asks for the lock.
            let sent = config.call(&envoy::Callout {
                cluster: &callout.cluster,
                headers: &headers,
                body: &callout.body,
                timeout: callout.timeout,
            });
            match sent {
                Ok(number) => {
                    self.calls().in_flight.insert(number, id);
                }
                Err(refused) => {
                    let why = refused.reason();
                    let text = format!("portcullis: no callout to cluster `{}`: {why}", callout.cluster);
                    envoy::log(envoy::LogLevel::Warn, &text);
                    unsent.push(id);
                }
            }
        }
        unsent
    }

    /// Whose answer Envoy has under this number.
    pub fn answered(&self, number: u64) -> Option<CallId> {
        self.calls().in_flight.remove(&number)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Both collections are whole after every step.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer<'_> {
    /// None came, and none will.
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
