//! The store against a real redis-server, which must be installed: each test owns one, on a port from the kernel, and stops
//! it at its end.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod conformance;
mod log;
#[allow(dead_code, reason = "shared with the tests of the service")]
mod redis;
mod store;
mod support;
