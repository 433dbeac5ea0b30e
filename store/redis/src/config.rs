//! The configuration of a [`crate::RedisStore`].
use std::time::Duration;

use store::StoreId;

use crate::{Allow, RedisOptions};

#[derive(Debug, Clone)]
pub struct Config {
    pub redis: RedisOptions,
    /// The only store to accept. Default: the first one found.
    pub store_id: Option<StoreId>,
    /// Create the store if there is none. Without it an empty Redis is a lost store, not a new one.
    pub create: bool,
    pub allow: Allow,
    /// Bounds each connection attempt and each round trip.
    pub redis_timeout: Duration,
    /// Bounds the wait for a write to be on disk and on replicas, on top of `redis_timeout`.
    pub confirm_timeout: Duration,
    /// How many replicas must have a write before it is acknowledged.
    pub min_replicas: u32,
    /// Acknowledge only writes that Redis confirms to be on its disk.
    pub require_disk: bool,
    /// How far an issuer's clock may run ahead, in whole seconds.
    pub future_iat_tolerance_seconds: u64,
    /// The mirror: every write also goes to this store before it is acknowledged.
    pub mirror: Option<MirrorConfig>,
}

#[derive(Debug, Clone)]
pub struct MirrorConfig {
    pub redis: RedisOptions,
    /// The only mirror store to accept. Default: the first one found.
    pub store_id: Option<StoreId>,
    pub min_replicas: u32,
}
