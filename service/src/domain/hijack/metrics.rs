//! What is counted of sightings.
use prometheus_client::registry::Registry;
use store::WriteError;

use super::Signal;
use crate::base::metrics::Counters;

#[derive(Debug, Clone)]
pub struct Metrics {
    reports: Counters,
    failed: Counters,
    signals: Counters,
    actions: Counters,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportResult {
    Judged,
    /// It was taken before: the sender had no reply then, or somebody replays it.
    Repeated,
    /// The filter's clock is more than a minute from ours, or it is replayed.
    OtherTime,
    /// Too many reports are being judged.
    Busy,
    /// The store did not say whether it was taken before.
    Failed,
    /// Made with another secret, or malformed.
    Refused,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionResult {
    Audited,
    Logged,
    Sent,
    NotSent,
    /// A login was demanded.
    Demanded,
    /// The store did not acknowledge it, or no filter asks for demands.
    NotDemanded,
    Ended,
    /// The store did not acknowledge it.
    NotEnded,
    /// `max_ends_per_minute` was reached.
    TooMany,
}

impl ReportResult {
    const ALL: [Self; 6] = [Self::Judged, Self::Repeated, Self::OtherTime, Self::Busy, Self::Failed, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::Repeated => "repeated",
            Self::OtherTime => "other_time",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }

    /// Does the filter count it as sent?
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Judged | Self::Repeated)
    }
}

impl ActionResult {
    const ALL: [Self; 9] = [
        Self::Audited,
        Self::Logged,
        Self::Sent,
        Self::NotSent,
        Self::Demanded,
        Self::NotDemanded,
        Self::Ended,
        Self::NotEnded,
        Self::TooMany,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Audited => "audited",
            Self::Logged => "logged",
            Self::Sent => "sent",
            Self::NotSent => "not_sent",
            Self::Demanded => "demanded",
            Self::NotDemanded => "not_demanded",
            Self::Ended => "ended",
            Self::NotEnded => "not_ended",
            Self::TooMany => "too_many",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reports: Counters::new("result", ReportResult::ALL.map(ReportResult::name)),
            failed: Counters::new("reason", ["not_written", "unknown", "unconfirmed", "too_slow"]),
            signals: Counters::new("signal", Signal::ALL.map(Signal::name)),
            actions: Counters::new("result", ActionResult::ALL.map(ActionResult::name)),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.reports.register(registry, "sighting_reports", "Reports of sightings by result");
        self.failed.register(registry, "sightings_not_judged", "Sightings whose session's record was not written");
        self.signals.register(registry, "hijack_signals", "Signs of hijacked sessions");
        self.actions.register(registry, "hijack_actions", "What signs of hijacked sessions led to");
    }

    pub fn reported(&self, result: ReportResult) {
        self.reports.count(result.name());
    }

    pub fn not_judged(&self, error: &WriteError) {
        self.failed.count(match error {
            WriteError::NotWritten(_) => "not_written",
            WriteError::Unknown(_) => "unknown",
            WriteError::Unconfirmed(_) => "unconfirmed",
        });
    }

    /// A session was made, and the store took too long to remember from where.
    pub fn too_slow(&self) {
        self.failed.count("too_slow");
    }

    pub fn signal(&self, signal: Signal) {
        self.signals.count(signal.name());
    }

    pub fn acted(&self, result: ActionResult) {
        self.actions.count(result.name());
    }
}
