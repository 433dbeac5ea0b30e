//! The file of `--event-receivers-file`: who gets which security events, and how sessions are named to them. Errors name the
//! field.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use serde::{Deserialize, Deserializer};

use crate::base::http_agent::{self, HttpAgent, is_protected};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receivers {
    pub receivers: Vec<Receiver>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// `https://`, or `http://` to this host.
    pub url: String,
    /// The `aud` of its events.
    pub audience: String,
    /// The `iss` of the tokens that it knows: only what happens to their sessions is sent. Default: the `session-issuer`.
    #[serde(default)]
    pub issuer: Option<String>,
    #[serde(default = "default_events")]
    pub events: BTreeSet<EventType>,
    #[serde(default)]
    pub subject: SubjectFormat,
    /// Whether it gets the reason that an operator gave.
    #[serde(default)]
    pub reasons: bool,
    /// The bearer token for it, read for each request.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The CAs that sign its certificate, in PEM. Default: those of the web.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The longest time for one request.
    #[serde(default = "default_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// How long an event is sent again while the receiver does not take it.
    #[serde(default = "default_retry_for", deserialize_with = "duration")]
    pub retry_for: Duration,
}

/// Of CAEP 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventType {
    /// Section 3.1: a session, or all sessions of a user, ended.
    SessionRevoked,
    /// Section 3.8: a session shows signs of a hijack.
    RiskLevelChange,
}

/// How a session or a user is named (RFC 9493, and complex subjects of the Shared Signals Framework).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectFormat {
    /// The user by `iss_sub`, as far as known, and the session by its `sid`.
    #[default]
    Complex,
    /// The session by its `sid`.
    Opaque,
    /// The user alone.
    IssSub,
    /// The revocation key, as in access logs and alarms. It needs no names.
    Key,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`receivers[{index}].{field}` {message}")]
pub struct ReceiversError {
    pub index: usize,
    pub field: &'static str,
    pub message: String,
}

const MAX_RECEIVERS: usize = 16;
/// The longest URL, audience or issuer, in bytes.
const MAX_TEXT: usize = 2048;
const SECOND: Duration = Duration::from_secs(1);

impl Receivers {
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), ReceiversError> {
        for (index, receiver) in self.receivers.iter().enumerate() {
            let error = |(field, message)| ReceiversError { index, field, message };
            if index >= MAX_RECEIVERS {
                return Err(error(("url", format!("is one of more than {MAX_RECEIVERS}"))));
            }
            receiver.check().map_err(error)?;
        }
        Ok(())
    }

    /// # Errors
    /// The first file that cannot be used.
    pub fn check_files(&self) -> Result<(), ReceiversError> {
        for (index, receiver) in self.receivers.iter().enumerate() {
            let error = |field| move |message| ReceiversError { index, field, message };
            HttpAgent::new(receiver.ca_file.as_deref(), receiver.timeout).map_err(error("ca_file"))?;
            receiver.token_file.as_deref().map(http_agent::bearer).transpose().map_err(error("token_file"))?;
        }
        Ok(())
    }

    /// Gives each receiver its default issuer.
    #[must_use]
    pub fn with_issuer(mut self, session_issuer: &str) -> Self {
        for receiver in &mut self.receivers {
            if receiver.issuer.is_none() && receiver.subject != SubjectFormat::Key {
                receiver.issuer = Some(session_issuer.to_owned());
            }
        }
        self
    }

    /// Does any receiver get events of this type?
    pub fn get(&self, event: EventType) -> bool {
        self.receivers.iter().any(|receiver| receiver.events.contains(&event))
    }

    /// The secrets that receivers get.
    pub fn token_files(&self) -> impl Iterator<Item = &Path> + Clone {
        self.receivers.iter().filter_map(|receiver| receiver.token_file.as_deref())
    }
}

impl Receiver {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let has_authority = |url: &str| url.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        if !is_protected(&self.url) || self.url.len() > MAX_TEXT {
            return Err(("url", "must begin with https://, or be an http:// URL of this host".into()));
        }
        if has_authority(&self.url).is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(("url", "must have no user or password: give a `token_file`".into()));
        }
        for (field, text) in [("audience", Some(&self.audience)), ("issuer", self.issuer.as_ref())] {
            if text.is_some_and(|text| text.is_empty() || text.len() > MAX_TEXT) {
                return Err((field, format!("must have from 1 to {MAX_TEXT} bytes")));
            }
        }
        if self.subject == SubjectFormat::Key && self.issuer.is_some() {
            return Err(("issuer", "must be absent with `subject: key`: a key does not tell its issuer".into()));
        }
        if self.events.is_empty() {
            return Err(("events", "must name at least one".into()));
        }
        if !(SECOND / 10..=SECOND * 60).contains(&self.timeout) {
            return Err(("timeout", "must be within 100ms to 60s".into()));
        }
        if !(SECOND..=SECOND * 86_400).contains(&self.retry_for) {
            return Err(("retry_for", "must be within 1s to 24h".into()));
        }
        Ok(())
    }

    /// Does it get events about the tokens of this issuer? `None`: it is not known.
    pub fn is_about(&self, issuer: Option<&str>) -> bool {
        self.issuer.is_none() || issuer.is_none() || self.issuer.as_deref() == issuer
    }
}

fn default_events() -> BTreeSet<EventType> {
    [EventType::SessionRevoked].into()
}

fn default_timeout() -> Duration {
    SECOND * 5
}

fn default_retry_for() -> Duration {
    SECOND * 3600
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    wire::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<Receivers, String> {
        let text = format!("receivers:\n- {{ url: 'https://siem.example/events', audience: siem{more} }}\n");
        let receivers: Receivers = serde_norway::from_str(&text).map_err(|error| error.to_string())?;
        receivers.check().map(|()| receivers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_receiver_gets_ended_sessions_of_our_issuer_unless_it_says_more() {
        let receivers = read("").unwrap().with_issuer("https://login.example");
        let receiver = &receivers.receivers[0];
        assert_eq!(
            (receiver.subject, receiver.issuer.as_deref()),
            (SubjectFormat::Complex, Some("https://login.example"))
        );
        assert!(receivers.get(EventType::SessionRevoked) && !receivers.get(EventType::RiskLevelChange));
        assert!(receiver.is_about(Some("https://login.example")) && !receiver.is_about(Some("https://other.example")));
        let by_key = read(", subject: key, events: [risk-level-change]").unwrap().with_issuer("https://login.example");
        assert_eq!(by_key.receivers[0].issuer, None, "a finding by key has no issuer");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, error) in [
            (", colour: red", "unknown field `colour`"),
            (", events: [session-made]", "unknown variant `session-made`"),
            (", events: []", "`receivers[0].events` must name"),
            (", issuer: ''", "`receivers[0].issuer` must have"),
            (", subject: key, issuer: 'https://a.example'", "`receivers[0].issuer` must be absent"),
            (", subject: email", "unknown variant `email`"),
            (", timeout: 61s", "`receivers[0].timeout` must be"),
            (", retry_for: 25h", "`receivers[0].retry_for` must be"),
        ] {
            let found = read(more).unwrap_err();
            assert!(found.contains(error), "{more}: {found}");
        }
        for url in ["http://siem.example/", "siem", "https://me:secret@siem.example/"] {
            let text = format!("receivers: [{{ url: '{url}', audience: siem }}]");
            let receivers: Receivers = serde_norway::from_str(&text).unwrap();
            assert!(receivers.check().unwrap_err().to_string().contains("receivers[0].url"), "{url}");
        }
    }
}
