//! Keys, and tokens signed with them, for tests and the demo. The service and the filter never contain this crate.
//!
//! It signs whatever it is given: a header with a wrong algorithm, a duplicate member, text that is not JSON. The code
//! under test must refuse such tokens.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests and the demo: what it cannot sign is a mistake of its caller"
)]
mod base64url;
mod key;
mod proof;

pub use base64url::{from_base64url, to_base64url};
pub use jose::Algorithm as Alg;
pub use key::{KeyError, SigningKey, random_id};
pub use proof::{Proof, ath};
