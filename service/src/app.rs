//! The process: options, two listeners, TLS, and metrics.
pub mod metrics;
pub mod options;
pub mod redis_store;
pub mod server;
pub mod tls;
