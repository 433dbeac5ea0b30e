//! The file of `--sightings-file`: which signals of a hijacked session lead to what. Errors name the field.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use wire::Cidr;

use super::signal::Signal;
use crate::base::http_agent::is_protected;

/// Everything has a default: an empty file counts signals and does nothing else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What a signal leads to, beside its metric. Default: nothing.
    pub signals: BTreeMap<Signal, Vec<Action>>,
    /// How long it is remembered from where a session was used.
    #[serde(deserialize_with = "duration")]
    pub keep: Duration,
    /// A session that returns to a network is used from two, if the other one was seen within this time.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// How long a signal that a session had is not repeated for it.
    #[serde(deserialize_with = "duration")]
    pub quiet: Duration,
    /// No faster than this does anybody travel.
    pub max_speed_kmh: u32,
    /// Nobody has travelled who was seen so near: databases of places are not exact.
    pub min_distance_km: u32,
    pub networks: Networks,
    /// Users whose sessions are not judged.
    pub subjects: Vec<Subject>,
    /// Sessions that are ended, or whose users must log in again, in one minute at most.
    pub max_ends_per_minute: u32,
    /// Where signals with the action `webhook` go.
    pub webhook: Option<Webhook>,
}

/// What a signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// An entry of the audit log.
    Audit,
    /// A line of the log.
    Log,
    /// A request to `webhook`.
    Webhook,
    /// A security event to the receivers of `risk-level-change`.
    Event,
    /// The user must log in again before the session is used further.
    StepUp,
    /// The session is revoked.
    End,
}

/// Networks by which nobody is recognised.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Networks {
    /// Of mobile providers: their addresses change, and say little of a place. Their country counts.
    #[serde(deserialize_with = "blocks")]
    pub mobile: Vec<Cidr>,
    /// Ways out that users share: of an office or a VPN.
    #[serde(deserialize_with = "blocks")]
    pub egress: Vec<Cidr>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    pub issuer: String,
    pub subject: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://`, or `http://` to this host.
    pub url: String,
    /// The bearer token for it, read for each request.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {message}")]
pub struct SettingsError {
    pub field: String,
    pub message: String,
}

const MAX_BLOCKS: usize = 10_000;
const MAX_SUBJECTS: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            signals: BTreeMap::new(),
            keep: HOUR * 24,
            window: Duration::from_secs(600),
            quiet: HOUR,
            max_speed_kmh: 1000,
            min_distance_km: 200,
            networks: Networks::default(),
            subjects: Vec::new(),
            max_ends_per_minute: 60,
            webhook: None,
        }
    }
}

impl Settings {
    /// Does a signal lead to a security event?
    pub fn sends_events(&self) -> bool {
        self.signals.values().flatten().any(|action| *action == Action::Event)
    }

    /// The secret that the webhook gets.
    pub fn token_file(&self) -> Option<&Path> {
        self.webhook.as_ref()?.token_file.as_deref()
    }

    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |field: &str, message: String| Err(SettingsError { field: field.to_owned(), message });
        let minute = Duration::from_secs(60);
        for (field, value, least, most) in [
            ("keep", self.keep, minute, HOUR * 24 * 30),
            ("window", self.window, Duration::from_secs(1), HOUR * 24),
            ("quiet", self.quiet, Duration::ZERO, HOUR * 24 * 30),
        ] {
            if value < least || value > most {
                return wrong(field, format!("must be within {}s to {}s", least.as_secs(), most.as_secs()));
            }
        }
        if !(10..=100_000).contains(&self.max_speed_kmh) {
            return wrong("max_speed_kmh", "must be within 10 to 100000".into());
        }
        if self.min_distance_km > 20_000 {
            return wrong("min_distance_km", "must be at most 20000".into());
        }
        for (field, blocks) in [("networks.mobile", &self.networks.mobile), ("networks.egress", &self.networks.egress)]
        {
            if blocks.len() > MAX_BLOCKS {
                return wrong(field, format!("must have at most {MAX_BLOCKS} members"));
            }
        }
        if self.subjects.len() > MAX_SUBJECTS {
            return wrong("subjects", format!("must have at most {MAX_SUBJECTS} members"));
        }
        let uses_webhook = self.signals.values().any(|actions| actions.contains(&Action::Webhook));
        match &self.webhook {
            None if uses_webhook => return wrong("webhook", "is missing, and a signal leads to it".into()),
            Some(webhook) if !is_protected(&webhook.url) => {
                return wrong("webhook.url", "must begin with https://, or be an http:// URL of this host".into());
            }
            None | Some(_) => {}
        }
        let is_limited = |action: &Action| matches!(action, Action::End | Action::StepUp);
        if self.max_ends_per_minute == 0 && self.signals.values().flatten().any(is_limited) {
            return wrong("max_ends_per_minute", "must be at least 1: a signal leads to `end` or `step_up`".into());
        }
        Ok(())
    }

    pub fn actions(&self, signal: Signal) -> &[Action] {
        self.signals.get(&signal).map(Vec::as_slice).unwrap_or_default()
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    wire::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    let parse = |text: String| {
        let error = || serde::de::Error::custom(format_args!("`{text}` is no address and no CIDR block"));
        Cidr::parse(&text).ok_or_else(error)
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let settings: Settings = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        settings.check().map(|()| settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_what_differs_from_the_defaults() {
        let settings = read("signals: { travel: [audit, end] }\nkeep: 12h\n").unwrap();
        assert_eq!(settings.actions(Signal::Travel), [Action::Audit, Action::End]);
        assert_eq!(settings.actions(Signal::Agent), []);
        assert_eq!((settings.keep, settings.window), (HOUR * 12, Duration::from_secs(600)));
        assert!(read("{}").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("signals: { teleport: [end] }", "unknown variant `teleport`"),
            ("signals: { travel: [kill] }", "unknown variant `kill`"),
            ("speed: 5", "unknown field `speed`"),
            ("keep: 59s", "`keep` must be within"),
            ("window: 0s", "`window` must be within"),
            ("max_speed_kmh: 9", "`max_speed_kmh` must be within"),
            ("min_distance_km: 20001", "`min_distance_km` must be at most"),
            ("networks: { mobile: [10.0.0.1/8] }", "`10.0.0.1/8` is no address"),
            ("signals: { travel: [webhook] }", "`webhook` is missing"),
            ("webhook: { url: 'http://siem.example/' }", "`webhook.url` must begin"),
            ("webhook: { url: siem }", "`webhook.url` must begin"),
            ("signals: { travel: [end] }\nmax_ends_per_minute: 0", "`max_ends_per_minute` must be"),
            ("signals: { travel: [step_up] }\nmax_ends_per_minute: 0", "`max_ends_per_minute` must be"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
