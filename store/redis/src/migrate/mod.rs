//! Copies a store to another while services write to both, verifies the copy, and only then declares the target
//! complete. It keeps no state of its own: existing entries are compared and kept, so an interrupted run is simply
//! repeated (docs/decisions/0041). It holds one page of names at a time.
mod audit;
mod only_in_target;
mod run;
mod scan;
mod target;

use std::sync::Arc;
use std::time::Duration;

use store::{Export, StoreError, StoreId, WriteError};

use crate::bootstrap::{self, CreateError};
use crate::health::Allow;
use crate::options::{RedisOptions, RedisOptionsError};
use run::{Run, Step};

/// The store to copy from.
#[derive(Debug, Clone)]
pub enum MigrationSource {
    Redis(Box<RedisOptions>),
    /// A store of another kind, which no service uses meanwhile.
    Export(Arc<dyn Export>),
}

/// A source, a target, and how to copy.
#[derive(Debug, Clone)]
pub struct Migration {
    pub from: MigrationSource,
    pub to: RedisOptions,
    /// Bounds connecting and each round trip.
    pub redis_timeout: Duration,
    /// Bounds the wait for a write to be on disk and on replicas.
    pub confirm_timeout: Duration,
    pub min_replicas: u32,
    pub require_disk: bool,
    pub allow: Allow,
    /// Required if the target is complete already: it confirms that this store is meant.
    pub to_store_id: Option<StoreId>,
    /// How long a difference may last before it counts: a service may be between its two writes.
    pub settle: Duration,
    /// Compare, and write nothing.
    pub verify_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub verifying: bool,
    pub seen: u64,
    /// An estimate: names of other applications in the same Redis are counted too.
    pub of: u64,
}

/// The counts of one kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub found: u64,
    /// Of those, how many this run copied. The target had the others.
    pub copied: u64,
    /// Missing, weaker, older or shorter-lived in the target when it was verified.
    pub differing: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub from: StoreId,
    pub to: StoreId,
    /// By kind.
    pub tallies: Vec<(&'static str, Tally)>,
    /// Names, or values, that are not ours. They were not copied.
    pub not_understood: u64,
    /// Revocations that only the target has: they were lifted while they were copied, and hold there.
    pub only_in_target: u64,
    /// Some of the names that differ, are not understood or are only in the target.
    pub names: Vec<String>,
    /// Services may answer from the target.
    pub complete: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("for `{0}`")]
    Options(&'static str, #[source] RedisOptionsError),
    #[error("`{0}` cannot be used: {1}")]
    Unusable(&'static str, String),
    #[error("`{0}`: {name}", name = .1.name())]
    Store(&'static str, StoreError),
    #[error(
        "`to` is not prepared: `portcullis migrate --prepare`, then restart the services with `--mirror-redis`, then this"
    )]
    NotPrepared,
    #[error("`to` has contents that are not a store to be filled: {0}")]
    Foreign(String),
    #[error("`to` is already the complete store {0}; if that is intended, give `--to-store-id {0}`")]
    Complete(StoreId),
    #[error("`to` is the store {0}, not the one of `--to-store-id`")]
    Another(StoreId),
    #[error("`from` and `to` are the same store, {0}")]
    Same(StoreId),
    #[error("the clocks of the servers differ by {0} s, but sessions store times: synchronise them first")]
    Clocks(u64),
    #[error("`{0}`: slots moved between its servers while it was read: run it again when they are in place")]
    Moved(&'static str),
    #[error("`to`: {0}")]
    Write(WriteError),
    #[error("`to` was verified, but could not be declared complete: {0}; run it again")]
    Finish(CreateError),
}

/// The two sides, as errors name them.
const FROM: &str = "from";
const TO: &str = "to";

impl MigrateError {
    /// Trying again may help: nothing was refused.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unusable(..) | Self::Store(..) | Self::Moved(_) | Self::Write(_) | Self::Finish(_))
    }
}

impl Report {
    pub fn is_verified(&self) -> bool {
        self.not_understood == 0 && self.tallies.iter().all(|(_, tally)| tally.differing == 0)
    }
}

/// Copies, verifies, and declares the target complete if nothing differs. Dropping the future interrupts it. Another run
/// begins again, and is quick over what is there.
///
/// # Errors
/// See [`MigrateError`]. A difference is not an error: see [`Report::is_verified`].
pub async fn migrate(plan: &Migration, say: impl Fn(Progress)) -> Result<Report, MigrateError> {
    let mut run = Run::open(plan, &say).await?;
    if !plan.verify_only {
        run.pass(Step::Copy).await?;
        run.copy_audit().await?;
    }
    run.pass(Step::Verify).await?;
    run.verify_audit().await?;
    run.find_only_in_target().await?;
    let mut report = run.report();
    report.complete = run.is_complete;
    if !plan.verify_only && !run.is_complete && report.is_verified() {
        let routes = run.transfer.there.topology.routes();
        bootstrap::finish(&routes, run.to, plan.redis_timeout).await.map_err(MigrateError::Finish)?;
        report.complete = true;
    }
    Ok(report)
}
