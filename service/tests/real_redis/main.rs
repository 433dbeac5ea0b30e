//! The whole service against a real redis-server, which must be installed: each test owns both, on ports from the
//! kernel, and stops them at its end.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod admin;
mod feed;
mod hijack;
mod http;
mod migration;
mod page;
mod provider;
mod provider_events;
#[allow(dead_code, reason = "shared with the tests of the store")]
#[path = "../../../store/redis/tests/real_redis/redis.rs"]
mod redis;
mod sent_events;
mod sessions;
mod store;
mod support;
mod transmitter;
