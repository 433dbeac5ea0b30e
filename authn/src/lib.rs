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
pub mod config;
pub mod credentials;
pub mod fault;
pub mod headers;
mod hex;
pub mod host;
pub mod invalid;
pub mod origin;
pub mod path;
pub mod request;
pub mod route;
pub mod time;
