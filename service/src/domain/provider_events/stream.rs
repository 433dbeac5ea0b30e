//! What a transmitter says about its stream (Shared Signals Framework 1.0 section 8.1): whether it sends, and that it was
//! verified.
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::metrics::Metrics;
use crate::base::throttle::Throttle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    Verified,
    /// `None`: of a status that is not known.
    Updated(Option<StreamStatus>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    Enabled,
    Paused,
    Disabled,
}

impl StreamStatus {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "enabled" => Some(StreamStatus::Enabled),
            "paused" => Some(StreamStatus::Paused),
            "disabled" => Some(StreamStatus::Disabled),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            StreamStatus::Enabled => "enabled",
            StreamStatus::Paused => "paused",
            StreamStatus::Disabled => "disabled",
        }
    }
}

/// The stream of one provider, as this instance knows it.
#[derive(Debug, Default)]
pub struct Stream {
    /// The `iat` of the newest event about each, so that an old one that is sent again changes nothing.
    newest: Mutex<Newest>,
    said: Throttle,
}

#[derive(Debug, Default)]
struct Newest {
    status: f64,
    verification: f64,
}

impl Stream {
    /// `issued_at`: of the event.
    pub fn on(&self, event: StreamEvent, issued_at: f64, issuer: &str, metrics: &Metrics) {
        {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = match event {
                StreamEvent::Verified => &mut newest.verification,
                StreamEvent::Updated(_) => &mut newest.status,
            };
            if issued_at < *newest {
                return;
            }
            *newest = issued_at;
        }
        match event {
            StreamEvent::Verified => metrics.stream_verified(issuer, issued_at),
            StreamEvent::Updated(status) => metrics.stream_status(issuer, status == Some(StreamStatus::Enabled)),
        }
        // Such an event can be sent repeatedly.
        let Some(more) = self.said.pass(Instant::now()) else { return };
        match event {
            StreamEvent::Verified => tracing::info!(issuer, more, "a stream of events was verified"),
            StreamEvent::Updated(Some(StreamStatus::Enabled)) => {
                tracing::info!(issuer, more, "a stream of events is enabled");
            }
            StreamEvent::Updated(status) => {
                let status = status.map_or("unknown", StreamStatus::name);
                tracing::warn!(issuer, status, more, "a stream of events was stopped by its transmitter");
            }
        }
    }
}
