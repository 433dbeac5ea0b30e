//! Where one provider's keys come from: fetched when they are needed, kept, and fetched again on an unknown key id, but
//! not more often than the cool-down says. One fetch at a time; what a stranger sends causes one in a cool-down.
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::keys::{KeySet, MAX_SET_BYTES};
use super::providers::{Discovery, Provider, ProvidersError};
use super::refused::Unavailable;

/// After a failure nobody asks again for so long.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Source {
    fetcher: Arc<Fetcher>,
    refresh: Duration,
    max_stale: Duration,
    cool_down: Duration,
    state: Mutex<State>,
    /// Whoever holds it fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failed: Option<Instant>,
    /// When an unknown key id last caused a fetch.
    searched: Option<Instant>,
}

#[derive(Clone)]
pub struct Held {
    pub keys: Arc<KeySet>,
    fetched: Instant,
}

struct Fetcher {
    agent: Agent,
    provider: Provider,
}

impl Held {
    /// Whether its fetch began then or later.
    pub fn is_from(&self, since: Instant) -> bool {
        self.fetched >= since
    }
}

impl Source {
    /// # Errors
    /// The file with authorities cannot be used.
    pub fn new(provider: &Provider) -> Result<Self, ProvidersError> {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(roots(provider)?);
        let config = Agent::config_builder()
            .timeout_global(Some(provider.timeout))
            .http_status_as_error(false)
            // A redirect could lead to where no key may come from.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build());
        let fetcher = Fetcher { agent: Agent::new_with_config(config.build()), provider: provider.clone() };
        Ok(Self {
            fetcher: Arc::new(fetcher),
            refresh: provider.refresh,
            max_stale: provider.max_stale,
            cool_down: provider.cool_down,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Keys that may be trusted now.
    ///
    /// # Errors
    /// There are none, or none that are young enough.
    pub async fn keys(&self) -> Result<Held, Unavailable> {
        if let Some(held) = self.fresh() {
            return Ok(held);
        }
        let turn = self.fetching.lock().await;
        // Somebody else may have fetched, or failed, meanwhile.
        if let Some(held) = self.fresh() {
            return Ok(held);
        }
        let failed = self.state().failed;
        let fetched = match failed.map(|at| at.elapsed()) {
            Some(since) if since < PAUSE => Err(Unavailable::keys("the last fetch failed a moment ago", PAUSE)),
            _ => self.fetch().await,
        };
        drop(turn);
        fetched.or_else(|unavailable| {
            self.held().filter(|held| held.fetched.elapsed() < self.max_stale).ok_or(unavailable)
        })
    }

    /// Keys whose fetch began at `since` or later: for a token that came then and names a key that we do not have.
    ///
    /// # Errors
    /// There are none, and it is too early to fetch again: the token may be good.
    pub async fn keys_since(&self, since: Instant) -> Result<Held, Unavailable> {
        if let Some(held) = self.held().filter(|held| held.is_from(since)) {
            return Ok(held);
        }
        self.cooled_down()?;
        let _turn = self.fetching.lock().await;
        if let Some(held) = self.held().filter(|held| held.is_from(since)) {
            return Ok(held);
        }
        self.cooled_down()?;
        self.state().searched = Some(Instant::now());
        self.fetch().await
    }

    /// Counted from the last fetch that an unknown key caused, and not from the last of all: a key that is published
    /// and used just after a refresh is found at once.
    fn cooled_down(&self) -> Result<(), Unavailable> {
        match self.state().searched.map(|at| at.elapsed()).filter(|since| *since < self.cool_down) {
            None => Ok(()),
            Some(since) => {
                let why = "an unknown key was looked for a moment ago";
                Err(Unavailable::keys(why, self.cool_down.saturating_sub(since)))
            }
        }
    }

    fn fresh(&self) -> Option<Held> {
        self.held().filter(|held| held.fetched.elapsed() < self.refresh)
    }

    fn held(&self) -> Option<Held> {
        self.state().held.clone()
    }

    /// Only with the turn.
    async fn fetch(&self) -> Result<Held, Unavailable> {
        let fetcher = Arc::clone(&self.fetcher);
        // Counted from before the question, so that a set is never held for younger than it is.
        let started = Instant::now();
        let fetched = tokio::task::spawn_blocking(move || fetcher.fetch()).await;
        let mut state = self.state();
        match fetched.unwrap_or_else(|_| Err("the fetch broke down".to_owned())) {
            Ok(keys) => {
                let issuer = &self.fetcher.provider.issuer;
                tracing::info!(issuer, keys = keys.len(), "fetched a provider's keys");
                let held = Held { keys: Arc::new(keys), fetched: started };
                state.held = Some(held.clone());
                state.failed = None;
                Ok(held)
            }
            Err(why) => {
                state.failed = Some(Instant::now());
                Err(Unavailable::keys(why, PAUSE))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetcher {
    fn fetch(&self) -> Result<KeySet, String> {
        let uri = match (&self.provider.jwks_uri, self.provider.discovery) {
            (Some(uri), _) => uri.clone(),
            (None, discovery) => self.discover(discovery.unwrap_or(Discovery::OpenidConfiguration))?,
        };
        let bytes = self.get(&uri)?;
        KeySet::parse(&bytes).map_err(|why| format!("{uri}: {why}"))
    }

    fn discover(&self, discovery: Discovery) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let url = document_url(&self.provider.issuer, discovery);
        let bytes = self.get(&url)?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))?;
        // OpenID Connect Discovery 1.0 section 4.3: else it is somebody else's document.
        if document.issuer != self.provider.issuer {
            return Err(format!("{url}: its issuer is another"));
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
        let most = u64::try_from(MAX_SET_BYTES).unwrap_or(u64::MAX);
        answer.body_mut().with_config().limit(most).read_to_vec().map_err(failed)
    }
}

/// OpenID Connect appends its name to the issuer (Discovery 1.0 section 4), the Shared Signals Framework puts it between
/// host and path (section 7.2.1).
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

fn roots(provider: &Provider) -> Result<RootCerts, ProvidersError> {
    let Some(file) = &provider.ca_file else { return Ok(RootCerts::WebPki) };
    let wrong = |message: String| ProvidersError::new("ca_file", message);
    let text = std::fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(wrong(format!("is not PEM: {error}"))),
        }
    }
    match certificates.is_empty() {
        true => Err(wrong("has no certificate".into())),
        false => Ok(RootCerts::from(certificates)),
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
    fn each_discovery_has_its_own_place() {
        let openid = |issuer| document_url(issuer, Discovery::OpenidConfiguration);
        let ssf = |issuer| document_url(issuer, Discovery::SsfConfiguration);
        assert_eq!(openid("https://op.example/a/"), "https://op.example/a/.well-known/openid-configuration");
        assert_eq!(ssf("https://op.example"), "https://op.example/.well-known/ssf-configuration");
        assert_eq!(ssf("https://op.example:8443/a/b/"), "https://op.example:8443/.well-known/ssf-configuration/a/b");
    }
}
