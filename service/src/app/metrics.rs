//! What is counted, in Prometheus's text form.
use std::sync::atomic::AtomicU64;

use crate::http::oauth2::error::OAuthError;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wire::Kind;
use wire::check::StoreError;

use crate::domain::provider_events::Endpoint;
use crate::signing::{Failure, SignError};
use store::WriteError;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a request to an OAuth 2.0 endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthResult {
    Done,
    /// The client's fault.
    Refused,
    /// The store could not be asked.
    StoreError,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: Family<Label, Counter>,
    troubles: Family<Label, Counter>,
    revocations: Family<Label, Counter>,
    failed: Family<Label, Counter>,
    oauth: Family<[(&'static str, &'static str); 2], Counter>,
    sessions: Family<Label, Counter>,
    signals: Family<[(&'static str, &'static str); 2], Counter>,
    signals_kept: Gauge<u64, AtomicU64>,
    signals_later: Family<[(&'static str, &'static str); 2], Counter>,
    signatures: Family<Label, Counter>,
    signing_ready: Gauge<u64, AtomicU64>,
    pub keys_per_check: Histogram,
    pub redis_seconds: Histogram,
    pub revocation_lag_seconds: Histogram,
    connections_ended: Family<Label, Counter>,
    evicted: Gauge<u64, AtomicU64>,
    ready: Gauge<u64, AtomicU64>,
    mirror_writes: Family<Label, Counter>,
    mirror_ready: Gauge<u64, AtomicU64>,
    mirror_behind: Gauge<u64, AtomicU64>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Answered,
    /// The question was not ours or not well formed.
    Refused,
    StoreError,
}

/// Why a connection that had proved nothing was ended for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeRoom {
    /// Its address had too many such.
    OfAddress,
    /// There were too many connections in all.
    OfAll,
}

/// How the signing of a JWT ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignResult {
    Done,
    Failed,
    TimedOut,
    /// Not tried: too many waited.
    Busy,
}

/// How a logout token or security event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalResult {
    /// A session or user.
    Ended,
    /// There was nothing to do.
    Noted,
    Refused,
    Unavailable,
}

/// How one ended that was kept, after its sender had been told that it could not be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaterResult {
    Ended,
    Noted,
    Refused,
    /// Never decided: it gave way to others, or its time was over.
    Dropped,
}

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

impl CheckResult {
    const ALL: [CheckResult; 3] = [CheckResult::Answered, CheckResult::Refused, CheckResult::StoreError];

    fn name(self) -> &'static str {
        match self {
            CheckResult::Answered => "answered",
            CheckResult::Refused => "refused",
            CheckResult::StoreError => "trouble",
        }
    }
}

impl MadeRoom {
    fn name(self) -> &'static str {
        match self {
            MadeRoom::OfAddress => "of_address",
            MadeRoom::OfAll => "of_all",
        }
    }
}

impl OAuthResult {
    pub fn of(error: OAuthError) -> Self {
        match error {
            OAuthError::Unavailable(_) | OAuthError::SigningUnavailable | OAuthError::Internal => {
                OAuthResult::StoreError
            }
            _ => OAuthResult::Refused,
        }
    }

    fn name(self) -> &'static str {
        match self {
            OAuthResult::Done => "done",
            OAuthResult::Refused => "refused",
            OAuthResult::StoreError => "trouble",
        }
    }
}

impl SignResult {
    const ALL: [SignResult; 4] = [SignResult::Done, SignResult::Failed, SignResult::TimedOut, SignResult::Busy];

    pub fn of(error: Option<SignError>) -> Self {
        match error {
            None => SignResult::Done,
            Some(SignError::NoKey | SignError::Failed | SignError::Token(Failure::Failed)) => SignResult::Failed,
            Some(SignError::Token(Failure::TimedOut)) => SignResult::TimedOut,
            Some(SignError::Token(Failure::Busy)) => SignResult::Busy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            SignResult::Done => "done",
            SignResult::Failed => "failed",
            SignResult::TimedOut => "timed_out",
            SignResult::Busy => "busy",
        }
    }
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

impl SignalResult {
    const ALL: [SignalResult; 4] =
        [SignalResult::Ended, SignalResult::Noted, SignalResult::Refused, SignalResult::Unavailable];

