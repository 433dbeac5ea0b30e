//! The whole service against a real redis-server, which must be installed: each test owns both, on ports from the
//! kernel, and stops them at its end.
mod admin;
mod http;
mod migration;
mod provider;
#[path = "../../../store/redis/tests/real_redis/redis.rs"]
mod redis;
mod sessions;
mod signals;
mod store;
mod support;
