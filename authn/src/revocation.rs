//! What is asked about a token, and what the answers mean for it. Who asks, and when, is `checks`' matter.
use wire::{Answer, Derived, Kind, RevocationKey, token_id_from_jti, token_id_from_signing_input};

use crate::claims::optional_string;
use crate::fault::{Denial, Fault};
use crate::json::Object;
use crate::policy::Revocation;
use crate::time::UnixSeconds;

/// The keys that could end one token, and the moment that `before` answers are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// At most one of each kind.
    pub keys: Vec<RevocationKey>,
    pub issued: UnixSeconds,
    /// Names exactly this question: all of its keys and `issued`. Two tokens may share a `jti`, and only the whole
    /// says that they also share their fate.
    pub digest: [u8; 16],
}

/// What a complete set of answers says about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Live,
    Dead,
}

impl Ask {
    /// # Errors
    /// [`Fault::InvalidClaim`] for a token that no revocation could be compared with.
    pub(crate) fn new(
        revocation: &Revocation,
        issuer: &str,
        payload: &Object<'_>,
        signing_input: &[u8],
        thumbprint: Option<&[u8; 32]>,
        issued: Option<UnixSeconds>,
    ) -> Result<Self, Denial> {
        let Some(issued) = issued else {
            return Err(Denial::new(
                Fault::InvalidClaim,
                "neither auth_time nor iat is there, and revocation needs one",
            ));
        };
        let keys: Vec<RevocationKey> =
            keys(revocation, issuer, payload, signing_input, thumbprint)?.into_iter().map(|(_, key)| key).collect();
        if keys.is_empty() {
            return Err(Denial::new(Fault::InvalidClaim, "the token has none of the claims that could end it"));
        }
        let digest = digest(&revocation.derived, &keys, issued);
        Ok(Self { keys, issued, digest })
    }

    /// The verdict of one answer for each of [`Ask::keys`].
    pub fn judge(&self, answers: impl IntoIterator<Item = Answer>) -> Verdict {
        if answers.into_iter().any(|answer| answer.ends(self.issued.0)) { Verdict::Dead } else { Verdict::Live }
    }
}

/// The keys that could end one token, at most one of each kind. An opaque token is its own signing input, and no key has
/// signed it.
pub(crate) fn keys(
    revocation: &Revocation,
    issuer: &str,
    payload: &Object<'_>,
    signing_input: &[u8],
    thumbprint: Option<&[u8; 32]>,
) -> Result<Vec<(Kind, RevocationKey)>, Denial> {
    let derived = &revocation.derived;
    let mut keys = Vec::with_capacity(revocation.kinds.len());
    for &kind in &revocation.kinds {
        let id = match kind {
            Kind::Token => Some(match optional_string(payload, "jti")? {
                Some(jti) => token_id_from_jti(jti),
                None => token_id_from_signing_input(signing_input),
            }),
            Kind::Session => optional_string(payload, "sid")?.map(|sid| sid.as_bytes().to_vec()),
            Kind::User => optional_string(payload, "sub")?.map(|sub| sub.as_bytes().to_vec()),
            Kind::Client => match optional_string(payload, "client_id")? {
                Some(client) => Some(client.as_bytes().to_vec()),
                None => optional_string(payload, "azp")?.map(|azp| azp.as_bytes().to_vec()),
            },
            Kind::SigningKey => thumbprint.map(|thumbprint| crate::b64::encode(thumbprint).into_bytes()),
            Kind::Issuer => Some(Vec::new()),
        };
        keys.extend(id.map(|id| (kind, derived.revocation_key(kind, issuer, &id))));
    }
    Ok(keys)
}

fn digest(derived: &Derived, keys: &[RevocationKey], issued: UnixSeconds) -> [u8; 16] {
    let mut parts: Vec<&[u8]> = Vec::with_capacity(keys.len().saturating_add(1));
    let issued = issued.0.to_be_bytes();
    parts.push(&issued);
    parts.extend(keys.iter().map(|key| key.0.as_slice()));
    derived.cache_mac(&parts)
}