    fn name(self) -> &'static str {
        match self {
            SignalResult::Ended => "ended",
            SignalResult::Noted => "noted",
            SignalResult::Refused => "refused",
            SignalResult::Unavailable => "unavailable",
        }
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let checks = Family::<Label, Counter>::default();
        let troubles = Family::<Label, Counter>::default();
        let revocations = Family::<Label, Counter>::default();
        let failed = Family::<Label, Counter>::default();
        let oauth = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let sessions = Family::<Label, Counter>::default();
        let signals = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let signals_kept = Gauge::<u64, AtomicU64>::default();
        let signals_later = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let signatures = Family::<Label, Counter>::default();
        let signing_ready = Gauge::<u64, AtomicU64>::default();
        let keys_per_check = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 512.0]);
        let redis_seconds = Histogram::new([0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]);
        let revocation_lag_seconds =
            Histogram::new([0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0]);
        let evicted = Gauge::<u64, AtomicU64>::default();
        let ready = Gauge::<u64, AtomicU64>::default();
        registry.register("checks", "Checks by how they ended", checks.clone());
        registry.register("troubles", "Checks that could not be answered, by reason", troubles.clone());
        registry.register("revocations", "Revocations written, by kind", revocations.clone());
        registry.register("revocations_failed", "Revocations not acknowledged, by reason", failed.clone());
        registry.register("oauth", "Requests to the OAuth 2.0 endpoints by how they ended", oauth.clone());
        registry.register("sessions", "Sessions by what was done with them", sessions.clone());
        registry.register("signals", "Logout tokens and security events by how they ended", signals.clone());
        let help = "Logout tokens and security events that are kept until they can be decided and carried out";
        registry.register("signals_kept", help, signals_kept.clone());
        let help = "Kept logout tokens and security events by how they ended after their sender was told 503";
        registry.register("signals_later", help, signals_later.clone());
        registry.register("signatures", "JWTs signed, by how it ended", signatures.clone());
        registry.register(
            "signing_ready",
            "0 while the key that signs is in a token that does not",
            signing_ready.clone(),
        );
        registry.register("check_keys", "Keys in one check", keys_per_check.clone());
        registry.register("redis_seconds", "Round trips to Redis for reads", redis_seconds.clone());
        let help = "From a revocation to the first answer that says so";
        registry.register("revocation_lag_seconds", help, revocation_lag_seconds.clone());
        registry.register("redis_evicted_keys", "Keys that Redis has evicted since it started", evicted.clone());
        registry.register("store_ready", "1 while the store can be answered from", ready.clone());
        let connections_ended = Family::<Label, Counter>::default();
        let help =
            "Connections without a request of our secret that were ended for another, by what they were too many of";
        registry.register("connections_ended", help, connections_ended.clone());
        for made_room in [MadeRoom::OfAddress, MadeRoom::OfAll] {
            connections_ended.get_or_create(&[("reason", made_room.name())]).inc_by(0);
        }
        let mirror_writes = Family::<Label, Counter>::default();
        let (mirror_ready, mirror_behind) = (Gauge::<u64, AtomicU64>::default(), Gauge::<u64, AtomicU64>::default());
        registry.register("mirror_writes", "Writes to the mirror by how they ended", mirror_writes.clone());
        registry.register("mirror_ready", "1 while the mirror can be written to", mirror_ready.clone());
        registry.register("mirror_behind", "Names that the mirror lacks", mirror_behind.clone());
        for result in ["confirmed", "failed"] {
            mirror_writes.get_or_create(&[("result", result)]).inc_by(0);
        }
        // Every name is there from the start: a rate over a series that appears late misses its first event.
        for result in CheckResult::ALL {
            checks.get_or_create(&[("result", result.name())]).inc_by(0);
        }
        for trouble in StoreError::ALL {
            troubles.get_or_create(&[("trouble", trouble.name())]).inc_by(0);
        }
        for kind in Kind::ALL {
            revocations.get_or_create(&[("kind", kind.name())]).inc_by(0);
        }
        for reason in ["not_written", "unknown", "unconfirmed"] {
            failed.get_or_create(&[("reason", reason)]).inc_by(0);
        }
        for endpoint in Endpoint::ALL {
            for result in SignalResult::ALL {
                signals.get_or_create(&[("endpoint", endpoint.name()), ("result", result.name())]).inc_by(0);
            }
            for result in LaterResult::ALL {
                signals_later.get_or_create(&[("endpoint", endpoint.name()), ("result", result.name())]).inc_by(0);
            }
        }
        for endpoint in ["introspect", "revoke", "token"] {
            for result in [OAuthResult::Done, OAuthResult::Refused, OAuthResult::StoreError] {
                oauth.get_or_create(&[("endpoint", endpoint), ("result", result.name())]).inc_by(0);
            }
        }
        for result in SignResult::ALL {
            signatures.get_or_create(&[("result", result.name())]).inc_by(0);
        }
        signing_ready.set(1);
        for what in ["created", "ended", "reused"] {
            sessions.get_or_create(&[("event", what)]).inc_by(0);
        }
        Self {
            registry,
            checks,
            troubles,
            revocations,
            failed,
            oauth,
            sessions,
            signals,
            signals_kept,
            signals_later,
            signatures,
            signing_ready,
            keys_per_check,
            redis_seconds,
            revocation_lag_seconds,
            connections_ended,
            evicted,
            ready,
            mirror_writes,
            mirror_ready,
            mirror_behind,
        }
    }

    pub fn connection_ended(&self, made_room: MadeRoom) {
        self.connections_ended.get_or_create(&[("reason", made_room.name())]).inc();
    }

    pub fn check(&self, result: CheckResult) {
        self.checks.get_or_create(&[("result", result.name())]).inc();
    }

    pub fn trouble(&self, trouble: StoreError) {
        self.troubles.get_or_create(&[("trouble", trouble.name())]).inc();
    }

    pub fn revoked(&self, kind: Kind) {
        self.revocations.get_or_create(&[("kind", kind.name())]).inc();
    }

    pub fn revocation_failed(&self, error: &WriteError) {
        let reason = match error {
            WriteError::NotWritten(_) => "not_written",
            WriteError::Unknown(_) => "unknown",
            WriteError::Unconfirmed(_) => "unconfirmed",
        };
        self.failed.get_or_create(&[("reason", reason)]).inc();
    }

    pub fn oauth(&self, endpoint: &'static str, result: OAuthResult) {
        self.oauth.get_or_create(&[("endpoint", endpoint), ("result", result.name())]).inc();
    }

    /// `created`, `ended`, or `reused`: ended because a refresh token was used again.
    pub fn session(&self, event: &'static str) {
        self.sessions.get_or_create(&[("event", event)]).inc();
    }

    pub fn signal(&self, endpoint: Endpoint, result: SignalResult) {
        self.signals.get_or_create(&[("endpoint", endpoint.name()), ("result", result.name())]).inc();
    }

    /// So many more are kept, and so many fewer.
    pub fn signals_kept(&self, more: usize, fewer: usize) {
        self.signals_kept.inc_by(more as u64);
        self.signals_kept.dec_by(fewer as u64);
    }

    pub fn signal_later(&self, endpoint: Endpoint, result: LaterResult) {
        self.signals_later.get_or_create(&[("endpoint", endpoint.name()), ("result", result.name())]).inc();
    }

    pub fn signature(&self, result: SignResult) {
        self.signatures.get_or_create(&[("result", result.name())]).inc();
    }

    pub fn signing_ready(&self, ready: bool) {
        self.signing_ready.set(u64::from(ready));
    }

    pub fn store_ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }

    /// A write to the mirror is confirmed, or failed.
    pub fn mirror_written(&self, confirmed: bool) {
        self.mirror_writes.get_or_create(&[("result", if confirmed { "confirmed" } else { "failed" })]).inc();
    }

    pub fn mirror_ready(&self, ready: bool) {
        self.mirror_ready.set(u64::from(ready));
    }

    pub fn mirror_behind(&self, names: usize) {
        self.mirror_behind.set(names as u64);
    }

    pub fn evicted(&self, keys: u64) {
        self.evicted.set(keys);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a String does not fail; an empty page would show as a missing scrape.
            Err(_) => String::new(),
        }
    }
}
