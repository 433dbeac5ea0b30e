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
pub mod cause;
pub mod checks;
mod claims;
pub mod clear;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod discovery;
pub mod engine;
pub mod fault;
pub mod headers;
mod hex;
pub mod host;
mod http_date;
mod identifiers;
pub mod introspection;
pub mod introspections;
pub mod invalid;
pub mod key_answer;
mod key_cache;
pub mod key_source;
pub mod key_waits;
pub mod keyrings;
mod mac_hash;
pub mod origin;
pub mod overrides;
pub mod path;
pub mod policy;
mod provider;
pub mod proxy_settings;
mod refusal;
pub mod request;
mod retention;
pub mod revocation;
pub mod route;
mod scan;
pub mod shared;
mod tenants;
pub mod time;
pub mod token_cache;
mod token_kind;

#[cfg(test)]
mod vectors;
