//! The pure core: a request, the time and answers go in, a decision comes out. No host call, clock, socket or runtime.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod alg;
pub mod b64;
pub mod binding;
pub mod cause;
mod claims;
pub mod clear;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod engine;
pub mod fault;
pub mod headers;
mod hex;
pub mod host;
mod http_date;
mod identifiers;
pub mod introspection;
pub mod invalid;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod key_answer;
mod key_cache;
pub mod key_source;
pub mod keyrings;
pub mod keys;
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
pub mod scan;
mod tenants;
pub mod time;
mod token_kind;

#[cfg(test)]
mod vectors;
