//! What every other layer stands on and what knows nothing of sessions or revocations: clocks, throttles, connections.
pub mod clock;
pub mod connections;
pub mod throttle;
pub mod token_bucket;
