//! What a provider's security events may do, as the providers file says it.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DAY, Poll, Provider, ProvidersError, SECOND, bounded, duration, present, text};
use crate::domain::provider_events::actions::{ActionConfig, check_action};

/// The most spellings of an issuer.
const MAX_NAMES: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The oldest accepted event, by its `iat`. It must cover how long the transmitter retries.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    max_age: Option<Duration>,
    /// The issuer of the tokens that these events end, if it is not the transmitter.
    #[serde(default, deserialize_with = "present")]
    pub subject_issuer: Option<String>,
    /// Other spellings of that issuer, as the transmitter writes them in subjects.
    #[serde(default)]
    pub subject_issuer_names: Vec<String>,
    /// The meaning of a subject of the format `opaque`. RFC 9493 section 3.2.4 leaves it open.
    #[serde(default)]
    pub opaque: Opaque,
    /// What events do, by the last part of their type. An absent one does what docs/events.md says.
    #[serde(default)]
    pub actions: BTreeMap<String, ActionConfig>,
    /// Also accepts the forms of earlier drafts: the subject within the event, and `typ` absent or `JWT`.
    #[serde(default)]
    pub drafts: bool,
    /// Fetches events from the transmitter too (RFC 8936).
    #[serde(default, deserialize_with = "present")]
    pub poll: Option<Poll>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opaque {
    /// As in the examples of CAEP 1.0.
    #[default]
    Session,
    User,
}

impl Events {
    /// An event that is fetched waits at the transmitter while this service is down, and must not be too old then.
    pub fn max_age(&self) -> Duration {
        let default = if self.poll.is_some() { DAY } else { Duration::from_secs(3600) };
        self.max_age.unwrap_or(default)
    }

    pub(super) fn check(&self, provider: &Provider) -> Result<(), ProvidersError> {
        bounded("events.max_age", self.max_age(), SECOND, 30 * DAY)?;
        if let Some(issuer) = &self.subject_issuer {
            text("events.subject_issuer", issuer)?;
        }
        if self.subject_issuer_names.len() > MAX_NAMES {
            let message = format!("must be at most {MAX_NAMES}");
            return Err(ProvidersError::new("events.subject_issuer_names", message));
        }
        for (index, name) in self.subject_issuer_names.iter().enumerate() {
            text(&format!("events.subject_issuer_names[{index}]"), name)?;
        }
        for (name, config) in &self.actions {
            check_action(name, config)
                .map_err(|message| ProvidersError::new(format!("events.actions.{name}"), message))?;
        }
        self.poll.as_ref().map_or(Ok(()), |poll| poll.check(provider))
    }
}
