//! The pure core: a request, the time and answers go in, a decision comes out. No host call, clock, socket or runtime.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod binding;
mod claims;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod engine;
pub mod introspection;
pub mod keys;
pub mod policy;
pub mod reject;
pub mod request;
pub mod revocation;
pub mod time;

#[cfg(test)]
mod vectors;
