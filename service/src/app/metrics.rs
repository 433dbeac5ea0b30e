//! The registry of everything that is counted. Each part of the service owns its counters; here they get their names in the
//! one text that Prometheus reads.
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use store::{Observer, WriteError};

use crate::base::connections;
use crate::base::metrics::{Counters, Gauge};
use crate::domain::{feed, hijack, provider_events, regions, revocations, sessions, status_lists, transmitter};
use crate::{http, signing};

/// The counters of every part, to be handed out.
#[derive(Debug)]
pub struct Metrics {
    pub checks: http::check::Metrics,
    pub feed: feed::Metrics,
    pub regions: regions::Metrics,
    pub hijack: hijack::Metrics,
    pub oauth: http::oauth2::Metrics,
    pub provider_requests: http::provider_events::Metrics,
    pub provider_events: provider_events::Metrics,
    pub transmitter: transmitter::Metrics,
    pub signing: signing::Metrics,
    pub sessions: Counters,
    pub status_lists: Counters,
    pub revocations: Counters,
    pub closed_connections: Counters,
    pub store: StoreMetrics,
}

/// What the store reports.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    revocations_failed: Counters,
    read_seconds: Histogram,
    revocation_lag_seconds: Histogram,
    evicted: Gauge,
    ready: Gauge,
    commit_seconds: Histogram,
    committed: Counter,
    stored_bytes: Gauge,
    max_stored_bytes: Gauge,
    file_bytes: Gauge,
    throttled: Counter,
    mirror_writes: Counters,
    mirror_ready: Gauge,
    mirror_behind: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        Self {
            checks: http::check::Metrics::default(),
            feed: feed::Metrics::default(),
            regions: regions::Metrics::default(),
            hijack: hijack::Metrics::default(),
            oauth: http::oauth2::Metrics::default(),
            provider_requests: http::provider_events::Metrics::default(),
            provider_events: provider_events::Metrics::default(),
            transmitter: transmitter::Metrics::default(),
            signing: signing::Metrics::default(),
            sessions: sessions::event_counters(),
            status_lists: status_lists::event_counters(),
            revocations: revocations::counters(),
            closed_connections: connections::closed_counters(),
            store: StoreMetrics::new(),
        }
    }

    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("portcullis");
        self.checks.register(&mut registry);
        self.feed.register(&mut registry);
        self.regions.register(&mut registry);
        self.hijack.register(&mut registry);
        self.revocations.register(&mut registry, "revocations", "Revocations written, by kind");
        self.store.register(&mut registry);
        self.oauth.register(&mut registry);
        self.sessions.register(&mut registry, "sessions", "Sessions by event");
        self.status_lists.register(&mut registry, "status_lists", "Lists of revoked JWTs by event");
        self.provider_requests.register(&mut registry);
        self.provider_events.register(&mut registry);
        self.transmitter.register(&mut registry);
        self.signing.register(&mut registry);
        let help = "Unauthenticated connections closed to accept another one, by the bound that was reached";
        self.closed_connections.register(&mut registry, "connections_ended", help);
        registry
    }
}

impl StoreMetrics {
    fn new() -> Self {
        Self {
            revocations_failed: Counters::new("reason", ["not_written", "unknown", "unconfirmed"]),
            read_seconds: Histogram::new([0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
            revocation_lag_seconds: Histogram::new([
                0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0,
            ]),
            evicted: Gauge::default(),
            ready: Gauge::default(),
            commit_seconds: Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]),
            committed: Counter::default(),
            stored_bytes: Gauge::default(),
            max_stored_bytes: Gauge::default(),
            file_bytes: Gauge::default(),
            throttled: Counter::default(),
            mirror_writes: Counters::new("result", ["confirmed", "failed"]),
            mirror_ready: Gauge::default(),
            mirror_behind: Gauge::default(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        self.revocations_failed.register(registry, "revocations_failed", "Revocations not acknowledged, by reason");
        registry.register(
            "redis_seconds",
            "Round trips to Redis for reads, or reads of the file",
            self.read_seconds.clone(),
        );
        let help = "From a revocation to the first answer that reports it";
        registry.register("revocation_lag_seconds", help, self.revocation_lag_seconds.clone());
        registry.register("redis_evicted_keys", "Keys that Redis has evicted since it started", self.evicted.clone());
        registry.register("store_ready", "1 while checks can be answered from the store", self.ready.clone());
        let help = "Commits to the file, of all writes that waited for one";
        registry.register("store_commit_seconds", help, self.commit_seconds.clone());
        registry.register("store_writes", "Writes in these commits", self.committed.clone());
        registry.register("store_bytes", "Contents of the file", self.stored_bytes.clone());
        registry.register("store_max_bytes", "The most contents of the file", self.max_stored_bytes.clone());
        registry.register("store_file_bytes", "The size of the file", self.file_bytes.clone());
        let help = "Requests that DynamoDB refused because the table has too little capacity";
        registry.register("store_throttled", help, self.throttled.clone());
        self.mirror_writes.register(registry, "mirror_writes", "Writes to the mirror by how they ended");
        let help = "1 while the mirror can be written to";
        registry.register("mirror_ready", help, self.mirror_ready.clone());
        let help = "Names that the mirror lacks for now";
        registry.register("mirror_behind", help, self.mirror_behind.clone());
    }
}

impl Observer for StoreMetrics {
    fn read(&self, took: Duration) {
        self.read_seconds.observe(took.as_secs_f64());
    }

    fn revocation_lag(&self, lag: Duration) {
        self.revocation_lag_seconds.observe(lag.as_secs_f64());
    }

    fn revocation_failed(&self, error: &WriteError) {
        self.revocations_failed.count(match error {
            WriteError::NotWritten(_) => "not_written",
            WriteError::Unknown(_) => "unknown",
            WriteError::Unconfirmed(_) => "unconfirmed",
        });
    }

    fn ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }

    fn evicted(&self, entries: u64) {
        self.evicted.set(entries);
    }

    fn committed(&self, writes: usize, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.committed.inc_by(writes as u64);
    }

    fn stored_bytes(&self, bytes: u64, most: u64) {
        self.stored_bytes.set(bytes);
        self.max_stored_bytes.set(most);
    }

    fn file_bytes(&self, bytes: u64) {
        self.file_bytes.set(bytes);
    }

    fn throttled(&self) {
        self.throttled.inc();
    }

    fn mirror_ready(&self, ready: bool) {
        self.mirror_ready.set(u64::from(ready));
    }

    fn mirror_written(&self, confirmed: bool) {
        self.mirror_writes.count(if confirmed { "confirmed" } else { "failed" });
    }

    fn mirror_behind(&self, names: usize) {
        self.mirror_behind.set(names as u64);
    }
}
