//! The Wasm module: the callbacks that the host calls, and nothing that decides. Deciding is `authn`'s.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![deny(unsafe_code)]

mod announcing;
mod callbacks;
mod configuration;
mod host;
mod introspecting;
mod key_fetching;
mod metrics;
mod pairs;
mod peer;
mod proxy_settings;
mod root;
mod vm;

// Gives the module its `_initialize`. The rest of the SDK's dispatcher is replaced after linking: see
// docs/decisions/0001-own-dispatcher.md.
#[allow(unsafe_code)]
mod start {
    proxy_wasm::main! {{}}
}
