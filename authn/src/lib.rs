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

pub mod alg;
pub mod b64;
pub mod config;
pub mod engine;
pub mod fault;
pub mod json;
pub mod jws;
pub mod keys;
pub mod time;

#[cfg(test)]
mod vectors;
