//! Sessions as records under names that are MACs. Each has encrypted data, and beside it the values that a store must
//! compare. All times are by the store's clock. Keys, names and tokens are made by the service.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::{StoreError, WriteError};

/// Each change is atomic.
#[async_trait]
pub trait SessionStore: Debug + Send + Sync {
    /// False: there is a session with this name already, and it stays as it is.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn create(&self, name: SessionName, session: NewSession) -> Result<bool, WriteError>;

    /// # Errors
    /// The store cannot be read.
    async fn read(&self, name: SessionName) -> Result<Option<SessionRecord>, StoreError>;

    /// Replaces the refresh token if `rotation` presents the current one. Atomic. A rotation that was made but not
    /// confirmed to be durable counts as made, because its client would otherwise have no token.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn rotate(&self, name: SessionName, rotation: Rotation) -> Result<Rotated, WriteError>;

    /// Records a use of the session, which restarts its idle timeout. Does nothing if a use was recorded less than
    /// `step` ago, or if the session has ended.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn touch(&self, name: SessionName, step: Duration) -> Result<(), WriteError>;

    /// Marks the session as ended, if there is one. It is not refreshed any more, and no write undoes this.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn end(&self, name: SessionName, reason: &str) -> Result<(), WriteError>;

    /// Removes the session.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn delete(&self, name: SessionName) -> Result<(), WriteError>;

    /// Adds a session to its subject's index, or a JWT to a page of a status list. False: it already has `max` entries.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn index(&self, subject: SubjectName, entry: IndexEntry, max: usize) -> Result<bool, WriteError>;

    /// # Errors
    /// See [`WriteError`].
    async fn unindex(&self, subject: SubjectName, sids: &[String]) -> Result<(), WriteError>;

    /// The sids of a subject in no particular order. Some may have ended.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn sids(&self, subject: SubjectName) -> Result<Vec<String>, StoreError>;
}

/// A MAC over the session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(pub [u8; 16]);

/// A MAC over issuer and subject, or over a page of a status list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectName(pub [u8; 16]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    pub sealed: Vec<u8>,
    /// Records of access tokens, newest first. The store does not read them.
    pub access: Vec<u8>,
    /// The MAC of the refresh token, if the session can be refreshed.
    pub refresh: Option<[u8; 32]>,
    /// The entry is gone after this time.
    pub lifetime: Duration,
    /// Without use, it is gone after this time.
    pub idle: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub sealed: Vec<u8>,
    pub access: Vec<u8>,
    /// When it was last used, in Unix milliseconds.
    pub used: u64,
    /// Why it was ended, if it was.
    pub ended: Option<String>,
}

/// An exchange of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The MAC of the token that was presented.
    pub presented: [u8; 32],
    /// The MAC of the token that takes its place.
    pub new: [u8; 32],
    /// The record of the new access token; may be empty. It is put before the others.
    pub access: Vec<u8>,
    /// Records beyond so many bytes are dropped, the oldest first.
    pub max_access_bytes: usize,
    /// For this long after an exchange, the replaced token counts as a race, not as a theft.
    pub grace: Duration,
}

/// The outcome of a [`Rotation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    Done,
    /// There is no such session, or it has no refresh token.
    Gone,
    Ended,
    /// The presented token was replaced less than `grace` ago, by a concurrent request.
    Raced,
    /// The presented token was replaced earlier, or was never issued, so a token was stolen. The session is ended now,
    /// with the reason `reused`.
    Reused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// A session's id, or a text of the service.
    pub sid: String,
    /// The entry is gone after this.
    pub lifetime: Duration,
}
