//! The pure core: a request, the time and answers go in, a decision comes out. No host call, clock, socket or runtime.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![forbid(unsafe_code)]

pub mod binding;
pub mod checks;
mod claims;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod engine;
pub mod introspection;
pub mod introspections;
pub mod key_waits;
pub mod keys;
mod mac_hash;
pub mod policy;
pub mod reject;
pub mod request;
pub mod revocation;
pub mod shared;
pub mod time;
pub mod token_cache;

#[cfg(test)]
mod vectors;
