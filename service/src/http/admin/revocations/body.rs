//! The body that asks for one revocation.
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use wire::Kind;

use crate::base::limits::MAX_REASON;
use crate::domain::revocations::{Policy, RevokeRequest, Subject, Terms};
use crate::model::field_error::FieldError;
use crate::model::json::{self, JsonError};

const MAX_ISSUER: usize = 2048;
const MAX_ID: usize = 2048;
/// The longest token that a filter can be configured to accept: it must be revocable here.
pub const MAX_TOKEN: usize = 64 * 1024;
const MAX_WORD: usize = 32;

/// A revocation: of a kind, issuer and id, or of a token.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct RevocationBody {
    /// token, session, user, client, key or issuer; or step_up, which ends nothing, but demands a login of a session.
    #[serde(default, deserialize_with = "present")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "present")]
    issuer: Option<String>,
    /// jti, sid, sub, client_id or the issuer's own claim for it, or the RFC 7638 thumbprint of a key.
    #[serde(default, deserialize_with = "present")]
    id: Option<String>,
    /// A JWT, instead of kind, issuer and id.
    #[serde(default, deserialize_with = "present")]
    token: Option<String>,
    #[serde(default, deserialize_with = "present")]
    reason: Option<String>,
    /// For example `48h`; `never` for a key.
    #[serde(default, deserialize_with = "present")]
    ttl: Option<String>,
    /// Whether an issuer is accepted that no filter is configured for.
    #[serde(default, deserialize_with = "present")]
    new_issuer: Option<bool>,
    /// For a session: whether only what was issued until now ends, since its issuer may reuse the id. By default the
    /// provider's `reuses_session_ids`, otherwise false.
    #[serde(default, deserialize_with = "present")]
    until_now: Option<bool>,
}

/// Null is not absent: a field that is there must have a value.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// # Errors
/// The body is not one JSON object, or its first field that is wrong.
pub fn read(body: &[u8], policy: &Policy) -> Result<RevokeRequest, JsonError> {
    Ok(json::read::<RevocationBody>(body)?.into_request(policy)?)
}

impl RevocationBody {
    fn into_request(self, policy: &Policy) -> Result<RevokeRequest, FieldError> {
        for (field, value, most) in [
            ("token", &self.token, MAX_TOKEN),
            ("kind", &self.kind, MAX_WORD),
            ("issuer", &self.issuer, MAX_ISSUER),
            ("id", &self.id, MAX_ID),
            ("reason", &self.reason, MAX_REASON),
            ("ttl", &self.ttl, MAX_WORD),
        ] {
            if value.as_ref().is_some_and(|value| value.len() > most) {
                return Err(FieldError::new(field, format!("must have at most {most} bytes")));
            }
        }
        let subject = match self.token {
            Some(token) => {
                for (field, given) in [("kind", &self.kind), ("issuer", &self.issuer), ("id", &self.id)] {
                    if given.is_some() {
                        return Err(FieldError::new(field, "repeats what `token` contains"));
                    }
                }
                Subject::of_token(&token, policy)?
            }
            None => Subject::new(kind(self.kind)?, self.issuer, self.id)?,
        };
        let terms = Terms {
            reason: self.reason,
            new_issuer: self.new_issuer.unwrap_or_default(),
            until_now: self.until_now,
            ttl: self.ttl,
        };
        RevokeRequest::new(subject, terms, policy)
    }
}

fn kind(text: Option<String>) -> Result<Kind, FieldError> {
    let text = text.ok_or_else(|| FieldError::new("kind", "is missing; give it, or a `token`"))?;
    text.parse()
        .map_err(|()| FieldError::new("kind", "must be one of token, session, user, client, key, issuer, step_up"))
}

#[cfg(test)]
mod tests;
