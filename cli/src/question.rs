//! Questions to the servers of a filter that are about no token: a check of given keys, and the ids of an issuer's keys.
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use authn::config::{Document, Issuer};
use authn::engine::Material;
use authn::keys::discovery;
use authn::policy::Policy;
use authn::revocation::Revocation;
use authn::time::{Monotonic, UnixSeconds};
use driver::CalloutReply;
use driver::fake::{FakeReply, InFlight};
use jose::{Algorithm, jwks};
use serde_json::Value;
use wire::check::{self, Needs, Question, ReplyError, StoreError};
use wire::feed::{self, Cursor, News, Poll};
use wire::{Answer, Retention, RevocationKey};

use crate::peers::Peers;

/// What the service said to a check.
pub enum Said {
    Answered {
        answers: Vec<Answer>,
        keeps: Retention,
        took: Duration,
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
    let nonce = nonce();
    let nobody = [RevocationKey(nonce)];
    let keys = if keys.is_empty() { nobody.as_slice() } else { keys };
    let needs = needs(revocation, now);
    let question = match Question::new(&revocation.derived, nonce, needs, keys) {
        Ok(question) => question,
        Err(error) => return Said::Unreachable(error.to_string()),
    };
    let (cluster, timeout) = (&written.cluster, revocation.timeout);
    let call = post(cluster, &revocation.authority, check::PATH, check::CONTENT_TYPE, timeout, question.bytes());
    let began = Instant::now();
    let reply = match peers.send(&call, "http") {
        Ok(reply) => reply,
        Err(why) => return Said::Unreachable(why),
    };
    let took = began.elapsed();
    let status = reply.status().unwrap_or_default();
    match question.read_reply(&revocation.derived, status, &reply.body) {
        Ok(Ok(check::Reply { keeps, answers, .. })) => Said::Answered { answers, keeps, took },
        Ok(Err(error)) => Said::Fails(error),
        Err(error) => Said::NoProof { status, error },
    }
}

/// One poll of the feed, as a filter that begins to follow it. What it says is for display.
///
/// # Errors
/// Why there is nothing for a follower.
pub fn poll_feed(document: &Document, policy: &Policy, peers: &Peers, now: UnixSeconds) -> Result<String, String> {
    let (Some(revocation), Some(written)) = (policy.revocation(), document.revocation.as_ref()) else {
        return Err("the configuration has no `revocation`".to_owned());
    };
    let poll = Poll::new(&revocation.derived, nonce(), needs(revocation, now), Duration::ZERO, &Cursor::default());
    let call =
        post(&written.cluster, &revocation.authority, feed::PATH, feed::CONTENT_TYPE, revocation.timeout, poll.bytes());
    let reply = peers.send(&call, "http")?;
    let status = reply.status().unwrap_or_default();
    match poll.read_reply(&revocation.derived, status, &reply.body) {
        Ok(Ok(feed::Reply { news: News::Piece { pieces, .. }, .. })) => {
            Ok(format!("a snapshot of {pieces} pieces is ready for followers"))
        }
        Ok(Ok(feed::Reply { news: News::Keys { complete_millis, .. }, .. })) => {
            Ok(format!("complete as of {} ms ago", complete_millis.saturating_neg()))
        }
        Ok(Err(trouble)) => Err(trouble.name().to_owned()),
        Err(error) => Err(format!("status {status}: {error}")),
    }
}

/// What an issuer publishes.
pub struct KeySetFound {
    /// Of the keys that the filter could use.
    pub kids: Vec<String>,
    /// The header of its answer.
    pub date: Option<Vec<u8>>,
}

/// `None` if its keys are in the configuration, or it has none.
pub fn key_set(issuer: &Issuer, peers: &Peers, wait: Duration) -> Option<Result<KeySetFound, String>> {
    let written = issuer.jwks.as_ref()?;
    let fetch = |url: &str| -> Result<FakeReply, String> {
        let parsed = discovery::Url::parse(url)?;
        let scheme = if url.starts_with("http://") { "http" } else { "https" };
        let reply = peers.send(&callout(&written.cluster, "GET", &parsed.authority, &parsed.path, wait), scheme)?;
        match reply.status() {
            Some(200) => Ok(reply),
            status => Err(format!("{url}: status {}", status.unwrap_or_default())),
        }
    };
    let found = || {
        let set = match &written.uri {
            Some(uri) => fetch(uri)?,
            None => {
                let url = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
                let text = fetch(&url)?;
                let text = text.body;
                discovery::parse(&text, &issuer.issuer).map_err(|error| format!("{url}: {error}"))?;
                let document: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
                fetch(document["jwks_uri"].as_str().unwrap_or_default())?
            }
        };
        let parsed =
            jwks::parse::<Material>(&set.body, &Algorithm::ALL, written.symmetric).map_err(|it| it.to_string())?;
        let kids = parsed.keys.keys().iter().map(|key| key.kid().unwrap_or("(without a kid)").to_owned());
        Ok(KeySetFound { kids: kids.collect(), date: CalloutReply::header(&set, b"date") })
    };
    Some(found())
}

/// Values that do not repeat: keys of the standard library's hash tables, which are random.
fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    for half in nonce.chunks_mut(8) {
        half.copy_from_slice(&std::hash::RandomState::new().build_hasher().finish().to_be_bytes());
    }
    nonce
}

fn needs(revocation: &Revocation, now: UnixSeconds) -> Needs {
    Needs {
        future_iat_tolerance_seconds: u16::try_from(revocation.future_iat_tolerance).unwrap_or(u16::MAX),
        now_seconds: now.0,
    }
}

fn post(cluster: &str, authority: &str, path: &str, kind: &str, timeout: Duration, body: &[u8]) -> InFlight {
    let mut call = callout(cluster, "POST", authority, path, timeout);
    call.headers.push(("content-type".to_owned(), kind.to_owned()));
    call.body = body.to_vec();
    call
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
