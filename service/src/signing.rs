//! The keys that sign our JWTs: which one signs now, and which are published.
//!
//! A new key is published for [`PUBLISH_LEAD`] before it signs, so that no proxy sees a token before the key. A removed
//! key is published until its last token has expired.
mod key;
mod metrics;
mod pkcs11;
mod public;
mod reload;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

pub use key::{KeyError, SigningKey};
pub use metrics::Metrics;
pub use pkcs11::{Failure, Limits as TokenLimits, UriError};
pub use reload::{KeySource, ReadError, Source, open, read, watch};

/// How long a new key is published before it signs, if another one can sign meanwhile.
pub const PUBLISH_LEAD: Duration = Duration::from_secs(5);
/// Removed keys that are still published; the oldest is dropped for a new one.
const MAX_RETIRED: usize = 8;
/// The `typ` of access tokens: RFC 9068 section 2.1.
pub const ACCESS_TOKEN: &str = "at+jwt";
/// The `typ` of Status List Tokens: draft-ietf-oauth-status-list section 5.1.
pub const STATUS_LIST: &str = "statuslist+jwt";
/// The `typ` of security events: RFC 8417 section 2.3.
pub const SECURITY_EVENT: &str = "secevent+jwt";

#[derive(Debug)]
pub struct Signing {
    state: RwLock<State>,
    /// How long after its last token a key is published.
    overlap: Duration,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    /// The configured keys, in their order, with the time when each was first seen. The first is to sign.
    loaded: Vec<(Arc<SigningKey>, Instant)>,
    signer: Option<Arc<SigningKey>>,
    retired: Vec<(Arc<SigningKey>, Instant)>,
}

/// A JWT and the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// A compact JWS (RFC 7515).
    pub token: String,
    /// RFC 7638.
    pub thumbprint: String,
}

/// A JWT whose signature was checked, and nothing else.
#[derive(Debug)]
pub struct Verified {
    pub claims: Map<String, Value>,
    /// RFC 7638.
    pub thumbprint: String,
}

/// RFC 7517 section 5.
#[derive(Debug, Serialize, ToSchema)]
pub struct JwkSet {
    pub keys: Vec<Map<String, Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the service has no signing key")]
    NoKey,
    #[error("the key did not sign")]
    Failed,
    /// It may succeed later.
    #[error("the token that has the key did not sign")]
    Token(Failure),
}

impl Signing {
    /// The first of `keys` signs at once.
    pub fn new(keys: Vec<Arc<SigningKey>>, overlap: Duration, metrics: Metrics, now: Instant) -> Self {
        let signing = Self { state: RwLock::default(), overlap, metrics };
        signing.load(keys, now);
        signing
    }

    /// Replaces the keys.
    pub fn load(&self, keys: Vec<Arc<SigningKey>>, now: Instant) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut state.loaded);
        for key in keys {
            let known = before.iter().find(|(known, _)| known.kid() == key.kid());
            if state.loaded.iter().all(|(loaded, _)| loaded.kid() != key.kid()) {
                state.loaded.push(known.cloned().unwrap_or((key, now)));
            }
        }
        for (key, _) in before {
            state.retire(key, now + self.overlap);
        }
        drop(state);
        self.advance(now);
    }

    /// Lets the first key sign once it was published long enough, and drops those whose time is over.
    pub fn advance(&self, now: Instant) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.retired.retain(|(_, until)| *until > now);
        let Some((first, seen)) = state.loaded.first() else { return };
        let current = state.signer.as_ref().map(|signer| signer.kid());
        if current == Some(first.kid()) || (current.is_some() && now.saturating_duration_since(*seen) < PUBLISH_LEAD) {
            return;
        }
        tracing::info!(kid = first.kid(), alg = first.public().algorithm().name(), "this key signs from now on");
        if let Some(last) = state.signer.replace(Arc::clone(first)) {
            // It signed until this moment, whenever it was removed.
            state.retired.retain(|(key, _)| key.kid() != last.kid());
            state.retire(last, now + self.overlap);
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn has_key(&self) -> bool {
        self.read().signer.is_some()
    }

    /// There is a key that should sign, and its token failed to when it was last asked.
    pub fn is_failing(&self) -> bool {
        self.read().signer.as_ref().is_some_and(|signer| !signer.can_sign())
    }

    /// A JWT of these claims.
    ///
    /// # Errors
    /// See [`SignError`].
    pub async fn sign(&self, typ: &'static str, claims: &impl Serialize) -> Result<Signed, SignError> {
        let signer = self.read().signer.clone().ok_or(SignError::NoKey)?;
        let header = json!({ "alg": signer.public().algorithm().name(), "kid": signer.kid(), "typ": typ });
        let payload = serde_json::to_string(claims).map_err(|_| SignError::Failed)?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let signature = signer.sign(token.as_bytes()).await;
        self.metrics.signed(signature.as_ref().err().copied());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature?));
        Ok(Signed { token, thumbprint: signer.kid().to_owned() })
    }

    /// `None` if no published key of ours signed it as one of our access tokens.
    pub fn verify(&self, token: &str) -> Option<Verified> {
        let (input, signature) = token.rsplit_once('.')?;
        let (header, payload) = input.split_once('.')?;
        let header: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        let key = self.published().into_iter().find(|key| Some(key.kid()) == text("kid"))?;
        // The key decides the algorithm. Our headers have three members, so a token with others is not ours.
        if text("alg") != Some(key.public().algorithm().name())
            || text("typ") != Some(ACCESS_TOKEN)
            || header.len() != 3
        {
            return None;
        }
        if !key.public().verifies(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?) {
            return None;
        }
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        Some(Verified { claims, thumbprint: key.kid().to_owned() })
    }

    /// A JWK Set (RFC 7517 section 5).
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: self.published().iter().map(|key| key.public().jwk().clone()).collect() }
    }

    fn published(&self) -> Vec<Arc<SigningKey>> {
        let state = self.read();
        let mut keys: Vec<Arc<SigningKey>> = Vec::new();
        let all = state.signer.iter().chain(state.loaded.iter().map(|(key, _)| key));
        for key in all.chain(state.retired.iter().map(|(key, _)| key)) {
            if keys.iter().all(|known| known.kid() != key.kid()) {
                keys.push(Arc::clone(key));
            }
        }
        keys
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn retire(&mut self, key: Arc<SigningKey>, until: Instant) {
        let still = self.loaded.iter().any(|(loaded, _)| loaded.kid() == key.kid());
        if still || self.retired.iter().any(|(retired, _)| retired.kid() == key.kid()) {
            return;
        }
        if self.retired.len() >= MAX_RETIRED {
            self.retired.remove(0);
        }
        self.retired.push((key, until));
    }
}

#[cfg(test)]
mod tests;
