//! The life of a request around the core, and everything that waits: checks, introspection, key sets. No I/O: events go
//! in, effects go out through [`Host`] and [`Exchange`], and requests to resume are polled.
//!
//! A back end makes a [`Core`] and a [`Dispatcher`] for each configuration ([`configure()`]) and a [`Worker`] for each
//! thread. It passes each request's headers to [`Worker::begin`] and replies to callouts to [`Dispatcher::answered`],
//! and calls [`Dispatcher::tick`] every [`TICK`]. After each of these it polls [`Dispatcher::poll_wake`] and passes
//! each stream that is named there to [`Worker::resume`] of its worker.
//!
//! The feature `fake` has a back end in memory:
//!
//! ```
//! # #[cfg(feature = "fake")]
//! # {
//! use std::collections::BTreeMap;
//!
//! use authn::time::{Monotonic, Now, UnixSeconds};
//! use driver::fake::{FakeHost, FakeProxy, Request, Seen, SharedData};
//!
//! let document = br#"{
//!     "issuers": [{
//!         "issuer": "https://login.example", "audiences": ["orders"], "algorithms": ["RS256"],
//!         "jwks": { "uri": "https://login.example/keys", "cluster": "idp" }
//!     }],
//!     "rules": [{ "access": "required" }]
//! }"#;
//! let now = Now { wall: UnixSeconds(1_750_000_000), monotonic: Monotonic(1_000_000_000) };
//! let host = FakeHost::new(now, BTreeMap::new(), SharedData::default(), 1);
//! let mut proxy = FakeProxy::start(host, document, 1).unwrap();
//!
//! let stream = proxy.send(0, Request::get("/orders", &[]));
//! let Seen::Replied(reply) = proxy.seen(stream) else { panic!("it has no token") };
//! assert_eq!(reply.status, 401);
//! # }
//! ```
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

mod checks;
mod claims;
mod configure;
mod counts;
mod deadlines;
mod dispatcher;
mod document;
#[cfg(feature = "fake")]
pub mod fake;
mod feed_board;
mod following;
mod host;
mod introspections;
mod key_waits;
mod mac_hash;
pub mod metrics;
mod missing_settings;
mod refusal_line;
mod rejection_log;
mod shared;
mod shared_feed;
mod sightings;
mod state;
mod streams;
mod token_cache;
mod tokens;
mod used_proofs;
mod wake;
mod worker;

pub use crate::checks::MAX_BATCHES_IN_FLIGHT;
pub use crate::configure::{Configured, activate, compile, configure, route_rule, sds_secrets};
pub use crate::dispatcher::{Dispatch, Dispatcher, TICK};
#[cfg(feature = "fake")]
pub use crate::following::{Change, Following};
pub use crate::host::{
    CallId, Callout, CalloutReply, Cas, ChosenEngine, Conclusion, Edit, Exchange, Host, HostError, Level, LocalReply,
    PutError, Response, Setup, Stage, StreamId,
};
pub use crate::metrics::Metric;
pub use crate::state::Core;
pub use crate::wake::Wake;
pub use crate::worker::{Action, Worker};
