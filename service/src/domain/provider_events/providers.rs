//! The providers that may end sessions, as their file lists them. Errors name the field.
mod duration;
mod events;
mod global_revocation;
mod mapping;
mod poll;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use jose::Algorithm;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use wire::issuer_matches;

use crate::base::http_agent::HttpAgent;
use crate::base::limits::MAX_SKEW;
pub use events::{Events, Opaque};
pub use global_revocation::GlobalRevocation;
pub use mapping::{MappedFormat, Mapping};
pub use poll::Poll;

/// The most providers of one service: each has a key set in memory.
pub const MAX_PROVIDERS: usize = 64;
/// The longest issuer, audience or URL, in bytes.
const MAX_TEXT: usize = 2048;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The file: `providers:` and a list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Providers {
    pub providers: Vec<Provider>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The value of `iss`, compared byte by byte.
    pub issuer: String,
    /// The `aud` that its tokens must have: our client ids for logout tokens, the audience of the stream for events.
    pub audiences: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    pub jwks_uri: Option<String>,
    /// Instead of `jwks_uri`: the issuer's document that names it.
    #[serde(default, deserialize_with = "present")]
    pub discovery: Option<Discovery>,
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Our client's secret there, for logout tokens signed with HS256, HS384 or HS512.
    #[serde(default, deserialize_with = "present")]
    pub secret_file: Option<PathBuf>,
    /// Accepts logout tokens. Absent: it may send none.
    #[serde(default, deserialize_with = "present")]
    pub logout: Option<Logout>,
    /// Accepts security events. Absent: it may send none.
    #[serde(default, deserialize_with = "present")]
    pub events: Option<Events>,
    /// Accepts requests to end all sessions of a user. Absent: it may send none.
    #[serde(default, deserialize_with = "present")]
    pub global_revocation: Option<GlobalRevocation>,
    /// How subjects that do not name a user as tokens do are mapped to one. A format that is absent is refused.
    #[serde(default)]
    pub subjects: BTreeMap<MappedFormat, Mapping>,
    /// It may give a new session the id of an ended one: a revocation of a session ends only what was issued until
    /// then.
    #[serde(default)]
    pub reuses_session_ids: bool,
    /// How far its clock may differ from ours.
    #[serde(default = "skew", with = "duration")]
    pub skew: Duration,
    /// For one answer of the provider.
    #[serde(default = "timeout", with = "duration")]
    pub timeout: Duration,
    /// How old its keys may be before they are fetched again.
    #[serde(default = "refresh", with = "duration")]
    pub refresh: Duration,
    /// How long its last keys are trusted if no new ones can be fetched.
    #[serde(default = "max_stale", with = "duration")]
    pub max_stale: Duration,
    /// Tokens that no known key verifies cause one fetch in this time, and up to four in a row after a quiet period.
    #[serde(default = "cool_down", with = "duration")]
    pub cool_down: Duration,
    /// Trust the CAs in this PEM file instead of those that browsers trust.
    #[serde(default, deserialize_with = "present")]
    pub ca_file: Option<PathBuf>,
    /// Fetch keys without TLS from other hosts than this one. An attacker on the way can then end every session.
    #[serde(default)]
    pub dangerously_allow_http: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// OpenID Connect Discovery 1.0 section 4.
    OpenidConfiguration,
    /// OpenID Shared Signals Framework 1.0 section 7.2.
    SsfConfiguration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    /// The oldest accepted logout token, by its `iat`.
    #[serde(default = "logout_max_age", with = "duration")]
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidersError {
    pub field: String,
    pub message: String,
}

impl Providers {
    /// The issuers whose tokens they may end.
    pub fn subject_issuers(&self) -> impl Iterator<Item = &String> {
        self.providers.iter().flat_map(Provider::subject_issuers)
    }

    /// The issuers, or patterns of tenants, that give the ids of ended sessions to new ones.
    pub fn reuse_session_ids(&self) -> impl Iterator<Item = &String> {
        self.providers.iter().filter(|provider| provider.reuses_session_ids).flat_map(Provider::subject_issuers)
    }

    /// `issuers` are those whose revocations are accepted; all, if empty.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self, issuers: &[String]) -> Result<(), ProvidersError> {
        if self.providers.len() > MAX_PROVIDERS {
            return Err(ProvidersError::new("providers", format!("must be at most {MAX_PROVIDERS}")));
        }
        let mut seen = HashSet::new();
        for (index, provider) in self.providers.iter().enumerate() {
            let within = |field: &str| format!("providers[{index}].{field}");
            provider.check(issuers).map_err(|error| ProvidersError { field: within(&error.field), ..error })?;
            if !seen.insert(&provider.issuer) {
                return Err(ProvidersError::new(within("issuer"), "is listed twice"));
            }
        }
        Ok(())
    }
}

