//! Bounds that options and requests have in common.
use std::time::Duration;

/// The largest clock skew that a filter may allow an issuer.
pub const MAX_SKEW: Duration = Duration::from_secs(300);

/// `--max-unauthenticated-per-peer`, if it is not given.
pub const DEFAULT_UNAUTHENTICATED_PER_PEER: usize = 256;

/// The longest duration that an option or a request may give.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The longest reason of a revocation or of the end of a session, in bytes.
pub const MAX_REASON: usize = 512;
