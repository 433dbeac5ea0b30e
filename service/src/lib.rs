//! Revocations on Redis, over HTTP: answers the filter's checks, and takes revocations from operators. What a token
//! is and whether it is valid is the filter's business.
//!
//! Two listeners. The data listener has `POST /v1/check`, `/healthz` and `/readyz`, since those are what a proxy asks,
//! and takes what providers tell ([`Providers`]).
//! The admin listener has the revocations behind a bearer secret, and `/healthz`, `/readyz` and `/metrics` without.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![forbid(unsafe_code)]

mod admin;
mod audit;
mod check;
mod clock;
mod connections;
mod gate;
mod health;
mod issuers;
mod metrics;
mod oauth2;
mod openapi;
mod options;
mod redis_store;
mod seal;
mod server;
mod session;
mod signals;
mod signing;
mod tenants;
mod throttle;
mod tls;

pub use openapi::{admin_document, data_document};
pub use options::{AdminToken, Options, OptionsError};
pub use server::{Addresses, ServeError, Service};
pub use session::options::SessionOptions;
pub use signals::{Provider, Providers, ProvidersError};
pub use signing::{KeySource, UriError};
pub use store_redis::{
    Allow, CreateError, MigrateError, Migration, Mode, Progress, RedisOptions, RedisOptionsError, Report, StoreId,
    StoreIdError, Tally, create_store, migrate, prepare_store,
};
pub use tls::{AdminTls, ListenerTls};
