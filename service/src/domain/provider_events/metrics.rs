//! What is counted of pending tokens.
use prometheus_client::registry::Registry;

use super::Endpoint;
use crate::base::metrics::{Gauge, PairCounters};

#[derive(Debug, Clone)]
pub struct Metrics {
    pending: Gauge,
    later: PairCounters,
}

/// How a pending token ended, after its sender was answered 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaterResult {
    Ended,
    Noted,
    Refused,
    /// Never decided: it was dropped for others, or its time was over.
    Dropped,
}

impl LaterResult {
    const ALL: [LaterResult; 4] = [LaterResult::Ended, LaterResult::Noted, LaterResult::Refused, LaterResult::Dropped];

    fn name(self) -> &'static str {
        match self {
            LaterResult::Ended => "ended",
            LaterResult::Noted => "noted",
            LaterResult::Refused => "refused",
            LaterResult::Dropped => "dropped",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let later = PairCounters::new(
            ["endpoint", "result"],
            Endpoint::ALL.map(Endpoint::name),
            LaterResult::ALL.map(LaterResult::name),
        );
        Self { pending: Gauge::default(), later }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Logout tokens and security events that wait until they can be decided and carried out";
        registry.register("provider_events_pending", help, self.pending.clone());
        let help = "Pending logout tokens and security events by how they ended, after their sender was answered 503";
        self.later.register(registry, "provider_events_later", help);
    }

    /// So many more are pending, and so many fewer.
    pub fn pending(&self, more: usize, fewer: usize) {
        self.pending.inc_by(more as u64);
        self.pending.dec_by(fewer as u64);
    }

    pub fn later(&self, endpoint: Endpoint, result: LaterResult) {
        self.later.count(endpoint.name(), result.name());
    }
}
