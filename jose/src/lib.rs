//! JWS, JWK and their algorithms (RFC 7515, 7517, 7518), read strictly: one spelling of base64url, one reading of JSON. No
//! cryptography of its own: an engine behind [`VerifyingKey`] checks signatures.
//!
//! ```
//! use jose::{Algorithm, BadSignature, PublicKey, Unverified, VerifyingKey, jwks};
//!
//! /// An engine for ES256, by aws-lc.
//! struct Es256(aws_lc_rs::signature::ParsedPublicKey);
//!
//! impl VerifyingKey for Es256 {
//!     const MAX_RSA_BITS: usize = 4096;
//!
//!     fn from_public(public: &PublicKey) -> Option<Self> {
//!         let PublicKey::Ec { point, .. } = public else { return None };
//!         let scheme = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
//!         aws_lc_rs::signature::ParsedPublicKey::new(scheme, point).ok().map(Self)
//!     }
//!
//!     fn from_secret(_: &[u8], _: &[Algorithm]) -> Option<Self> {
//!         None
//!     }
//!
//!     fn verify(&self, _: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
//!         self.0.verify_sig(signing_input, signature).map_err(|_| BadSignature)
//!     }
//! }
//!
//! // The key and the token of RFC 7515 appendix A.3.
//! let set = br#"{ "keys": [{ "kty": "EC", "crv": "P-256",
//!     "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }] }"#;
//! let token = b"eyJhbGciOiJFUzI1NiJ9.\
//!     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
//!     DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
//!
//! let keys = jwks::parse::<Es256>(set, &[Algorithm::ES256], false)?.keys;
//! let token = Unverified::parse(token, 8192)?;
//! let header = token.header();
//! let mut candidates = keys.candidates(header.kid.as_deref(), header.alg)?;
//! assert!(candidates.any(|key| key.verify(header.alg, token.signing_input(), token.signature()).is_ok()));
//!
//! let claims = token.parse_payload()?;
//! assert_eq!(claims.as_object().and_then(|claims| claims.get("iss")?.as_str()), Some("joe"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![forbid(unsafe_code)]

mod alg;
#[cfg(feature = "aws-lc")]
pub mod aws_lc;
pub mod base64url;
pub mod dpop;
pub mod json;
pub mod jwks;
mod jws;
mod key;
mod key_set;
mod media_type;
mod printable;

pub use alg::{Algorithm, Family, UnknownAlgorithm};
pub use jws::{Extension, Header, JwsError, MAX_KID_BYTES, Member, ObjectError, Padding, Segment, Unverified};
pub use key::engine::{BadSignature, MAX_KEYS, VerifyingKey};
pub use key::{Curve, Key, KeyError, MIN_RSA_BITS, PublicKey};
pub use key_set::{Candidates, KeySet, KeySetError, MAX_CANDIDATES, MAX_KEYS_WITHOUT_KID, NoCandidate};
pub use media_type::plain_type;
pub use printable::printable;
