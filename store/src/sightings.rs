//! From where sessions were used lately. What is stored is encrypted.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use wire::RevocationKey;

use crate::{StoreError, WriteError};

/// If a record is lost, the next sighting of its session begins a new one. So nothing waits for disks or replicas, and no
/// record is copied to another store.
#[async_trait]
pub trait SightingStore: Debug + Send + Sync {
    /// The record of a session, by the key of its revocation.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn sightings(&self, session: RevocationKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a record, and keeps it for `ttl`, if the stored one is still `earlier`. Of concurrent callers with the same
    /// `earlier`, one writes. Returns whether it was this one.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn replace_sightings(
        &self,
        session: RevocationKey,
        earlier: Option<&[u8]>,
        record: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, WriteError>;
}
