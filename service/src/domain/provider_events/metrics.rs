//! What is counted of pending tokens, of fetched events, and of the streams that providers keep.
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Endpoint;
use super::providers::Provider;
use crate::base::metrics::{Counters, Gauge, PairCounters};

/// A gauge for each provider. Their number is bounded by the providers file.
type OfProviders = Family<[(&'static str, String); 1], Gauge>;

#[derive(Debug, Clone)]
pub struct Metrics {
    pending: Gauge,
    later: PairCounters,
    polls: Counters,
    fetched: Counters,
    polled_at: OfProviders,
    stream_enabled: OfProviders,
    verified_at: OfProviders,
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

/// How a request for events ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollResult {
    Answered,
    Failed,
}

/// What became of an event that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchedResult {
    Ended,
    Noted,
    Refused,
    /// Not decided: it is not acknowledged, so the transmitter sends it again.
    Unavailable,
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

impl PollResult {
    fn name(self) -> &'static str {
        match self {
            PollResult::Answered => "answered",
            PollResult::Failed => "failed",
        }
    }
}

impl FetchedResult {
    const ALL: [FetchedResult; 4] =
        [FetchedResult::Ended, FetchedResult::Noted, FetchedResult::Refused, FetchedResult::Unavailable];

    fn name(self) -> &'static str {
        match self {
            FetchedResult::Ended => "ended",
            FetchedResult::Noted => "noted",
            FetchedResult::Refused => "refused",
            FetchedResult::Unavailable => "unavailable",
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
        Self {
            pending: Gauge::default(),
            later,
            polls: Counters::new("result", [PollResult::Answered, PollResult::Failed].map(PollResult::name)),
            fetched: Counters::new("result", FetchedResult::ALL.map(FetchedResult::name)),
            polled_at: OfProviders::default(),
            stream_enabled: OfProviders::default(),
            verified_at: OfProviders::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Logout tokens and security events that wait until they can be decided and carried out";
        registry.register("provider_events_pending", help, self.pending.clone());
        let help = "Pending logout tokens and security events by how they ended, after their sender was answered 503";
        self.later.register(registry, "provider_events_later", help);
        self.polls.register(registry, "provider_polls", "Requests to transmitters for events, by how they ended");
        self.fetched.register(registry, "provider_polled_events", "Events that were fetched, by result");
        let help = "When a transmitter last answered a request for events";
        registry.register("provider_polled_timestamp_seconds", help, self.polled_at.clone());
        let help = "0 while the transmitter says that it paused or disabled the stream of events";
        registry.register("provider_stream_enabled", help, self.stream_enabled.clone());
        let help =
            "When the transmitter last sent a verification event, by the time in it; 0 if it did not since the start";
        registry.register("provider_stream_verified_timestamp_seconds", help, self.verified_at.clone());
    }

    /// The series of a provider exist from when it is configured to when it is not.
    pub fn change_provider(&self, issuer: &str, before: Option<&Provider>, now: Option<&Provider>) {
        let events = |provider: Option<&Provider>| provider.is_some_and(|provider| provider.events.is_some());
        let polls = |provider: Option<&Provider>| {
            provider.and_then(|provider| provider.events.as_ref()).is_some_and(|events| events.poll.is_some())
        };
        if events(now) && !events(before) {
            self.stream_status(issuer, true);
            self.stream_verified(issuer, 0.0);
        }
        if polls(now) && !polls(before) {
            of(&self.polled_at, issuer, 0);
        }
        let label = [("issuer", issuer.to_owned())];
        if !events(now) {
            self.stream_enabled.remove(&label);
            self.verified_at.remove(&label);
        }
        if !polls(now) {
            self.polled_at.remove(&label);
        }
    }

    /// So many more are pending, and so many fewer.
    pub fn pending(&self, more: usize, fewer: usize) {
        self.pending.inc_by(more as u64);
        self.pending.dec_by(fewer as u64);
    }

    pub fn later(&self, endpoint: Endpoint, result: LaterResult) {
        self.later.count(endpoint.name(), result.name());
    }

    /// `at`: in Unix seconds.
    pub fn polled(&self, issuer: &str, result: PollResult, at: u64) {
        self.polls.count(result.name());
        if result == PollResult::Answered {
            of(&self.polled_at, issuer, at);
        }
    }

    pub fn fetched(&self, result: FetchedResult) {
        self.fetched.count(result.name());
    }

    pub fn stream_status(&self, issuer: &str, enabled: bool) {
        of(&self.stream_enabled, issuer, u64::from(enabled));
    }

    /// `at`: in Unix seconds.
    pub fn stream_verified(&self, issuer: &str, at: f64) {
        let at = Duration::try_from_secs_f64(at).unwrap_or_default();
        of(&self.verified_at, issuer, at.as_secs());
    }
}

fn of(family: &OfProviders, issuer: &str, value: u64) {
    family.get_or_create(&[("issuer", issuer.to_owned())]).set(value);
}
