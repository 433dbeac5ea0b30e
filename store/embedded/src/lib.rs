//! The store in one file on a local disk, for one instance of the service. The engine is redb.
//!
//! [`EmbeddedStore`] implements the traits of the crate `store`, each in its own module. `file` creates and opens the file.
//! `engine` reads from it. `writer` is the one thread that writes: it commits concurrent writes together. `tables` is the form
//! of the contents.
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod audit;
mod codec;
mod config;
mod embedded_store;
mod engine;
mod export;
mod file;
mod issuers;
mod lag;
mod log;
mod replay_guard;
mod revocation;
mod revocation_log;
mod revocations;
mod session;
mod sessions;
mod sightings;
mod tables;
mod writer;

pub use config::{Config, DEFAULT_MAX_BYTES, MIN_MAX_BYTES};
pub use embedded_store::EmbeddedStore;
pub use export::FileExport;
pub use file::{Compacted, OpenError, compact, create_store, look};
pub use writer::WRITE_LIMIT;
