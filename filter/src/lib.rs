//! The Wasm module: the host's callbacks and host calls, as a back end of `driver`. It decides nothing.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![deny(unsafe_code)]

mod backend;
mod callbacks;
mod contexts;
mod exchange;
mod host;
mod pairs;
mod plugin;
mod response;

// Gives the module its `_initialize`. The rest of the SDK's dispatcher is replaced after linking: see
// docs/decisions/0001-own-dispatcher.md.
#[allow(unsafe_code)]
mod start {
    proxy_wasm::main! {{}}
}
