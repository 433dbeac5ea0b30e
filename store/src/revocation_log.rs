//! The log of revocations, for a reader that keeps a copy of all of them and follows what changes.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use wire::RevocationKey;

use crate::StoreError;

/// What a [`crate::RevocationStore`] offers to a reader that follows it.
///
/// The store has shards. Each has a log: every revocation and every lift appends an entry, in the same step that changes the
/// revocation. A log is bounded and loses its oldest entries, so a reader may have to read a shard anew.
#[async_trait]
pub trait RevocationLog: Debug + Send + Sync {
    /// How many shards there are. It never changes.
    fn shards(&self) -> usize;

    /// The shard of a key, below [`RevocationLog::shards`]. Of two keys, the smaller one is in the same shard or an earlier one.
    fn shard_of(&self, key: &RevocationKey) -> usize;

    /// What changed in each shard since the reader's place in it. `None`, or a place that is not given: the reader knows
    /// nothing of the shard.
    ///
    /// The news comes with the same proof as the answers of [`crate::RevocationStore::check`]. A reader that applies all of
    /// it has every revocation that was acknowledged before this call, in every shard without [`ShardNews::Gap`].
    ///
    /// # Errors
    /// No news of any shard. An empty, lost or different store is [`StoreError::StoreChanged`].
    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError>;
}

/// A place in the log of a shard: after an entry. Two equal places have the same entries before them, also when servers
/// were replaced in between, since `chain` depends on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub sequence: u64,
    pub chain: [u8; 8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// After this entry.
    pub place: Place,
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The log begins. Nothing was revoked.
    Begun,
    Revoked {
        key: RevocationKey,
        /// Counted from when the entry was written, so it may have passed. `None`: it does not expire.
        expires_in: Option<Duration>,
    },
    Lifted {
        key: RevocationKey,
    },
}

/// The news of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardNews {
    Nothing,
    /// In order. At least one.
    Entries(Vec<LogEntry>),
    /// The entries after the reader's place are not in the log, or the place is not. The reader must ask for the shard
    /// again without a place.
    Gap,
    /// The shard, read anew. Only for a reader that gave no place.
    Whole {
        /// Every revocation in force, and when it expires. They include at least everything before `place`.
        revocations: Vec<(RevocationKey, Option<Duration>)>,
        place: Place,
        /// The last entries of the log up to `place`, in order, as far as they are kept.
        recent: Vec<LogEntry>,
    },
}

impl LogEntry {
    pub fn key(&self) -> Option<RevocationKey> {
        match self.change {
            Change::Begun => None,
            Change::Revoked { key, .. } | Change::Lifted { key } => Some(key),
        }
    }
}
