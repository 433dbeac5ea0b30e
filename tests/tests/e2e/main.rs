//! The end-to-end tests, one binary: each test starts its own stack of real processes. tests/README.md says how to run
//! one, and which tests run one at a time.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod behind_a_proxy;
mod browser;
mod cases;
mod chromium;
mod cluster;
mod compose;
mod config;
mod cost;
mod dev;
mod differential;
mod doctor;
mod dpop;
mod dynamodb;
mod embedded;
mod example;
mod exposed;
mod feed;
mod hardened;
mod harness;
mod head;
mod hijack;
mod hot_restart;
mod http;
mod introspection;
mod issuers;
mod istio;
mod keycloak;
mod keys;
mod lists;
mod native;
mod oidc;
mod opaque_sessions;
mod openapi;
mod pkcs11;
mod providers;
mod quickstart;
mod refusals;
mod regions;
mod revocation;
mod service_tls;
mod sessions;
mod store;
mod streams;
mod survival;
mod tokens;
mod under_load;
