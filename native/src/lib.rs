//! The dynamic module: a shared object that Envoy loads, and nothing that decides. Deciding is `authn`'s.
#![deny(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

// Not all of it is used before the module decides.
#[allow(dead_code)]
pub mod abi;
mod configuration;
#[allow(dead_code, unused_imports)]
mod envoy;
mod filter;
pub mod hooks;
mod reply;
