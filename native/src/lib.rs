//! The dynamic module: a shared object that Envoy loads, the back end of `driver` for it.
#![deny(unsafe_code)]

pub mod abi;
mod callout_log;
mod clock;
mod configuration;
mod envoy;
mod exchange;
mod filter;
mod flags;
mod generations;
pub mod hooks;
mod host;
pub mod injection;
mod live;
mod metrics;
mod outbox;
mod reply;
mod response;
mod routes;
mod sds;
mod secret;
mod shared_data;
mod ticker;
