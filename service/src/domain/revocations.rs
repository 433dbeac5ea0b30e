//! Revocations: made, listed, shown and lifted, for operators, sessions and provider events alike.
mod policy;
mod request;
mod subject;
mod token;

use std::sync::Arc;
use std::time::Duration;

use wire::check::StoreError;
use wire::{Answer, DerivedKeys, Kind, RevocationKey};

use crate::base::clock::unix_seconds;
use crate::base::metrics::Counters;
use crate::domain::feed::Nudge;
use crate::domain::issuers::{Issuers, Unknown};
use crate::domain::transmitter::{self, Content, Initiator, Transmitter};
use crate::model::note::{Note, NoteCipher};
use crate::model::session::Data;
pub use policy::Policy;
pub use request::{NEVER, RevokeRequest, Terms};
use store::{Durability, Ends, ListError, Revocation, RevocationStore, StoredRevocation, WriteError};
pub use subject::Subject;

#[derive(Debug)]
pub struct Revocations {
    store: Arc<dyn RevocationStore>,
    secrets: Arc<[DerivedKeys]>,
    cipher: NoteCipher,
    issuers: Arc<Issuers>,
    policy: Policy,
    written: Counters,
    feed: Nudge,
    transmitter: Arc<Transmitter>,
}

/// The parts of the service that they stand on.
pub struct Parts {
    pub store: Arc<dyn RevocationStore>,
    pub secrets: Arc<[DerivedKeys]>,
    pub cipher: NoteCipher,
    pub issuers: Arc<Issuers>,
    pub policy: Policy,
    pub written: Counters,
    pub feed: Nudge,
    /// It is told of ended sessions and users, except of those that a provider has ended: two services that send to each
    /// other would do so without end.
    pub transmitter: Arc<Transmitter>,
}

/// What is in force after a revocation was written.
#[derive(Debug)]
pub struct Revoked {
    /// Under the primary secret.
    pub key: RevocationKey,
    /// What is stored now, which may be an earlier and stronger revocation.
    pub answer: Answer,
    /// `None`: it does not expire.
    pub expires_in: Option<Duration>,
    pub durability: Durability,
}

/// A stored revocation and its note, if a live secret opens it.
#[derive(Debug)]
pub struct Shown {
    pub stored: StoredRevocation,
    pub note: Option<Note>,
}

#[derive(Debug)]
pub struct Page {
    pub revocations: Vec<Shown>,
    /// `None`: this is the last page.
    pub cursor: Option<String>,
}

/// What was lifted.
#[derive(Debug)]
pub struct Lifted {
    pub keys: Vec<RevocationKey>,
    pub durability: Durability,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// It would end nothing.
    #[error("`{}` {}", .0.field(), .0.detail())]
    Unknown(Unknown),
    /// Nothing was written: the store could not be asked which issuers are known.
    #[error("{}", .0.name())]
    Unchecked(StoreError),
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No filter asks for demands of a login.
    #[error("no filter has `revocation.step_up`, so a demand would have no effect")]
    NotAsked,
    #[error("the note could not be encrypted")]
    Note,
}

/// Revocations written, by kind.
pub fn counters() -> Counters {
    Counters::new("kind", Kind::ALL.map(Kind::name))
}

impl Revocations {
    pub fn new(parts: Parts) -> Self {
        let Parts { store, secrets, cipher, issuers, policy, written, feed, transmitter } = parts;
        Self { store, secrets, cipher, issuers, policy, written, feed, transmitter }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Writes a revocation, under its key of each live secret.
    ///
    /// # Errors
    /// See [`RevokeError`]. A revocation for a mistyped issuer would succeed and end nothing, so it is refused.
    pub async fn revoke(&self, request: &RevokeRequest, by: &str) -> Result<Revoked, RevokeError> {
        if !request.new_issuer {
            let subject = &request.subject;
            let known = self.issuers.check(subject.issuer(), subject.kind).await.map_err(RevokeError::Unchecked)?;
            known.map_err(RevokeError::Unknown)?;
        }
        self.write(request, by).await
    }

    /// As [`Revocations::revoke`], for an issuer that is known to this service.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke_known(&self, request: &RevokeRequest, by: &str) -> Result<Revoked, RevokeError> {
        self.write(request, by).await
    }

