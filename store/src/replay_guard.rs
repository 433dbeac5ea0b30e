//! Tokens that may be used once: claimed before the work, completed when it is done, released when it failed. So nothing is
//! done twice, and what failed can be tried again.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::StoreError;

/// A token is named by a digest of at most 64 printable ASCII characters.
///
/// A claim that a failover loses lets a young token be used again. No revocation depends on it, so a store need not wait
/// for disks or replicas.
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
    /// The claim may end by itself.
    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError>;

    /// The work failed. The next caller gets the claim.
    ///
    /// # Errors
    /// The claim then ends by itself.
    async fn release(&self, digest: &str) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's: [`ReplayGuard::complete`] or [`ReplayGuard::release`] follows.
    Claimed,
    /// Another caller has it.
    Pending,
    Done,
}
