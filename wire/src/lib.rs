//! The formats shared by filter and service: the shared secret, the names of revocations, the check, the feed, sightings, and the
//! service's tokens as far as both read them. Also what the services of two regions say to each other. No I/O, no clock, no randomness: bytes in, bytes out.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod check;
mod cidr;
mod duration;
pub mod feed;
pub mod join;
mod key;
mod message;
pub mod opaque_token;
mod secret;
pub mod sightings;
mod tenant;

pub use check::Retention;
pub use cidr::Cidr;
pub use duration::parse_duration;
pub use key::{Answer, Kind, Kinds, RevocationKey, TOKEN_ID_CLAIMS, token_id_from_jti, token_id_from_signing_input};
pub use secret::{DerivedKeys, Secret, SecretId, SecretTooShort};
pub use tenant::{MAX_TENANT_BYTES, TENANT_PLACEHOLDER, is_tenant, issuer_matches};
