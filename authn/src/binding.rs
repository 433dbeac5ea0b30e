//! Bindings: tokens that count only for one client, by address, certificate or user agent.
mod client;
mod judge;

pub use client::client_address;
pub use judge::Peer;
pub(crate) use judge::{Bound, bound, check};
