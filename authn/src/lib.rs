//! The pure core: a request, the time and answers go in, a decision comes out. No host call, clock, socket or runtime.
//!
//! A configuration is compiled into a [`policy::Policy`]. [`decide`] then takes each request through its stages:
//!
//! ```
//! use authn::decide::Entry;
//! use authn::policy::Policy;
//! use authn::reject::Cause;
//! use authn::request::Request;
//!
//! let document = br#"{
//!     "issuers": [{
//!         "issuer": "https://login.example", "audiences": ["orders"], "algorithms": ["RS256"],
//!         "jwks": { "uri": "https://login.example/keys", "cluster": "idp" }
//!     }],
//!     "rules": [{ "access": "required" }]
//! }"#;
//! let policy = Policy::from_json(document, &|_secret| None).unwrap();
//!
//! let headers: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":path", b"/orders"), (b":authority", b"api.example")];
//! let request = Request::from_pairs(&headers).unwrap();
//! let Entry::Denied { rejection, .. } = policy.enter(&request) else { panic!("it has no token") };
//! assert_eq!(rejection.cause, Cause::NoToken);
//! ```
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod binding;
pub mod browser;
mod claims;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod dpop;
pub mod engine;
pub mod introspection;
pub mod keys;
pub mod policy;
pub mod reject;
pub mod request;
pub mod revocation;
mod sightings;
pub mod time;

#[cfg(test)]
mod vectors;
