//! Tokens that may be used once. A token is claimed before the work, completed after it, and released when it failed.
//! So no work is done twice, and failed work can be retried.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::StoreError;

/// Begins the digest of a proof of possession. A client with a token can cause any number of these claims, so a store may
/// leave them less room than the claims that lead to revocations.
pub const PROOF: &str = "dpop-";
/// Begins the digest of an index of a status list. Each JWT of a session claims one, so the same holds.
pub const STATUS_INDEX: &str = "status-";

/// A token is named by a digest of at most 64 printable ASCII characters. If a failover loses a claim, a young token
/// can be used again. No revocation depends on a claim, so a store need not wait for disks or replicas.
#[async_trait]
pub trait ReplayGuard: Debug + Send + Sync {
    /// Of all concurrent callers, one gets [`Claim::Claimed`]. The claim ends by itself after `pending`.
    ///
    /// # Errors
    /// It is not known who has the claim.
    async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError>;

    /// The work is done. The token stays [`Claim::Done`] for `ttl`.
    ///
    /// # Errors
    /// The claim may expire.
    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError>;

    /// The work failed. The next caller gets the claim.
    ///
    /// # Errors
    /// The claim then ends by itself.
    async fn release(&self, digest: &str) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The caller has the claim. [`ReplayGuard::complete`] or [`ReplayGuard::release`] follows.
    Claimed,
    /// Another caller has it.
    Pending,
    Done,
}
