//! The life of a request around the core, and everything that waits: checks, introspection, key sets. No I/O: events go
//! in, effects go out through [`Host`] and [`Exchange`], and requests to resume are polled.
//!
//! A back end makes a [`Core`] and a [`Dispatcher`] for each configuration ([`configure`]) and a [`Worker`] for each
//! thread. It passes each request's headers to [`Worker::begin`] and replies to callouts to [`Dispatcher::answered`],
//! and calls [`Dispatcher::tick`] every [`TICK`]. After each of these it polls [`Dispatcher::poll_wake`] and passes
//! each stream that is named there to [`Worker::resume`] of its worker.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod checks;
mod core;
mod dispatcher;
mod document;
#[cfg(feature = "fake")]
pub mod fake;
mod host;
mod introspections;
mod key_waits;
mod mac_hash;
pub mod metrics;
mod missing_settings;
mod rejection_log;
pub mod shared;
mod token_cache;
pub mod tokens;
mod worker;

pub use crate::core::{Configured, Core, activate, configure};
pub use crate::dispatcher::{Dispatch, Dispatcher, TICK, Wake};
pub use crate::host::{
    CallId, Callout, CalloutReply, Cas, ChosenEngine, Conclusion, Edit, Exchange, Host, HostError, Level, LocalReply,
    PutError, Setup, Stage, StreamId,
};
pub use crate::metrics::Metric;
pub use crate::worker::{Action, Worker};
