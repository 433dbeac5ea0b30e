//! What a revocation ends: one token, session, user, client, signing key or issuer, and its keys in the store.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::{DerivedKeys, Kind, RevocationKey, TENANT_PLACEHOLDER, token_id_from_jti};

use crate::domain::audit::Event;
use crate::model::field_error::FieldError;
use crate::model::note::Note;

#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: Kind,
    pub(super) issuer: String,
    pub(super) id: Id,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Id {
    /// The issuer alone.
    None,
    /// jti, sid, sub, client_id or thumbprint.
    Text(String),
    /// Of a token without jti, with the mark that `wire::token_id_from_signing_input` puts before it.
    SigningInput(Vec<u8>),
}

impl Subject {
    /// # Errors
    /// The field that is missing, empty or without meaning for this kind.
    pub fn new(kind: Kind, issuer: Option<String>, id: Option<String>) -> Result<Self, FieldError> {
        let issuer = filled("issuer", issuer)?;
        let id = match (kind, id) {
            (Kind::Issuer, None) => Id::None,
            (Kind::Issuer, Some(_)) => return Err(FieldError::new("id", "must not be given for an issuer")),
            (Kind::SigningKey, id) => Id::Text(thumbprint(filled("id", id)?)?),
            (_, id) => Id::Text(filled("id", id)?),
        };
        if issuer.contains(TENANT_PLACEHOLDER) && !matches!(kind, Kind::SigningKey | Kind::Issuer) {
            return Err(pattern_error());
        }
        Ok(Self { kind, issuer, id })
    }

    /// Of another part of this service, which judged it before.
    pub fn known(kind: Kind, issuer: &str, id: &str) -> Self {
        Self { kind, issuer: issuer.to_owned(), id: Id::Text(id.to_owned()) }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `None`: an issuer alone, or a token without `jti`.
    pub fn id(&self) -> Option<&str> {
        match &self.id {
            Id::Text(id) => Some(id),
            Id::None | Id::SigningInput(_) => None,
        }
    }

    /// What a revocation of it ends, in words. `before` is the time that it compares with.
    pub fn ends_what(&self, before: Option<u64>) -> String {
        let what = match self.kind {
            Kind::Token => return "this one token".to_owned(),
            Kind::Session if before.is_none() => {
                return "every token of this session, including refreshed ones".to_owned();
            }
            Kind::Session => "every token of this session",
            Kind::StepUp => {
                return "no token: those of this session need a login (auth_time) at `before` or later".to_owned();
            }
            Kind::SigningKey if self.issuer.contains(TENANT_PLACEHOLDER) => {
                return "every token that this key signed or will sign, for every tenant".to_owned();
            }
            Kind::SigningKey => return "every token of this issuer that this key signed or will sign".to_owned(),
            Kind::User => "every token of this user",
            Kind::Client => "every token of this client",
            Kind::Issuer if self.issuer.contains(TENANT_PLACEHOLDER) => "every token of every tenant",
            Kind::Issuer => "every token of this issuer",
        };
        format!(
            "{what} whose login (auth_time) was before `before`; a token without auth_time counts by its iat, so one that a \
             refresh brings later is not ended: end its session as well, or demand auth_time by the issuer's required_claims"
        )
    }

    /// `None` for a note that this service did not write.
    pub fn from_note(note: &Note) -> Option<Self> {
        let kind = note.kind.parse().ok()?;
        let id = match (&note.id, &note.signing_input_sha256) {
            (None, None) => Id::None,
            (Some(id), None) => Id::Text(id.clone()),
            (None, Some(marked)) => Id::SigningInput(URL_SAFE_NO_PAD.decode(marked).ok()?),
            (Some(_), Some(_)) => return None,
        };
        Some(Self { kind, issuer: note.iss.clone(), id })
    }

    /// The id as a note has it, and the digest that stands for it.
    pub(super) fn noted_id(&self) -> (Option<String>, Option<String>) {
        match &self.id {
            Id::None => (None, None),
            Id::Text(id) => (Some(id.clone()), None),
            Id::SigningInput(marked) => (None, Some(URL_SAFE_NO_PAD.encode(marked))),
        }
    }

    /// Adds the subject to an audit entry.
    pub fn describe(&self, event: &mut Event) {
        event.kind = Some(self.kind.name().to_owned());
        event.iss = Some(self.issuer.clone());
        let Id::Text(id) = &self.id else { return };
        let field = match self.kind {
            Kind::User => &mut event.sub,
            Kind::Session | Kind::StepUp => &mut event.sid,
            Kind::Client => &mut event.client_id,
            Kind::Token | Kind::SigningKey | Kind::Issuer => &mut event.id,
        };
        *field = Some(id.clone());
    }

    /// Its key under each secret, in their order.
    pub fn keys(&self, secrets: &[DerivedKeys]) -> Vec<RevocationKey> {
        let id = match (&self.id, self.kind) {
            (Id::None, _) => Vec::new(),
            (Id::Text(jti), Kind::Token) => token_id_from_jti(jti),
            (Id::Text(id), _) => id.as_bytes().to_vec(),
            (Id::SigningInput(marked), _) => marked.clone(),
        };
        secrets.iter().map(|derived| derived.revocation_key(self.kind, &self.issuer, &id)).collect()
    }
}

pub(super) fn pattern_error() -> FieldError {
    FieldError::new(
        "issuer",
        "must be one tenant's own, as its tokens have it in `iss`; the pattern stands for all tenants, for the kinds key and \
         issuer",
    )
}

fn filled(field: &str, value: Option<String>) -> Result<String, FieldError> {
    match value {
        None => Err(FieldError::new(field, "is missing")),
        Some(value) if value.is_empty() => Err(FieldError::new(field, "must not be empty")),
        Some(value) => Ok(value),
    }
}

/// A key id (`kid`) would be accepted, and have no effect.
fn thumbprint(id: String) -> Result<String, FieldError> {
    if URL_SAFE_NO_PAD.decode(&id).is_ok_and(|bytes| bytes.len() == 32) {
        return Ok(id);
    }
    Err(FieldError::new(
        "id",
        "must be the key's RFC 7638 thumbprint with SHA-256, 43 characters of base64url, and no key id; `portcullis jwks` \
         prints it, and `portcullis revoke key` finds it by --jwk, --kid or --signed-token",
    ))
}
