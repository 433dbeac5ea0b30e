//! The whole service against a real redis-server, which must be installed: each test owns both, on ports from the
//! kernel, and stops them at its end.
mod admin;
mod http;
mod migration;
mod provider;
mod provider_events;
#[path = "../../../store/redis/tests/support/redis.rs"]
mod redis;
mod sessions;
mod store;
mod support;
