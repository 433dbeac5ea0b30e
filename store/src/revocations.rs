//! Revocations: a key and an answer. Live is the absence of an entry, in a store that proves its identity.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use wire::{Answer, RevocationKey};

use crate::{StoreError, StoreId, WriteError};

/// Revocations under keys that name nobody.
///
/// A write is a merge that only adds: dead stays over `before`, `before` over nothing, the larger `before` over the
/// smaller. An entry lives at least as long as each write asked for. So writes may be repeated and may arrive in any order.
///
/// Only [`RevocationStore::lift`] takes something away.
#[async_trait]
pub trait RevocationStore: Debug + Send + Sync {
    /// The store that this instance answers from. `None`: it has not found one yet.
    fn id(&self) -> Option<StoreId>;

    /// One answer for each key, in order. Without keys, it reads whether the whole store can answer.
    ///
    /// The answers come with proof that the store is this instance's store and that it is complete. Every revocation
    /// that was acknowledged before this call is in the answers.
    ///
    /// # Errors
    /// No answer about any of the keys. An empty, lost or different store is [`StoreError::StoreChanged`].
    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError>;

    /// Whether checks can be answered, from what is known without a round trip.
    ///
    /// # Errors
    /// As for [`RevocationStore::check`].
    fn health(&self) -> Result<(), StoreError>;

    /// Grows when what was acknowledged may be missing, where the configured durability allows that: a server has taken the
    /// place of another one, or has come back. It also shows what was over before anybody asked for [`RevocationStore::health`].
    fn epoch(&self) -> u64 {
        0
    }

    /// # Errors
    /// As for [`RevocationStore::check`].
    async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError>;

    /// A page of about `limit` entries in the store's own order. An entry that changes meanwhile may be missing or listed
    /// twice. `cursor` is what the page before ended with.
    ///
    /// # Errors
    /// See [`ListError`].
    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError>;

    /// Merges all of `revocations` and waits until they are as durable as the store was configured to confirm.
    ///
    /// # Errors
    /// See [`WriteError`]. Some of several may have been written.
    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError>;

    /// What there is under `keys`, in no order. Absent ones are left out.
    ///
    /// # Errors
    /// As for [`RevocationStore::check`].
    async fn show_all(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        let mut all = Vec::new();
        for key in keys {
            all.extend(self.show(*key).await?);
        }
        Ok(all)
    }

    /// Merges entries of another store, and waits as [`RevocationStore::revoke`] does. What is here already is not written
    /// again, and no log gets an entry for it: an entry that is not stronger, and that would live for at most `slack` longer.
    /// It does not delay revocations more than it must. How many were written.
    ///
    /// # Errors
    /// As for [`RevocationStore::revoke`]. Some may have been written.
    async fn merge(&self, entries: Vec<MergedRevocation>, slack: Duration) -> Result<u64, WriteError>;

    /// Removes `keys`.
    ///
    /// # Errors
    /// As for [`RevocationStore::revoke`].
    async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Lifted, WriteError>;

    /// The caller learned elsewhere than from [`RevocationStore::check`] that these keys are revoked. Only for
    /// [`crate::Observer::revocation_lag`]; a store that does not measure it does nothing.
    fn told_revoked(&self, _keys: &[RevocationKey]) {}
}

/// A revocation to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub key: RevocationKey,
    pub ends: Ends,
    /// An encrypted note for operators. The store keeps it beside the entry and does not read it.
    pub sealed: Vec<u8>,
    /// `None`: it lasts until it is lifted.
    pub ttl: Option<Duration>,
}

/// A revocation of another store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedRevocation {
    pub key: RevocationKey,
    pub ending: Ending,
    pub sealed: Vec<u8>,
    /// `None`: it does not expire.
    pub ttl: Option<Duration>,
}

/// What a revocation ends. The store fills in the time when it writes, so that a token that was issued while the write
/// was queued is revoked too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    ForGood,
    IssuedUntilNow,
    /// Unix seconds. For a revocation that is written later than it was requested: tokens issued in between stay valid.
    IssuedUntil(u64),
}

/// What the store keeps for a key. The stronger one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Dead if issued before these Unix seconds.
    Before(u64),
    Dead,
}

/// The answer in force after a write. It may be an earlier and stronger revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    pub ending: Ending,
    /// `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

/// An acknowledged [`RevocationStore::revoke`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// One for each revocation, in order.
    pub in_force: Vec<InForce>,
    pub durability: Durability,
}

/// An acknowledged [`RevocationStore::lift`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifted {
    /// How many entries there were.
    pub removed: u64,
    pub durability: Durability,
}

/// How durable an acknowledged write is, as far as the store confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durability {
    /// False also if the store cannot confirm it.
    pub on_disk: bool,
    pub replicas: u64,
}

/// An entry as an operator sees it. Its note is still encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRevocation {
    pub key: RevocationKey,
    /// `None`: the stored value has an unknown form. Checks of this key fail.
    pub answer: Option<Answer>,
    pub sealed: Vec<u8>,
    /// `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub revocations: Vec<StoredRevocation>,
    /// `None` at the end.
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("this is not a cursor of an earlier page")]
    InvalidCursor,
    #[error("{}", .0.name())]
    Store(StoreError),
}

impl Durability {
    /// What is true of both.
    pub fn and(self, other: Option<Durability>) -> Self {
        let Some(other) = other else { return self };
        Self { on_disk: self.on_disk && other.on_disk, replicas: self.replicas.min(other.replicas) }
    }
}

impl From<Ending> for Answer {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Dead => Answer::Dead,
            Ending::Before(before) => Answer::Before(before),
        }
    }
}

impl From<StoreError> for ListError {
    fn from(error: StoreError) -> Self {
        ListError::Store(error)
    }
}
