//! What every other layer stands on: clocks, throttles, connections, counters, bounds. It knows no session and no
//! revocation.
pub mod certificate;
pub mod clock;
pub mod connections;
pub mod limits;
pub mod metrics;
pub mod throttle;
pub mod token_bucket;
