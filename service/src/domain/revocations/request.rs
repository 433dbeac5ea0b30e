//! One revocation as it is asked for, judged against what the operator configured.
use std::time::Duration;

use wire::Kind;

use super::{Policy, Subject};
use crate::base::limits::MAX_DURATION;
use crate::model::field_error::FieldError;
use crate::model::note::Note;
use store::Ends;

/// Stands in requests and answers for a time that does not come.
pub const NEVER: &str = "never";

#[derive(Clone, PartialEq, Eq)]
pub struct RevokeRequest {
    pub subject: Subject,
    pub reason: Option<String>,
    /// Also if no filter asks about such an issuer.
    pub new_issuer: bool,
    /// Only what was issued until now ends.
    pub until_now: bool,
    /// `None`: it holds until it is lifted.
    pub ttl: Option<Duration>,
}

/// What a caller may choose beside the subject.
#[derive(Debug, Default)]
pub struct Terms {
    pub reason: Option<String>,
    pub new_issuer: bool,
    /// Of a session. Default: whether its issuer reuses the ids of ended sessions.
    pub until_now: Option<bool>,
    /// A duration, or [`NEVER`]. Default: as long as revocations of the kind are kept.
    pub ttl: Option<String>,
}

impl RevokeRequest {
    /// # Errors
    /// The first field that is wrong.
    pub fn new(subject: Subject, terms: Terms, policy: &Policy) -> Result<Self, FieldError> {
        if terms.until_now.is_some() && subject.kind != Kind::Session {
            return Err(FieldError::new(
                "until_now",
                "is for sessions: users, clients and issuers are ended so in any case",
            ));
        }
        let until_now = terms.until_now.unwrap_or_else(|| ends_until_now(&subject, policy));
        let ttl = ttl_of(terms.ttl.as_deref(), subject.kind, policy)?;
        Ok(Self { subject, reason: terms.reason, new_issuer: terms.new_issuer, until_now, ttl })
    }

    /// For another part of this service, kept as long as revocations of the kind are.
    pub fn internal(subject: Subject, reason: Option<&str>, policy: &Policy) -> Self {
        let until_now = ends_until_now(&subject, policy);
        let ttl = policy.retention_of(subject.kind);
        Self { subject, reason: reason.map(str::to_owned), new_issuer: false, until_now, ttl }
    }

    pub fn ends(&self) -> Ends {
        let for_good = self.subject.kind.is_simply_dead() && !self.until_now;
        if for_good { Ends::ForGood } else { Ends::IssuedUntilNow }
    }

    pub fn note(&self, now: u64, by: &str) -> Note {
        let (id, signing_input_sha256) = self.subject.noted_id();
        Note {
            kind: self.subject.kind.name().to_owned(),
            iss: self.subject.issuer().to_owned(),
            id,
            signing_input_sha256,
            reason: self.reason.clone(),
            by: by.to_owned(),
            at: now,
            until: self.ttl.map(|ttl| now.saturating_add(ttl.as_secs())),
        }
    }
}

fn ends_until_now(subject: &Subject, policy: &Policy) -> bool {
    subject.kind == Kind::Session && policy.reuses_session_ids(subject.issuer())
}

fn ttl_of(text: Option<&str>, kind: Kind, policy: &Policy) -> Result<Option<Duration>, FieldError> {
    let retention = policy.retention_of(kind);
    let Some(text) = text else { return Ok(retention) };
    if text == NEVER {
        return match retention {
            None => Ok(None),
            Some(_) => Err(FieldError::new("ttl", "may be `never` for a signing key only")),
        };
    }
    let ttl = wire::parse_duration(text).map_err(|error| FieldError::new("ttl", format!("is wrong: {error}")))?;
    // A key that is to come back, since its issuer has withdrawn it, must still outlive what the key signed.
    let least = retention.unwrap_or_else(|| policy.login_retention());
    if ttl < least {
        let seconds = least.as_secs();
        return Err(FieldError::new(
            "ttl",
            format!("must be at least {seconds}s, else what was revoked could live longer than its revocation"),
        ));
    }
    if ttl > MAX_DURATION {
        return Err(FieldError::new("ttl", "must be at most ten years"));
    }
    Ok(Some(ttl))
}
