//! The process: its options, its two listeners, TLS, and what it counts.
pub mod metrics;
pub mod options;
pub mod redis_store;
pub mod server;
pub mod tls;
