//! One request for events and its answer (RFC 8936 section 2), bounded in time and size. Redirects are not followed.
use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::Reports;
use crate::base::http_agent::{self, HttpAgent};
use crate::base::throttle::Throttle;
use crate::domain::provider_events::MAX_TOKEN_BYTES;
use crate::domain::provider_events::claims::MAX_ID;
use crate::domain::provider_events::providers::{Poll, Provider, ProvidersError};

/// The most of one answer that are read, whatever was asked for. The others are sent again.
const MAX_SETS: usize = 100;
/// What an answer may have beside its events, in bytes.
const OVERHEAD: usize = 64 * 1024;

pub struct Poller {
    pub config: Poll,
    agent: HttpAgent,
    /// Refusals, as they are logged.
    pub refused: Throttle,
}

#[derive(Debug)]
pub struct Answer {
    /// By `jti`.
    pub sets: Vec<(String, Value)>,
    pub more_available: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    #[error("the answer is too large")]
    TooLarge,
    #[error("the transmitter answers {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    #[error("{0}")]
    Failed(String),
}

/// Section 2.2.
#[derive(Serialize)]
struct Request<'r> {
    #[serde(rename = "maxEvents")]
    max_events: usize,
    #[serde(rename = "returnImmediately")]
    return_immediately: bool,
    #[serde(flatten)]
    reports: &'r Reports,
}

/// Section 2.3.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    sets: Sets,
    #[serde(default, rename = "moreAvailable")]
    more_available: bool,
}

#[derive(Default)]
struct Sets(Vec<(String, Value)>);

impl PollError {
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            PollError::Status { retry_after, .. } => *retry_after,
            PollError::TooLarge | PollError::Failed(_) => None,
        }
    }
}

impl Poller {
    /// `None`: events of this provider are not fetched.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(provider: &Provider) -> Result<Option<Self>, ProvidersError> {
        let Some(config) = provider.events.as_ref().and_then(|events| events.poll.clone()) else { return Ok(None) };
        let agent = provider.agent(provider.timeout.saturating_add(config.wait))?;
        bearer(&config).map_err(|why| ProvidersError::new("events.poll.token_file", why))?;
        Ok(Some(Self { config, agent, refused: Throttle::default() }))
    }

    /// Asks for at most `most` events, and reports on earlier ones.
    ///
    /// # Errors
    /// See [`PollError`].
    pub async fn poll(&self, most: usize, reports: &Reports) -> Result<Answer, PollError> {
        let mut answer = self.send(most, self.config.wait.is_zero(), reports).await?;
        // More than were asked for: they are not acknowledged, so they come again.
        answer.sets.truncate(most);
        Ok(answer)
    }

    /// Reports, and asks for nothing (section 2.4.2).
    ///
    /// # Errors
    /// See [`PollError`].
    pub async fn report(&self, reports: &Reports) -> Result<(), PollError> {
        self.send(0, true, reports).await.map(drop)
    }

    async fn send(&self, max_events: usize, return_immediately: bool, reports: &Reports) -> Result<Answer, PollError> {
        let failed = |why: &str| PollError::Failed(why.to_owned());
        let request = Request { max_events, return_immediately, reports };
        let body = serde_json::to_vec(&request).map_err(|_| failed("the request cannot be written"))?;
        let (agent, config, has_refusals) = (self.agent.clone(), self.config.clone(), reports.has_refusals());
        let (tell, told) = oneshot::channel();
        // A thread of its own: the transmitter may hold the request for a minute, and the end of the service must not wait
        // for that.
        let thread = std::thread::Builder::new().name("poll".into());
        let spawned = thread.spawn(move || {
            let _ = tell.send(exchange(&agent, &config, &body, has_refusals));
        });
        spawned.map_err(|_| failed("no thread can be started"))?;
        told.await.unwrap_or_else(|_| Err(failed("the request failed")))
    }
}

fn exchange(agent: &HttpAgent, config: &Poll, body: &[u8], has_refusals: bool) -> Result<Answer, PollError> {
    let failed = |error: ureq::Error| match error {
        ureq::Error::BodyExceedsLimit(_) => PollError::TooLarge,
        error => PollError::Failed(error.to_string()),
    };
    let mut request = agent.post(&config.url).content_type("application/json").header("accept", "application/json");
    if let Some(bearer) = bearer(config).map_err(|why| PollError::Failed(format!("the token file {why}")))? {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    if has_refusals {
        request = request.header("content-language", "en");
    }
    let mut answer = request.send(body).map_err(failed)?;
    if answer.status() != 200 {
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        return Err(PollError::Status { status, retry_after: retry_after.map(Duration::from_secs) });
    }
    let bytes = answer.body_mut().with_config().limit(max_body(config)).read_to_vec().map_err(failed)?;
    let body: Body = serde_json::from_slice(&bytes).map_err(|error| {
        PollError::Failed(format!("the answer is not as in RFC 8936 section 2.3: {}", http_agent::bounded(error)))
    })?;
    Ok(Answer { sets: body.sets.0, more_available: body.more_available })
}

/// The events that are asked for, each of the largest size, in JSON.
fn max_body(config: &Poll) -> u64 {
    let each = MAX_TOKEN_BYTES.saturating_add(MAX_ID);
    u64::try_from(config.max_events.saturating_mul(each).saturating_add(OVERHEAD)).unwrap_or(u64::MAX)
}

/// # Errors
/// Why there is none, without its content.
fn bearer(config: &Poll) -> Result<Option<String>, String> {
    config.token_file.as_deref().map(http_agent::bearer).transpose()
}

impl<'de> Deserialize<'de> for Sets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Sets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of events")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sets, A::Error> {
                let mut sets: Vec<(String, Value)> = Vec::new();
                while sets.len() < MAX_SETS {
                    let Some((jti, set)) = map.next_entry::<String, Value>()? else { return Ok(Sets(sets)) };
                    if jti.is_empty() || jti.len() > MAX_ID {
                        return Err(de::Error::custom("a `jti` is empty or too long"));
                    }
                    if sets.iter().any(|(known, _)| *known == jti) {
                        return Err(de::Error::custom("a `jti` is there twice"));
                    }
                    sets.push((jti, set));
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Sets(sets))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("url", &self.config.url).finish_non_exhaustive()
    }
}
