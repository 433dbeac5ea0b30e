//! Revocations as they are answered. Times are Unix seconds.
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use wire::{Answer, RevocationKey};

use crate::domain::revocations::{Lifted, NEVER, Page, RevokeRequest, Revoked, Shown};
use store::Durability;

/// What filters are told about the key.
#[derive(Serialize, ToSchema)]
pub struct InForce {
    answer: AnswerWord,
    /// Where `answer` is `before`: tokens that were issued before this time are dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    until: Until,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AnswerWord {
    Dead,
    Before,
    Live,
    /// The stored value is none of ours. Checks of this key cannot be answered.
    Unreadable,
}

/// A time, or `never` for what holds until it is lifted.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Until {
    Time(u64),
    Never(&'static str),
}

/// What a write was confirmed by.
#[derive(Serialize, ToSchema)]
pub struct Safety {
    /// The store said that it is on its disk.
    on_disk: bool,
    /// How many replicas have it.
    replicas: u64,
}

/// A revocation that was acknowledged.
#[derive(Serialize, ToSchema)]
pub struct RevocationDone {
    key: String,
    kind: &'static str,
    #[serde(flatten)]
    in_force: InForce,
    /// What it ends, in words.
    ends: String,
    #[serde(flatten)]
    safety: Safety,
}

/// A revocation as it is stored. From `kind` on it is the note, which is absent if it cannot be decrypted any more.
#[derive(Serialize, ToSchema)]
pub struct StoredRevocation {
    key: String,
    #[serde(flatten)]
    in_force: InForce,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Of a token without jti.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_input_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The author: `admin`, `certificate:…`, `client:…` or a provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub struct RevocationPage {
    revocations: Vec<StoredRevocation>,
    /// Give it as `cursor` to go on; null at the end.
    cursor: Option<String>,
}

/// The keys that were lifted, one for each live secret.
#[derive(Serialize, ToSchema)]
pub struct LiftDone {
    lifted: Vec<String>,
    #[serde(flatten)]
    safety: Safety,
}

impl InForce {
    fn new(answer: Option<Answer>, expires_in: Option<Duration>, now: u64) -> Self {
        let (answer, before) = match answer {
            Some(Answer::Dead) => (AnswerWord::Dead, None),
            Some(Answer::Before(before)) => (AnswerWord::Before, Some(before)),
            Some(Answer::Live) => (AnswerWord::Live, None),
            None => (AnswerWord::Unreadable, None),
        };
        let until = expires_in.map_or(Until::Never(NEVER), |expires_in| {
            // Up: the entry's last fraction of a second counts as whole.
            let seconds = expires_in.as_secs() + u64::from(expires_in.subsec_nanos() > 0);
            Until::Time(now.saturating_add(seconds))
        });
        Self { answer, before, until }
    }
}

impl From<Durability> for Safety {
    fn from(durability: Durability) -> Self {
        Self { on_disk: durability.on_disk, replicas: durability.replicas }
    }
}

impl RevocationDone {
    pub fn new(request: &RevokeRequest, revoked: &Revoked, now: u64) -> Self {
        let in_force = InForce::new(Some(revoked.answer), revoked.expires_in, now);
        Self {
            key: revoked.key.to_string(),
            kind: request.subject.kind.name(),
            ends: request.subject.ends_what(in_force.before),
            in_force,
            safety: revoked.durability.into(),
        }
    }
}

impl StoredRevocation {
    pub fn new(shown: Shown, now: u64) -> Self {
        let stored = Self {
            key: shown.stored.key.to_string(),
            in_force: InForce::new(shown.stored.answer, shown.stored.expires_in, now),
            kind: None,
            issuer: None,
            id: None,
            signing_input_sha256: None,
            reason: None,
            by: None,
            at: None,
        };
        let Some(note) = shown.note else { return stored };
        Self {
            kind: Some(note.kind),
            issuer: Some(note.iss),
            id: note.id,
            signing_input_sha256: note.signing_input_sha256,
            reason: note.reason,
            by: Some(note.by),
            at: Some(note.at),
            ..stored
        }
    }
}

impl RevocationPage {
    pub fn new(page: Page, now: u64) -> Self {
        Self {
            revocations: page.revocations.into_iter().map(|shown| StoredRevocation::new(shown, now)).collect(),
            cursor: page.cursor,
        }
    }
}

impl From<Lifted> for LiftDone {
    fn from(lifted: Lifted) -> Self {
        Self { lifted: lifted.keys.iter().map(RevocationKey::to_string).collect(), safety: lifted.durability.into() }
    }
}
