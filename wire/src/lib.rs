//! What filter and service say to each other: the shared secret, the names of revocations, the check itself,
//! and what tokens of the service say that both must read alike.
//! No I/O, no clock, no randomness: bytes in, bytes out.
//!
//! ```
//! use wire::check::{Asked, Needs, Question};
//! use wire::{Answer, Kind, Retention, Secret};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Secret::new(b"a secret of at least 32 bytes, shared")?.derive();
//!
//! // The filter asks about a session. The nonce is random; the clock is the filter's.
//! let session = keys.revocation_key(Kind::Session, "https://idp.example", b"sid-1");
//! let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: 1_700_000_000 };
//! let question = Question::new(&keys, [7; 16], needs, &[session])?;
//!
//! // The service reads the question and answers each key in order.
//! let secrets = [keys.clone()];
//! let asked = Asked::read(&secrets, question.bytes())?;
//! assert_eq!(asked.keys(), [session]);
//! let kept = Retention { token: 86_400, login: 2_592_000 };
//! let reply = asked.answers(&secrets[asked.secret()], kept, &[Answer::Dead]);
//!
//! // Only a reply with a right MAC over this question is read.
//! let answers = question.read_reply(&keys, 200, &reply)?.map(|reply| reply.answers);
//! assert_eq!(answers, Ok(vec![Answer::Dead]));
//! assert!(question.read_reply(&keys, 200, b"forged").is_err());
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod check;
mod cidr;
mod duration;
mod key;
pub mod opaque_token;
mod secret;
mod tenant;

pub use check::Retention;
pub use cidr::Cidr;
pub use duration::parse_duration;
pub use key::{Answer, Kind, Kinds, RevocationKey, TOKEN_ID_CLAIMS, token_id_from_jti, token_id_from_signing_input};
pub use secret::{DerivedKeys, Secret, SecretId, SecretTooShort};
pub use tenant::{MAX_TENANT_BYTES, TENANT_PLACEHOLDER, is_tenant, issuer_matches};
