//! The life of a request as types, each the only way to the next: entered, verified, accepted, admitted. Only an
//! [`Admission`] says what to forward, so a request that was not checked cannot be forwarded.
use crate::reject::{Cause, Rejection};

mod accept;
mod admit;
mod answering;
pub mod clear;
mod confirmed;
mod enter;
mod exposed;
mod introspected;
mod judgements;
mod refusal;
mod registered;
mod revocation_keys;
mod sighted;
mod summary;
mod verify;
mod watched;

pub use crate::binding::Peer;
pub use crate::claims::window::Window;
pub use accept::Accepted;
use accept::{Judged, Signed, judge};
pub use admit::{Admission, Asking, BeforeClaim, RevocationStatus, Unavailable};
pub use enter::{Entered, Entry, Removal};
pub use exposed::{Exposed, Fact};
pub use refusal::Refusal;
pub use summary::TokenSummary;
use verify::Questions;
pub use verify::{Signer, Unverifiable, Verified};
pub use watched::Watched;

const DEFAULT_FUTURE_IAT_TOLERANCE: u64 = 5;

fn unknown_issuer() -> Rejection {
    Rejection::new(Cause::IssUnknown)
}

#[cfg(test)]
mod tests;