    async fn write(&self, request: &RevokeRequest, by: &str) -> Result<Revoked, RevokeError> {
        let revocations = self.prepare(request, by, None)?;
        let key = revocations.first().map(|revocation| revocation.key).ok_or(RevokeError::Note)?;
        let written = self.store.revoke(revocations).await?;
        self.feed.written();
        self.written.count(request.subject.kind.name());
        self.send_ended(&request.subject, None, key, by, request.reason.as_deref());
        let in_force = written.in_force.first().ok_or(WriteError::Unknown(StoreError::StoreFailed))?;
        Ok(Revoked {
            key,
            answer: in_force.ending.into(),
            expires_in: in_force.expires_in,
            durability: written.durability,
        })
    }

    /// Writes several revocations at once: all of them are acknowledged, or it is an error. `asked` is when they were asked
    /// for, in Unix seconds, if that was before now.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke_all(
        &self,
        requests: &[RevokeRequest],
        by: &str,
        asked: Option<u64>,
    ) -> Result<Vec<RevocationKey>, RevokeError> {
        let (mut revocations, mut keys) = (Vec::new(), Vec::new());
        for request in requests {
            let of_one = self.prepare(request, by, asked)?;
            keys.push(of_one.first().map(|revocation| revocation.key).ok_or(RevokeError::Note)?);
            revocations.extend(of_one);
        }
        self.store.revoke(revocations).await?;
        self.feed.written();
        for request in requests {
            self.written.count(request.subject.kind.name());
        }
        Ok(keys)
    }

    /// Ends a session that this service made, for `ttl`, which covers all of its tokens.
    ///
    /// # Errors
    /// As for [`RevocationStore::revoke`].
    pub async fn end_session(
        &self,
        session: &Data,
        reason: Option<&str>,
        by: &str,
        ttl: Duration,
    ) -> Result<(), WriteError> {
        let subject = Subject::known(Kind::Session, &session.iss, &session.sid);
        let request =
            RevokeRequest { ttl: Some(ttl), ..RevokeRequest::internal(subject.clone(), reason, &self.policy) };
        match self.revoke_all(&[request], by, None).await {
            Ok(keys) => {
                if let Some(key) = keys.first() {
                    self.send_ended(&subject, Some(&session.sub), *key, by, reason);
                }
                Ok(())
            }
            Err(RevokeError::Write(error)) => Err(error),
            Err(_) => Err(WriteError::NotWritten(StoreError::StoreFailed)),
        }
    }

    /// Ends the session, or the token, with this key. It is all that is known of it, so it ends for filters with the secret at
    /// this index only.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke_key(
        &self,
        secret: usize,
        kind: Kind,
        key: RevocationKey,
        reason: &str,
        by: &str,
    ) -> Result<(), RevokeError> {
        let (now, ttl) = (unix_seconds(), self.policy.retention_of(kind));
        let note = Note {
            kind: kind.name().to_owned(),
            iss: String::new(),
            id: None,
            signing_input_sha256: None,
            reason: Some(reason.to_owned()),
            by: by.to_owned(),
            at: now,
            until: ttl.map(|ttl| now.saturating_add(ttl.as_secs())),
        };
        let sealed = self.cipher.seal(secret, key, &note).map_err(|_| RevokeError::Note)?;
        // Its issuer is not known, and may be one that gives the ids of ended sessions to new ones.
        let is_reused = kind == Kind::Session && !self.policy.reuse_session_ids.is_empty();
        let ends = if is_reused || !kind.is_simply_dead() { Ends::IssuedUntilNow } else { Ends::ForGood };
        self.store.revoke(vec![Revocation { key, ends, sealed, ttl }]).await?;
        self.feed.written();
        self.written.count(kind.name());
        Ok(())
    }

    /// Demands a login of the session, or the token, with this key, as [`Revocations::revoke_key`] would end it.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn demand_login(
        &self,
        secret: usize,
        session: RevocationKey,
        reason: &str,
        by: &str,
    ) -> Result<(), RevokeError> {
        // A filter that has started with an older version, or without the option, would go on admitting the session.
        if !self.issuers.is_asked(Kind::StepUp).await.map_err(RevokeError::Unchecked)? {
            return Err(RevokeError::NotAsked);
        }
        let derived = self.secrets.get(secret).ok_or(RevokeError::Note)?;
        self.revoke_key(secret, Kind::StepUp, derived.step_up_key(session), reason, by).await
    }

    /// # Errors
    /// See [`ListError`].
    pub async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let page = self.store.list(cursor, limit).await?;
        let revocations = page.revocations.into_iter().map(|stored| self.open(stored)).collect();
        Ok(Page { revocations, cursor: page.cursor })
    }

    /// # Errors
    /// As for [`RevocationStore::check`].
    pub async fn show(&self, key: RevocationKey) -> Result<Option<Shown>, StoreError> {
        Ok(self.store.show(key).await?.map(|stored| self.open(stored)))
    }

    /// Lifts a revocation under its key of every live secret, as far as its note names its subject. `None`: it is gone.
    ///
    /// # Errors
    /// As for [`RevocationStore::revoke`].
    pub async fn lift(&self, shown: &Shown) -> Result<Option<Lifted>, WriteError> {
        let subject = shown.note.as_ref().and_then(Subject::from_note);
        let mut keys = subject.map(|subject| subject.keys(&self.secrets)).unwrap_or_default();
        if !keys.contains(&shown.stored.key) {
            keys.push(shown.stored.key);
        }
        let written = self.store.lift(keys.clone()).await?;
        Ok((written.removed > 0).then_some(Lifted { keys, durability: written.durability }))
    }

    /// Tells receivers of events. `sub`: the user of a session, if known. Kinds that are neither sessions nor users have no
    /// such event.
    fn send_ended(&self, subject: &Subject, sub: Option<&str>, key: RevocationKey, by: &str, reason: Option<&str>) {
        let Some(id) = subject.id().filter(|_| matches!(subject.kind, Kind::Session | Kind::User)) else { return };
        let (sid, sub) = match subject.kind {
            Kind::Session => (Some(id.to_owned()), sub.map(str::to_owned)),
            _ => (None, Some(id.to_owned())),
        };
        let issuer = Some(subject.issuer().to_owned());
        self.transmitter.send(&transmitter::Event {
            subject: transmitter::Subject { kind: subject.kind, key, issuer, sub, sid },
            content: Content::Ended { by: Initiator::of(by), reason: reason.map(str::to_owned) },
            at: unix_seconds(),
        });
    }

    fn open(&self, stored: StoredRevocation) -> Shown {
        let note = self.cipher.open(stored.key, &stored.sealed);
        Shown { stored, note }
    }

    fn prepare(&self, request: &RevokeRequest, by: &str, asked: Option<u64>) -> Result<Vec<Revocation>, RevokeError> {
        let note = request.note(unix_seconds(), by);
        let ends = match (request.ends(), asked) {
            (Ends::IssuedUntilNow, Some(asked)) => Ends::IssuedUntil(asked),
            (ends, _) => ends,
        };
        let keys = request.subject.keys(&self.secrets).into_iter().enumerate();
        let revocations = keys.map(|(secret, key)| {
            let sealed = self.cipher.seal(secret, key, &note).map_err(|_| RevokeError::Note)?;
            let ttl = request.ttl.map(|ttl| ttl.saturating_add(self.policy.extra_ttl));
            Ok(Revocation { key, ends, sealed, ttl })
        });
        revocations.collect()
    }
}
