//! Events that a store reports while it runs, for metrics.
use std::fmt::Debug;
use std::time::Duration;

use crate::WriteError;

/// Every method does nothing by default. None may block.
pub trait Observer: Debug + Send + Sync {
    /// A check was read, or could not be read, in this time.
    fn read(&self, _took: Duration) {}

    /// The first answer that tells of a revocation came this long after the revocation was written.
    fn revocation_lag(&self, _lag: Duration) {}

    /// A revocation is not acknowledged.
    fn revocation_failed(&self, _error: &WriteError) {}

    /// Whether checks can be answered.
    fn ready(&self, _ready: bool) {}

    /// Entries that the servers have evicted since they started.
    fn evicted(&self, _entries: u64) {}

    /// So many writes were committed to disk together, in this time.
    fn committed(&self, _writes: usize, _took: Duration) {}

    /// The size of the contents, and the most that they may take.
    fn stored_bytes(&self, _bytes: u64, _most: u64) {}

    /// The size of the store's file.
    fn file_bytes(&self, _bytes: u64) {}

    /// The store refused a request because its capacity is used up. The request may have been repeated.
    fn throttled(&self) {}

    /// Whether the mirror can be written to.
    fn mirror_ready(&self, _ready: bool) {}

    /// A write to the mirror is confirmed, or failed and will be tried again.
    fn mirror_written(&self, _confirmed: bool) {}

    /// How many names the mirror lacks.
    fn mirror_behind(&self, _names: usize) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
