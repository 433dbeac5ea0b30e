//! The store on Redis: one server, Sentinel or Cluster.
//!
//! [`RedisStore`] implements the traits of the crate `store`, each in its own module. `topology` finds the servers and
//! decides how long each is trusted. `reader` reads with proof. `writer` writes and waits for disks and replicas. While
//! a store moves, `mirror` copies each write to a second store, and `migrate` copies the older entries.
//! [`create_store`] makes a new store. [`inspect()`] reads what an operator wants to know of the servers.
//!
//! No public type of this crate names Redis, except options.
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod audit;
mod bootstrap;
mod config;
mod connection;
mod contents;
mod create;
mod entry;
mod health;
mod identity;
mod inspect;
mod issuers;
mod lag;
mod lease;
mod log;
mod migrate;
mod mirror;
mod options;
mod reader;
mod redis_store;
mod replay_guard;
mod revocation_log;
mod revocations;
mod routes;
mod sessions;
mod sightings;
mod source;
mod states;
mod topology;
mod transfer;
mod writer;

pub use bootstrap::CreateError;
pub use config::{Config, MirrorConfig};
pub use create::{create_store, prepare_store};
pub use health::{Allow, HealthError};
pub use inspect::{Effort, Inspection, Names, SentinelReport, ServerReport, inspect, inspect_sentinels};
pub use migrate::{MigrateError, Migration, MigrationSource, Progress, Report, Tally, migrate};
pub use options::{Mode, RedisOptions, RedisOptionsError};
pub use redis_store::RedisStore;
