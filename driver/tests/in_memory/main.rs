//! The driver in a proxy in memory, with simulated time and network: no test here needs Envoy.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod answers;
mod cases;
mod demanded;
mod dpop;
mod feed;
mod histories;
mod introspection;
mod keys;
mod random;
mod regions;
mod sightings;
mod streams;
mod support;
