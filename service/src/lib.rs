//! Revocations and sessions over HTTP: answers the checks of filters, takes revocations from operators and providers, and
//! makes sessions. Tokens are verified by the filter.
//!
//! Two listeners. The data listener has `POST /v1/check`, `/healthz` and `/readyz`, since those are what a proxy asks,
//! and takes provider events.
//! The admin listener has the revocations behind a bearer secret, and `/healthz`, `/readyz` and `/metrics` without.
//!
//! ```no_run
//! use clap::Parser;
//! use service::{Options, ServeError, Service};
//!
//! #[derive(Parser)]
//! struct Command {
//!     #[command(flatten)]
//!     options: Options,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), ServeError> {
//!     let service = Service::bind(Command::parse().options).await?;
//!     println!("filters ask {}", service.addresses().listen);
//!     service.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
//!     Ok(())
//! }
//! ```
//!
//! The descriptions of both APIs need no running service:
//!
//! ```
//! assert!(service::data_document().contains("/v1/check"));
//! assert!(service::admin_document().contains("/v1/revocations"));
//! ```
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod app;
mod base;
mod domain;
mod http;
mod model;
mod signing;

pub use app::error::ServeError;
pub use app::options::{
    FileStore, FromRedis, InspectedRedis, NamedStore, Options, OptionsError, RELOADED_OPTIONS, Redis, SessionOptions,
    ToRedis, only_redis_to_create,
};
pub use app::reload::Reloader;
pub use app::server::{Addresses, Service};
pub use http::openapi::{admin_document, data_document};
pub use store::{StoreId, StoreIdError};
#[cfg(feature = "dynamodb")]
pub use store_dynamodb::{CreateError as CreateTableError, create_store as create_dynamodb_store};
pub use store_embedded::{Compacted, FileExport, OpenError, compact, create_store as create_file_store};
pub use store_redis::{
    Allow, CreateError, Effort, Inspection, MigrateError, Migration, MigrationSource, Mode, Progress, RedisOptions,
    RedisOptionsError, Report, SentinelReport, ServerReport, Tally, create_store, inspect, inspect_sentinels, migrate,
    prepare_store,
};
