//! What is counted of requests from providers.
use prometheus_client::registry::Registry;

use crate::base::metrics::PairCounters;
use crate::domain::provider_events::Endpoint;

#[derive(Debug, Clone)]
pub struct Metrics(PairCounters);

/// How a logout token or security event was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// A session or user ended.
    Ended,
    /// There was nothing to do.
    Noted,
    Refused,
    Unavailable,
}

impl EventResult {
    const ALL: [EventResult; 4] =
        [EventResult::Ended, EventResult::Noted, EventResult::Refused, EventResult::Unavailable];

    fn name(self) -> &'static str {
        match self {
            EventResult::Ended => "ended",
            EventResult::Noted => "noted",
            EventResult::Refused => "refused",
            EventResult::Unavailable => "unavailable",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let (endpoints, results) = (Endpoint::ALL.map(Endpoint::name), EventResult::ALL.map(EventResult::name));
        Self(PairCounters::new(["endpoint", "result"], endpoints, results))
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.0.register(registry, "provider_events", "Logout tokens and security events by how they ended");
    }

    pub fn answered(&self, endpoint: Endpoint, result: EventResult) {
        self.0.count(endpoint.name(), result.name());
    }
}
