//! The process: options, two listeners, TLS, metrics, and a new configuration while it runs.
pub mod error;
pub mod metrics;
pub mod opened_store;
pub mod options;
mod parts;
pub mod reload;
mod routes;
pub mod server;
pub mod tls;