impl Provider {
    /// The HTTP client for it. `limit` is for one request and its answer.
    ///
    /// # Errors
    /// The CA file cannot be used.
    pub fn agent(&self, limit: Duration) -> Result<HttpAgent, ProvidersError> {
        HttpAgent::new(self.ca_file.as_deref(), limit).map_err(|message| ProvidersError::new("ca_file", message))
    }

    fn check(&self, issuers: &[String]) -> Result<(), ProvidersError> {
        let wrong = |field: &str, message: String| Err(ProvidersError::new(field, message));
        text("issuer", &self.issuer)?;
        if self.audiences.is_empty() && (self.logout.is_some() || self.events.is_some()) {
            return wrong("audiences", "must name at least one".into());
        }
        for (index, audience) in self.audiences.iter().enumerate() {
            text(&format!("audiences[{index}]"), audience)?;
        }
        if self.algorithms.is_empty() {
            return wrong("algorithms", "must name at least one".into());
        }
        self.check_secret()?;
        match (&self.jwks_uri, self.discovery) {
            (Some(_), Some(_)) => return wrong("discovery", "excludes `jwks_uri`".into()),
            (None, None) if self.has_keys() => {
                return wrong("jwks_uri", "is missing; give it, or `discovery`".into());
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) if !self.has_keys() => {
                let field = if self.jwks_uri.is_some() { "jwks_uri" } else { "discovery" };
                return wrong(field, "is for keys, but `algorithms` names only those with a secret".into());
            }
            (Some(uri), None) => self.check_url("jwks_uri", uri)?,
            (None, Some(_)) => self.check_url("issuer", &self.issuer)?,
        }
        if self.logout.is_none() && self.events.is_none() && self.global_revocation.is_none() {
            let message =
                "is missing, and so are `events` and `global_revocation`: say which of them this provider may send";
            return wrong("logout", message.into());
        }
        for issuer in self.subject_issuers() {
            if !issuers.is_empty() && !issuers.iter().any(|taken| issuer_matches(taken, issuer)) {
                let message = format!(
                    "ends tokens of {issuer:?}, whose revocations are not accepted: --issuer names {}",
                    issuers.join(", ")
                );
                return wrong("issuer", message);
            }
        }
        bounded("skew", self.skew, Duration::ZERO, MAX_SKEW)?;
        bounded("timeout", self.timeout, Duration::from_millis(100), 10 * SECOND)?;
        bounded("refresh", self.refresh, SECOND, DAY)?;
        bounded("max_stale", self.max_stale, self.refresh, 30 * DAY)?;
        bounded("cool_down", self.cool_down, SECOND, 60 * SECOND)?;
        if let Some(logout) = &self.logout {
            bounded("logout.max_age", logout.max_age, SECOND, DAY)?;
        }
        for (format, mapping) in &self.subjects {
            mapping.check(*format)?;
        }
        if let Some(events) = &self.events {
            events.check(self)?;
        }
        self.global_revocation.as_ref().map_or(Ok(()), |global| global.check(self))
    }

