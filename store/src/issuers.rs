//! The issuers that filters ask about, shared between the instances of the service.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use wire::Kinds;

use crate::{StoreError, WriteError};

/// Filters announce their issuers again and again, so a lost entry comes back.
#[async_trait]
pub trait IssuerRegistry: Debug + Send + Sync {
    /// Adds issuers or renews them, and removes what is over `bounds`. Nothing waits for disks or replicas.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn remember(&self, issuers: &[KnownIssuer], bounds: IssuerBounds) -> Result<(), WriteError>;

    /// The issuers that were announced within `max_age`. One issuer may be listed more than once, with other kinds.
    ///
    /// # Errors
    /// The registry cannot be read.
    async fn known(&self, max_age: Duration) -> Result<Vec<KnownIssuer>, StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIssuer {
    pub issuer: String,
    /// The kinds of revocations that filters ask about.
    pub kinds: Kinds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerBounds {
    pub max_age: Duration,
    /// Beyond them, the one that was announced longest ago is removed first.
    pub max_entries: usize,
}
