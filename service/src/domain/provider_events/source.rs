//! The source of one provider's keys: fetched at start, again when they are older than `refresh`, and when no known key
//! verifies a token. This module decides when a fetch is due; `watch` fetches.
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jose::jwks::{MAX_BYTES, Parsed};
use serde::Deserialize;

use super::error::Unavailable;
use super::keys::{self, KeySet};
use super::providers::{Discovery, Provider, ProvidersError};
use crate::base::http_agent::{self, HttpAgent};
use crate::base::signature::AwsLcKey;
use crate::base::token_bucket::Bucket;

/// The pause after a failed fetch. It doubles with each further failure.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// Fetches that tokens of unknown keys may cause at once: several rotations within one cool-down, and forged tokens before
/// them.
const BURST: u32 = 4;

pub struct Source {
    fetcher: Arc<Fetcher>,
    refresh: Duration,
    max_stale: Duration,
    state: Mutex<State>,
}

struct State {
    held: Option<Held>,
    /// Changes whenever the set differs from the one before.
    generation: u64,
    /// Failures since the last success: when the last one ended, how many there were, and why.
    failed: Option<(Instant, u32, String)>,
    /// For fetches that tokens without a known key cause.
    searches: Bucket,
}

#[derive(Clone)]
pub struct Held {
    pub keys: Arc<KeySet>,
    /// Of the keys in the set. It changes only when they do.
    pub generation: u64,
    /// When the fetch began, so that a set is never taken for younger than it is.
    pub fetched: Instant,
}

struct Fetcher {
    agent: HttpAgent,
    provider: Provider,
}

impl Source {
    /// # Errors
    /// The CA file cannot be used.
    pub fn new(provider: &Provider) -> Result<Self, ProvidersError> {
        let fetcher = Fetcher { agent: provider.agent(provider.timeout)?, provider: provider.clone() };
        let searches = Bucket::new(BURST, provider.cool_down);
        Ok(Self {
            fetcher: Arc::new(fetcher),
            refresh: provider.refresh,
            max_stale: provider.max_stale,
            state: Mutex::new(State { held: None, generation: 0, failed: None, searches }),
        })
    }

