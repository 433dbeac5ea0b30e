//! The store in a DynamoDB table, for any number of instances, and for several regions with a global table.
//!
//! `DynamoStore` implements the traits of the crate `store`, each in its own module. `table` speaks to DynamoDB and proves
//! with each answer that the table is our store. `writer` writes revocations: the entry first, then the log, and only then is
//! it acknowledged. `log` is the log that followers read. `item` is the form of the contents.
#![cfg(feature = "sdk")]
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod append;
mod attempts;
mod audit;
mod config;
mod create;
mod dynamo_store;
mod entry;
mod error;
mod import;
mod issuers;
mod item;
mod lag;
mod log;
mod record;
mod replay_guard;
mod revocation_log;
mod revocations;
mod sessions;
mod sightings;
mod table;
mod writer;

pub use config::{Config, Mode, TableName, TableNameError};
pub use create::{CreateError, create_store};
pub use dynamo_store::DynamoStore;
pub use writer::WRITE_LIMIT;
