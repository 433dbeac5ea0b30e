//! Questions to the servers of a filter that are about no token: a check of given keys, and the ids of an issuer's keys.
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use authn::config::{Document, Issuer};
use authn::engine::Material;
use authn::keys::discovery;
use authn::policy::Policy;
use authn::time::{Monotonic, UnixSeconds};
use driver::CalloutReply as _;
use driver::fake::{FakeReply, InFlight};
use jose::{Algorithm, jwks};
use serde_json::Value;
use wire::check::{self, Needs, Question, ReplyError, StoreError};
use wire::{Answer, Retention, RevocationKey};

use crate::peers::Peers;

/// What the service said to a check.
pub enum Said {
    Answered {
        answers: Vec<Answer>,
        keeps: Retention,
        took: Duration,
        reply: FakeReply,
    },
    /// It cannot tell, and proves that it says so.
    Fails(StoreError),
    /// Its answer proves nothing.
    NoProof {
        status: u16,
        error: ReplyError,
    },
    Unreachable(String),
}

impl Said {
    /// Why there are no answers.
    pub fn trouble(&self) -> String {
        match self {
            Said::Answered { .. } => "it answers".to_owned(),
            Said::Fails(error) => error.name().to_owned(),
            Said::NoProof { status, error } => format!("status {status}, and {error}"),
            Said::Unreachable(why) => why.clone(),
        }
    }
}

/// Asks as a filter would. Without keys, about one that nothing has.
pub fn ask(document: &Document, policy: &Policy, peers: &Peers, keys: &[RevocationKey], now: UnixSeconds) -> Said {
    let (Some(revocation), Some(written)) = (policy.revocation(), document.revocation.as_ref()) else {
        return Said::Unreachable("the configuration has no `revocation`".to_owned());
    };
    let mut nonce = [0; 16];
    for half in nonce.chunks_mut(8) {
        half.copy_from_slice(&std::hash::RandomState::new().build_hasher().finish().to_be_bytes());
    }
    let nobody = [RevocationKey(nonce)];
    let keys = if keys.is_empty() { nobody.as_slice() } else { keys };
    let needs = Needs {
        future_iat_tolerance_seconds: u16::try_from(revocation.future_iat_tolerance).unwrap_or(u16::MAX),
        now_seconds: now.0,
    };
    let question = match Question::new(&revocation.derived, nonce, needs, keys) {
        Ok(question) => question,
        Err(error) => return Said::Unreachable(error.to_string()),
    };
    let call = callout(&written.cluster, "POST", &revocation.authority, check::PATH, revocation.timeout);
    let kind = ("content-type".to_owned(), check::CONTENT_TYPE.to_owned());
    let headers = call.headers.iter().cloned().chain([kind]).collect();
    let began = Instant::now();
    let reply = match peers.send(&InFlight { headers, body: question.bytes().to_vec(), ..call }, "http") {
        Ok(reply) => reply,
        Err(why) => return Said::Unreachable(why),
    };
    let took = began.elapsed();
    let status = reply.status().unwrap_or_default();
    match question.read_reply(&revocation.derived, status, &reply.body) {
        Ok(Ok(check::Reply { keeps, answers })) => Said::Answered { answers, keeps, took, reply },
        Ok(Err(error)) => Said::Fails(error),
        Err(error) => Said::NoProof { status, error },
    }
}

/// The ids of the keys that an issuer publishes and the filter could use. `None` if it publishes none.
pub fn key_set(issuer: &Issuer, peers: &Peers, wait: Duration) -> Option<Result<Vec<String>, String>> {
    let written = issuer.jwks.as_ref()?;
    let fetch = |url: &str| -> Result<Vec<u8>, String> {
        let parsed = discovery::Url::parse(url)?;
        let scheme = if url.starts_with("http://") { "http" } else { "https" };
        let reply = peers.send(&callout(&written.cluster, "GET", &parsed.authority, &parsed.path, wait), scheme)?;
        match reply.status() {
            Some(200) => Ok(reply.body),
            status => Err(format!("{url}: status {}", status.unwrap_or_default())),
        }
    };
    let found = || {
        let set = match &written.uri {
            Some(uri) => fetch(uri)?,
            None => {
                let url = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
                let text = fetch(&url)?;
                discovery::parse(&text, &issuer.issuer).map_err(|error| format!("{url}: {error}"))?;
                let document: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
                fetch(document["jwks_uri"].as_str().unwrap_or_default())?
            }
        };
        let parsed = jwks::parse::<Material>(&set, &Algorithm::ALL, written.symmetric).map_err(|it| it.to_string())?;
        Ok(parsed.keys.keys().iter().map(|key| key.kid().unwrap_or("(without a kid)").to_owned()).collect())
    };
    Some(found())
}

fn callout(cluster: &str, method: &str, authority: &str, path: &str, timeout: Duration) -> InFlight {
    let headers = [(":method", method), (":path", path), (":authority", authority), (":scheme", "http")];
    InFlight {
        id: driver::CallId(0),
        cluster: cluster.to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: Vec::new(),
        sent: Monotonic(0),
        timeout,
    }
}