    /// The files with secrets that it knows too: our client's secret, and the bearer token of polls.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> + Clone {
        let poll = self.events.as_ref().and_then(|events| events.poll.as_ref());
        let files = [self.secret_file.as_deref(), poll.and_then(|poll| poll.token_file.as_deref())];
        files.into_iter().flatten()
    }

    /// Whether it signs with published keys.
    pub fn has_keys(&self) -> bool {
        self.algorithms.iter().any(|algorithm| !algorithm.is_hmac())
    }

    fn check_secret(&self) -> Result<(), ProvidersError> {
        let wrong = |field: &str, message: &str| Err(ProvidersError::new(field, message));
        let has_secret = self.algorithms.iter().any(|algorithm| algorithm.is_hmac());
        match (has_secret, &self.secret_file) {
            (true, None) => wrong("secret_file", "is missing: HS256, HS384 and HS512 need our client's secret"),
            (false, Some(_)) => {
                wrong("secret_file", "is for HS256, HS384 and HS512, but `algorithms` names none of them")
            }
            (true, Some(_)) if self.logout.is_none() => {
                wrong("algorithms", "names algorithms for logout tokens only, but `logout` is missing")
            }
            (true, Some(_)) if self.events.is_some() && !self.has_keys() => {
                wrong("events", "are signed with published keys, but `algorithms` has no algorithm for them")
            }
            (true, Some(_)) if self.global_revocation.is_some() && !self.has_keys() => {
                wrong("global_revocation", "needs published keys, but `algorithms` has no algorithm for them")
            }
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }

    /// The issuers whose tokens this provider can end.
    fn subject_issuers(&self) -> impl Iterator<Item = &String> {
        let of_events = self.events.as_ref().map(|events| events.subject_issuer.as_ref().unwrap_or(&self.issuer));
        let of_global = self.global_revocation.as_ref();
        let of_global = of_global.map(|global| global.subject_issuer.as_ref().unwrap_or(&self.issuer));
        self.logout.as_ref().map(|_| &self.issuer).into_iter().chain(of_events).chain(of_global)
    }

    fn check_url(&self, field: &str, url: &str) -> Result<(), ProvidersError> {
        text(field, url)?;
        self.judge_url(url).map_err(|message| ProvidersError::new(field, message))
    }

    /// Whether keys, or the document that names them, may be fetched from this URL.
    ///
    /// # Errors
    /// Why not.
    pub fn judge_url(&self, url: &str) -> Result<(), &'static str> {
        let uri: Uri = url.parse().map_err(|_| "must be a URL")?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("must be a URL with a host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("must not contain a user or password");
        }
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.dangerously_allow_http || is_this_host(host) => Ok(()),
            Some("http") => Err("must begin with https:// (or set `dangerously_allow_http`)"),
            _ => Err("must begin with https://"),
        }
    }
}

fn is_this_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bounded(field: &str, value: Duration, least: Duration, most: Duration) -> Result<(), ProvidersError> {
    match value {
        value if value < least || value > most => {
            let message = format!("must be from {} to {}", duration::show(least), duration::show(most));
            Err(ProvidersError::new(field, message))
        }
        _ => Ok(()),
    }
}

fn text(field: &str, text: &str) -> Result<(), ProvidersError> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(ProvidersError::new(field, format!("must have from 1 to {MAX_TEXT} bytes")));
    }
    Ok(())
}

impl ProvidersError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for ProvidersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.message)
    }
}

impl std::error::Error for ProvidersError {}

/// Every provider supports it, and it is the default of clients (OpenID Connect Core 1.0 section 15.1).
fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn skew() -> Duration {
    Duration::from_secs(30)
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

fn refresh() -> Duration {
    Duration::from_secs(300)
}

fn max_stale() -> Duration {
    DAY
}

fn cool_down() -> Duration {
    Duration::from_secs(5)
}

/// The lifetime that Back-Channel Logout 1.0 section 4 recommends.
fn logout_max_age() -> Duration {
    Duration::from_secs(120)
}

/// Null is not absent: `logout:` without a value does not mean "no". (In YAML it is the same as `{}`, in JSON an
/// error.)
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
