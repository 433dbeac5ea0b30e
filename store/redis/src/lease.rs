//! For how long a primary that was confirmed may be believed (docs/decisions/0021).
use std::time::Duration;

/// How long a primary's answers count after a majority was asked and confirmed it. It must be shorter than the silence after
/// which a primary is replaced: then no answer within it can be older than a write to the next primary.
pub const LEASE: Duration = Duration::from_millis(1500);
/// The shortest such silence that we work with (`cluster-node-timeout`, `down-after-milliseconds`).
pub const LEAST_FAILOVER_TIMEOUT: Duration = Duration::from_secs(2);
