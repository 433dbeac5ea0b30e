//! How a provider's events are fetched (RFC 8936), as the providers file says it.
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Provider, ProvidersError, SECOND, bounded, duration};

/// The most events of one answer.
const MAX_EVENTS: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// The stream's `endpoint_url` at the transmitter. Nothing that a transmitter sends changes it.
    pub url: String,
    /// The bearer token of the requests (RFC 6750), read for each of them.
    #[serde(default, deserialize_with = "super::present")]
    pub token_file: Option<PathBuf>,
    /// The pause after an answer without events, give or take a quarter.
    #[serde(default = "interval", with = "duration")]
    pub interval: Duration,
    /// How long the transmitter may hold a request until it has events. `0s`: it answers at once.
    #[serde(default, with = "duration")]
    pub wait: Duration,
    /// The most events that are taken in one answer.
    #[serde(default = "max_events")]
    pub max_events: usize,
}

impl Poll {
    pub(super) fn check(&self, provider: &Provider) -> Result<(), ProvidersError> {
        provider.check_url("events.poll.url", &self.url)?;
        bounded("events.poll.interval", self.interval, SECOND / 10, 3600 * SECOND)?;
        bounded("events.poll.wait", self.wait, Duration::ZERO, 60 * SECOND)?;
        match self.max_events {
            1..=MAX_EVENTS => Ok(()),
            _ => Err(ProvidersError::new("events.poll.max_events", format!("must be from 1 to {MAX_EVENTS}"))),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn max_events() -> usize {
    25
}
