//! The store on Redis: one server, Sentinel or Cluster.
//!
//! [`RedisStore`] implements the traits of the crate `store`, each in a module of its own. `topology` finds the servers and
//! says for how long each may be believed, `reader` reads with proof, `writer` writes and waits for disks and replicas,
//! `mirror` copies each write to a second store while a store moves, and `migrate` copies what was written before.
//! [`create_store`] makes a new store. Redis is not named in any type that leaves this crate, but for options.
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
mod issuers;
mod lag;
mod lease;
mod migrate;
mod mirror;
mod options;
mod reader;
mod redis_store;
mod replay_guard;
mod revocations;
mod routes;
mod sessions;
mod topology;
mod transfer;
mod writer;

pub use bootstrap::CreateError;
pub use config::{Config, MirrorConfig};
pub use create::{create_store, prepare_store};
pub use health::{Allow, HealthError};
pub use migrate::{MigrateError, Migration, Progress, Report, Tally, migrate};
pub use options::{Mode, RedisOptions, RedisOptionsError};
pub use redis_store::RedisStore;
