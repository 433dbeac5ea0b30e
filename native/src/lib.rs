//! The dynamic module: a shared object that Envoy loads, the back end of `driver` for it.
#![deny(unsafe_code)]

pub mod abi;
mod clock;
mod configuration;
mod envoy;
mod exchange;
mod filter;
mod flags;
pub mod hooks;
mod host;
mod live;
mod metrics;
mod outbox;
mod reply;
mod routes;
mod secret;
mod shared_data;
mod ticker;
