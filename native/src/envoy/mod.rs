//! Envoy's ABI as safe types. Every raw pointer that a callback takes or returns stays in here.
//!
//! The types enforce the rules of the ABI. Bytes that Envoy lends are valid until the hook ends or something is set:
//! they borrow the handle, and setters take the handle mutably. Nothing may be touched after a call that can end the
//! stream: such a call consumes the handle. A handle exists for one hook and cannot leave its thread.
#![allow(unsafe_code)]

mod config;
mod meter;
mod raw;
mod scheduler;
mod secrets;
mod stream;

pub use config::{Callout, Config};
pub use meter::{Meter, Metric, MetricRefused};
pub(crate) use raw::{bytes, chunks, headers};
pub use scheduler::{ConfigScheduler, StreamScheduler};
pub use secrets::{SecretId, has_secrets};
pub use stream::{Reply, Stream};

use crate::abi;
pub use crate::abi::{Attribute, HeaderMap, LogLevel};

/// Writes into Envoy's log under `dynamic_modules`. From any thread.
pub fn log(level: LogLevel, message: &str) {
    // SAFETY: Envoy reads the message before it returns.
    unsafe { abi::log(level, raw::buffer(message.as_bytes())) }
}

pub fn logs(level: LogLevel) -> bool {
    // SAFETY: it takes no pointer.
    unsafe { abi::log_enabled(level) }
}

/// How many workers this Envoy has.
///
/// Only on the main thread, which the handle of a configuration that is being made proves.
pub fn workers(_: &Config<'_>) -> u32 {
    // SAFETY: it takes no pointer, and this is the main thread.
    unsafe { abi::get_concurrency() }
}
