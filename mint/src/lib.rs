//! Keys, and tokens signed with them, for tests and the demo. The service and the filter never have this crate.
//!
//! It signs what it is given: a header that lies about its algorithm, a member twice, text that is no JSON. Refusing
//! such tokens is the business of what is tested with them.
//!
//! ```
//! use mint::{Alg, SigningKey};
//! use serde_json::json;
//!
//! let key = SigningKey::generate(Alg::ES256, "k1");
//! let jwk = key.public_jwk().unwrap();
//! assert_eq!(jwk["kid"], "k1");
//! let token = key.mint(&json!({ "iss": "https://idp.example", "sub": "alice", "exp": 1_700_000_300 }));
//! assert_eq!(token.split('.').count(), 3);
//!
//! // A header that lies about its algorithm, signed all the same.
//! let lie = key.sign(r#"{"alg":"none"}"#, r#"{"sub":"alice"}"#);
//! assert!(lie.starts_with("eyJhbGciOiJub25lIn0."));
//! ```
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests and the demo: what it cannot sign is a mistake of its caller"
)]
mod alg;
mod base64url;
mod key;

pub use alg::Alg;
pub use base64url::{from_base64url, to_base64url};
pub use key::{KeyError, SigningKey, random_id};