    /// Whether both fetch the same keys in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|source| {
            let provider = &source.fetcher.provider;
            (
                &provider.issuer,
                &provider.jwks_uri,
                provider.discovery,
                &provider.ca_file,
                provider.dangerously_allow_http,
            )
        });
        ours == theirs && self.fetcher.agent.has_same_roots(&other.fetcher.agent)
    }

    /// Begins with the keys of `former`.
    pub fn take_over(&self, former: &Self) {
        let (held, generation) = {
            let former = former.state();
            (former.held.clone(), former.generation)
        };
        let mut state = self.state();
        (state.held, state.generation) = (held, generation);
    }

    /// The keys that may be trusted now.
    pub fn held(&self, now: Instant) -> Option<Held> {
        let trusted = |held: &Held| now.saturating_duration_since(held.fetched) < self.max_stale;
        self.state().held.clone().filter(trusted)
    }

    /// When the next fetch is due; `searching`: a token waits for an unknown key.
    pub fn due(&self, now: Instant, searching: bool) -> Instant {
        let state = self.state();
        let fetched = state.held.as_ref().map(|held| held.fetched);
        let mut due = fetched.map_or(now, |fetched| fetched + self.refresh);
        if searching {
            due = match fetched.is_some_and(|fetched| now.saturating_duration_since(fetched) < self.max_stale) {
                true => due.min(state.searches.next(now)),
                // Without any keys the cool-down does not apply: all tokens wait for the provider.
                false => now,
            };
        }
        let paused = state.failed.as_ref().map(|(at, times, _)| *at + pause(*times));
        paused.map_or(due, |paused| paused.max(due))
    }

    /// Why there are no keys, as far as it is known.
    pub fn unavailable(&self, retry_after: Duration) -> Unavailable {
        let state = self.state();
        let why = match (&state.failed, &state.held) {
            (Some((_, _, why)), _) => why.clone(),
            (None, Some(_)) => "an unknown key".to_owned(),
            (None, None) => "the keys have not been fetched yet".to_owned(),
        };
        Unavailable::keys(why, retry_after)
    }

    /// Fetches the keys. The caller runs one fetch at a time. `None`: it failed, and the held keys stay.
    pub async fn fetch(&self) -> Option<Held> {
        let started = Instant::now();
        {
            let mut state = self.state();
            // Not for scheduled fetches.
            if state.held.as_ref().is_some_and(|held| held.fetched + self.refresh > started) {
                state.searches.take(started);
            }
        }
        let fetcher = Arc::clone(&self.fetcher);
        let fetched = tokio::task::spawn_blocking(move || fetcher.fetch()).await;
        let issuer = &self.fetcher.provider.issuer;
        let mut state = self.state();
        match fetched.unwrap_or_else(|_| Err("the fetch failed".to_owned())) {
            Ok(parsed) => {
                let before = state.held.take().filter(|held| keys::are_same(&held.keys, &parsed.keys));
                let held = match before {
                    Some(before) => Held { fetched: started, ..before },
                    None => {
                        let left_out = parsed.summary();
                        tracing::info!(issuer, keys = parsed.keys.keys().len(), left_out, "a provider has new keys");
                        state.generation = state.generation.wrapping_add(1);
                        Held { keys: Arc::new(parsed.keys), generation: state.generation, fetched: started }
                    }
                };
                state.held = Some(held.clone());
                state.failed = None;
                Some(held)
            }
            Err(why) => {
                let times = state.failed.as_ref().map_or(0, |(_, times, _)| times.saturating_add(1));
                tracing::warn!(issuer, why, "a provider's keys cannot be fetched");
                state.failed = Some((Instant::now(), times, why));
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubled with each failure.
fn pause(times: u32) -> Duration {
    PAUSE.saturating_mul(1 << times.min(10)).min(MAX_PAUSE)
}

impl Fetcher {
    fn fetch(&self) -> Result<Parsed<AwsLcKey>, String> {
        let uri = match (&self.provider.jwks_uri, self.provider.discovery) {
            (Some(uri), _) => uri.clone(),
            (None, discovery) => self.discover(discovery.unwrap_or(Discovery::OpenidConfiguration))?,
        };
        let bytes = self.get(&uri)?;
        keys::parse(&bytes).map_err(|why| format!("{uri}: {}", http_agent::bounded(why)))
    }

    fn discover(&self, discovery: Discovery) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let url = document_url(&self.provider.issuer, discovery);
        let bytes = self.get(&url)?;
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {}", http_agent::bounded(error)))?;
        // OpenID Connect Discovery 1.0 section 4.3: else the document is another issuer's.
        if document.issuer != self.provider.issuer {
            return Err(format!("{url}: it has another issuer"));
        }
        self.provider.judge_url(&document.jwks_uri).map_err(|why| format!("{url}: `jwks_uri` {why}"))?;
        Ok(document.jwks_uri)
    }

    fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let mut answer = self.agent.get(url).header("accept", "application/json").call().map_err(failed)?;
        if answer.status() != 200 {
            return Err(format!("{url}: status {}", answer.status().as_u16()));
        }
        let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        answer.body_mut().with_config().limit(most).read_to_vec().map_err(failed)
    }
}

/// OpenID Connect appends its name to the issuer (Discovery 1.0 section 4), the Shared Signals Framework inserts it
/// between host and path (section 7.2.1).
fn document_url(issuer: &str, discovery: Discovery) -> String {
    let issuer = issuer.trim_end_matches('/');
    match discovery {
        Discovery::OpenidConfiguration => format!("{issuer}/.well-known/openid-configuration"),
        Discovery::SsfConfiguration => {
            let path = issuer.find("://").and_then(|at| issuer.get(at + 3..)?.find('/').map(|path| at + 3 + path));
            let (host, path) = issuer.split_at(path.unwrap_or(issuer.len()));
            format!("{host}/.well-known/ssf-configuration{path}")
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("issuer", &self.fetcher.provider.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_pauses_that_grow_and_end_growing() {
        let pauses: Vec<_> = [0, 1, 2, 3, 4, 5, 40, u32::MAX].map(|times| pause(times).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15, 15, 15]);
    }

    #[test]
    fn each_discovery_has_its_own_place() {
        let openid = |issuer| document_url(issuer, Discovery::OpenidConfiguration);
        let ssf = |issuer| document_url(issuer, Discovery::SsfConfiguration);
        assert_eq!(openid("https://op.example/a/"), "https://op.example/a/.well-known/openid-configuration");
        assert_eq!(ssf("https://op.example"), "https://op.example/.well-known/ssf-configuration");
        assert_eq!(ssf("https://op.example:8443/a/b/"), "https://op.example:8443/.well-known/ssf-configuration/a/b");
    }
}
