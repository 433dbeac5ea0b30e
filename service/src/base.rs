//! What every other layer stands on: clocks, throttles, connections, requests to others, counters, bounds,
//! signatures. It knows no session and no
//! revocation.
pub mod certificate;
pub mod connections;
pub mod current;
pub mod http_agent;
pub mod limits;
pub mod metrics;
pub mod outbox;
pub mod signature;
pub mod token_bucket;

// The store has them too: one wall clock, one form of throttled log lines.
pub use store::{clock, throttle};
