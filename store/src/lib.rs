//! The store seen from the service: model types, one trait for each use, errors, and a conformance suite. Nothing here
//! knows a database.
//!
//! A store implements [`RevocationStore`], [`SessionStore`], [`AuditLog`], [`ReplayGuard`] and [`IssuerRegistry`], usually
//! with one type, and passes the suite in `conformance` (feature `conformance`). `store-redis` is the first. Keys and names
//! are HMACs, and notes are encrypted, before they come here: no store learns an identity.
//!
//! An empty store does not mean that nothing is revoked. A store proves its identity ([`StoreId`]) with each answer.
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod audit;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod identity;
mod issuers;
#[cfg(feature = "memory")]
pub mod memory;
mod observer;
mod replay_guard;
mod revocations;
mod sessions;
mod stores;
pub mod throttle;

pub use audit::{AuditBounds, AuditEntry, AuditFrom, AuditId, AuditIdError, AuditLog};
pub use error::{StoreError, WriteError};
pub use identity::{StoreId, StoreIdError};
pub use issuers::{IssuerBounds, IssuerRegistry, KnownIssuer};
pub use observer::{Observer, Unobserved};
pub use replay_guard::{Claim, ReplayGuard};
pub use revocations::{
    Durability, Ending, Ends, InForce, Lifted, ListError, Page, Revocation, RevocationStore, StoredRevocation, Written,
};
pub use sessions::{IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionRecord, SessionStore, SubjectName};
pub use stores::Stores;
