//! What ends the wait of a request.
use std::sync::Arc;

use authn::decide::{Unavailable, Verified};
use authn::reject::{Cause, Rejection};
use authn::revocation::Verdict;
use authn::time::Monotonic;

/// The event that a waiting request waits for.
#[derive(Debug, Clone)]
pub enum Wake {
    Verdict {
        /// When the oldest check behind it was sent. Its freshness counts from then.
        sent: Monotonic,
        verdict: Verdict,
    },
    CannotTell(Unavailable, Cause),
    /// The service has not seen the request's proof before.
    Claimed(Result<(), Cause>),
    Introspected(Result<Arc<Verified>, Rejection>),
    Keys {
        /// There is a newer key set than the one that the token was verified with.
        is_judged_anew: bool,
    },
}
