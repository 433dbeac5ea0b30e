//! The process: options, two listeners, TLS, and metrics.
pub mod metrics;
pub mod opened_store;
pub mod options;
mod parts;
mod routes;
pub mod server;
pub mod tls;
