//! The suite that every store must pass. A store's test target calls [`crate::conformance_tests!`] with an expression that
//! makes a [`Fixture`]; each case becomes a test of its own with a fixture of its own.
//!
//! Times are real and short, since a store's clock may be another machine's.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the cases are tests, and fail by a panic"
)]

pub mod audit;
pub mod identity;
pub mod issuers;
pub mod replay_guard;
pub mod revocation_log;
pub mod revocations;
pub mod sessions;
pub mod sightings;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::Stores;

/// A store under test, which is empty and complete at first. Dropped, it leaves nothing behind.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Another instance of the service opens the store. It must not create one.
    async fn open(&self) -> Stores;

    /// All data is lost, the identity included.
    async fn lose(&self);

    /// How far an issuer's clock may run ahead, as configured here. Whole seconds.
    fn future_iat_tolerance(&self) -> Duration;
}

/// A time after which an entry is gone that was to live for [`SHORT`].
const SHORT: Duration = Duration::from_millis(400);
const AFTER_SHORT: Duration = Duration::from_millis(900);
const LONG: Duration = Duration::from_secs(600);

async fn after_short() {
    sleep(AFTER_SHORT).await;
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_run() {
        let sources = [
            include_str!("audit.rs"),
            include_str!("identity.rs"),
            include_str!("issuers.rs"),
            include_str!("replay_guard.rs"),
            include_str!("revocation_log.rs"),
            include_str!("revocations.rs"),
            include_str!("sessions.rs"),
            include_str!("sightings.rs"),
        ];
        let list = include_str!("../lib.rs");
        let cases =
            sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("pub async fn "));
        for case in cases.filter_map(|line| line.split_once('(')).map(|(case, _)| case) {
            assert!(list.contains(&format!(" {case},\n")), "{case}");
        }
    }
}
