//! The process: options, two listeners, TLS, and metrics.
pub mod metrics;
pub mod opened_store;
pub mod options;
mod parts;
mod routes;
mod serve_error;
pub mod server;
pub mod tls;
