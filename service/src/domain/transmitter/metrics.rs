//! What is counted of events that we send.
use prometheus_client::registry::Registry;

use crate::base::metrics::Counters;

#[derive(Debug, Clone)]
pub struct Metrics {
    sent: Counters,
    retried: Counters,
}

/// What became of an event for one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentResult {
    Sent,
    /// The receiver answered 400, about this event.
    Refused,
    /// It was not taken for `retry_for`, not before the service stopped, or not before its receiver was removed or changed.
    Expired,
    /// Too many events wait for the receiver.
    Dropped,
    /// What is known of the session does not name it in the receiver's format.
    Unnamed,
}

/// Why an event is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// There was no answer.
    Unreachable,
    /// An answer that is no success, and no 400 about this event.
    Status,
    /// It could not be signed.
    Unsigned,
}

impl SentResult {
    const ALL: [Self; 5] = [Self::Sent, Self::Refused, Self::Expired, Self::Dropped, Self::Unnamed];

    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Unnamed => "unnamed",
        }
    }

    /// For the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Sent => "it was sent",
            Self::Refused => "the receiver refused it",
            Self::Expired => "the receiver did not take it in time",
            Self::Dropped => "too many events wait for the receiver",
            Self::Unnamed => "its subject is not known in the format that the receiver gets",
        }
    }
}

impl RetryReason {
    const ALL: [Self; 3] = [Self::Unreachable, Self::Status, Self::Unsigned];

    fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::Unsigned => "unsigned",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sent: Counters::new("result", SentResult::ALL.map(SentResult::name)),
            retried: Counters::new("reason", RetryReason::ALL.map(RetryReason::name)),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.sent.register(registry, "sent_events", "Security events for receivers, by what became of them");
        let help = "Tries to send a security event that failed and are repeated, by reason";
        self.retried.register(registry, "sent_events_retried", help);
    }

    pub fn sent(&self, result: SentResult) {
        self.sent.count(result.name());
    }

    pub fn retried(&self, reason: RetryReason) {
        self.retried.count(reason.name());
    }
}
