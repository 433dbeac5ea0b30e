//! The mirror: a second store. While a store moves, every write is copied to it before it is acknowledged
//! (docs/decisions/0040). It is never read to answer a check.
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::Cmd;
use store::throttle::Throttle;
use store::{Durability, Ending, Observer, WriteError};

use crate::contents::{Kind, Name};
use crate::identity::StoreIdentity;
use crate::transfer::Transfer;

/// The most failed names that are retried. Beyond them, `portcullis migrate` must copy.
const MAX_BACKLOG: usize = 10_000;
/// How often the backlog is retried, and how many names at once.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_ONCE: usize = 256;
const SETTLE_POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Mirror {
    transfer: Transfer,
    primary: StoreIdentity,
    identity: StoreIdentity,
    backlog: Mutex<Backlog>,
    observer: Arc<dyn Observer>,
    /// Limits the log line about failures.
    failures: Throttle,
    /// Limits the log line about names that are not retried.
    dropped: Throttle,
}

/// The writes that the mirror lacks.
#[derive(Debug, Default)]
struct Backlog {
    waiting: HashSet<Name>,
    /// How many more are being retried now.
    in_flight: usize,
}

/// The latest write to the primary store.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Each name is revoked, at least in this way.
    Revoked(&'a [Ending]),
    /// An entry with this id was appended to the audit log.
    Appended(&'a str),
    Other,
}

impl Mirror {
    pub fn new(
        transfer: Transfer,
        primary: StoreIdentity,
        identity: StoreIdentity,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let (backlog, failures, dropped) = (Mutex::default(), Throttle::default(), Throttle::default());
        let mirror = Arc::new(Self { transfer, primary, identity, backlog, observer, failures, dropped });
        tokio::spawn(retry(Arc::downgrade(&mirror)));
        mirror
    }

    /// Copies the entries of `names` from the primary store.
    ///
    /// # Errors
    /// [`WriteError::Unconfirmed`], since the primary store has the write. The copy is retried in the background.
    pub async fn copy(&self, names: &[Name], change: Change<'_>) -> Result<Option<Durability>, WriteError> {
        let copied = self.try_copy(names, change).await;
        self.observer.mirror_written(copied.is_ok());
        if let Err(error) = &copied {
            match change {
                Change::Appended(id) => self.enqueue(&[Name::of_audit_entry(id)]),
                Change::Revoked(_) | Change::Other => self.enqueue(names),
            }
            self.log_failure(error);
        }
        copied.map_err(|error| unconfirmed(&error))
    }

    /// Repeats commands that removed entries from the primary store. If an entry was written again meanwhile, it is
    /// copied.
    ///
    /// # Errors
    /// [`WriteError::Unconfirmed`]: removed from the primary store, perhaps not from the mirror.
    pub async fn remove(&self, names: &[Name], commands: Vec<Cmd>) -> Result<Option<Durability>, WriteError> {
        let removing = async {
            self.check_usable()?;
            let commands = names.iter().zip(commands).map(|(name, command)| (name.bucket, command)).collect();
            let removed = self.transfer.run(commands).await?;
            self.transfer.copy(names, &[]).await?;
            Ok(removed.map(|(_, durability)| durability))
        };
        let removed: Result<_, WriteError> = removing.await;
        self.observer.mirror_written(removed.is_ok());
        if let Err(error) = &removed {
            // The removal is not retried, because the entry may have been written again on purpose by then.
            // `portcullis migrate` reports entries that only the mirror has.
            self.enqueue(names);
            self.log_failure(error);
        }
        removed.map_err(|error| unconfirmed(&error))
    }

    /// Copies them in the background, soon.
    pub fn enqueue(&self, names: &[Name]) {
        let mut backlog = self.backlog();
        for name in names {
            // Unauthenticated clients can cause audit entries. These must not fill the backlog. The whole log is copied
            // in any case.
            let name = match name.kind {
                Kind::Audit if backlog.waiting.len() >= MAX_BACKLOG / 2 => &Name::of_audit(),
                _ => name,
            };
            if backlog.waiting.len() >= MAX_BACKLOG && !backlog.waiting.contains(name) {
                if let Some(more) = self.dropped.pass(Instant::now()) {
                    tracing::error!(more, "the mirror lacks too much: run `portcullis migrate` before the switch");
                }
                continue;
            }
            backlog.waiting.insert(name.clone());
        }
        self.observer.mirror_behind(backlog.len());
    }

    /// Waits for at most `limit` until the mirror lacks nothing. Returns how many names it still lacks.
    pub async fn settle(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let lacking = self.backlog().len();
            if lacking == 0 || Instant::now() >= deadline {
                return lacking;
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some names out of the backlog. They are removed before the attempt, so that a name that is added again
    /// meanwhile is retried.
    fn take_batch(&self) -> Vec<Name> {
        let mut backlog = self.backlog();
        let batch: Vec<Name> = backlog.waiting.iter().take(RETRY_AT_ONCE).cloned().collect();
        for name in &batch {
            backlog.waiting.remove(name);
        }
        backlog.in_flight = batch.len();
        batch
    }

    /// So many were retried. Each is copied or back in the backlog.
    fn finish(&self, names: usize) {
        let mut backlog = self.backlog();
        backlog.in_flight = backlog.in_flight.saturating_sub(names);
        self.observer.mirror_behind(backlog.len());
    }

    async fn try_copy(&self, names: &[Name], change: Change<'_>) -> Result<Option<Durability>, WriteError> {
        self.check_usable()?;
        let log = Name::of_audit();
        for name in names.iter().filter(|name| name.kind == Kind::Audit) {
            let entry = match change {
                Change::Appended(id) => Some(id),
                // From the backlog: the name of an entry is its id.
                Change::Revoked(_) | Change::Other => (*name != log).then_some(name.text.as_str()),
            };
            self.transfer.copy_audit(entry).await?;
        }
        let names: Vec<_> = names.iter().filter(|name| name.kind != Kind::Audit).cloned().collect();
        let least = match change {
            Change::Revoked(least) => least,
            Change::Appended(_) | Change::Other => &[],
        };
        self.transfer.copy(&names, least).await
    }

    /// No write waits for a mirror that is known to be unreachable.
    fn check_usable(&self) -> Result<(), WriteError> {
        self.transfer.there.health().map_err(WriteError::NotWritten)?;
        if self.primary.id().is_some() && self.primary.id() == self.identity.id() {
            return Err(WriteError::Unconfirmed("it is the same store as that of --redis".into()));
        }
        Ok(())
    }

    fn log_failure(&self, error: &WriteError) {
        if let Some(more) = self.failures.pass(Instant::now()) {
            tracing::warn!(%error, more, "the mirror lacks a write, which is tried again");
        }
    }
}

impl Backlog {
    fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.in_flight)
    }
}

/// A write to the primary store that the mirror must have too. If it is dropped before that, because a client hangs up for
/// example, the names are copied in the background.
pub struct MirrorWrite<'a> {
    mirror: &'a Mirror,
    names: &'a [Name],
    is_settled: bool,
}

impl<'a> MirrorWrite<'a> {
    pub fn new(mirror: &'a Mirror, names: &'a [Name]) -> Self {
        Self { mirror, names, is_settled: false }
    }

    /// # Errors
    /// As for [`Mirror::copy`].
    pub async fn copy(mut self, change: Change<'_>) -> Result<Option<Durability>, WriteError> {
        let copied = self.mirror.copy(self.names, change).await;
        self.is_settled = true;
        copied
    }

    /// The primary store did not acknowledge it. A single write was then not made; of several, some may have been.
    pub fn abandon(mut self, error: &WriteError) {
        self.is_settled = matches!((error, self.names), (WriteError::NotWritten(_), [_]));
    }
}

impl Drop for MirrorWrite<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.mirror.enqueue(self.names);
        }
    }
}

/// The error for the caller: the primary store has the write.
fn unconfirmed(error: &WriteError) -> WriteError {
    let why = match error {
        WriteError::NotWritten(error) | WriteError::Unknown(error) => error.name().to_owned(),
        WriteError::Unconfirmed(why) => why.clone(),
    };
    WriteError::Unconfirmed(format!("the mirror (--mirror-redis) did not confirm it: {why}"))
}

/// Works through the backlog until the mirror is dropped.
async fn retry(mirror: Weak<Mirror>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(mirror) = mirror.upgrade() else { return };
        loop {
            let batch = mirror.take_batch();
            if batch.is_empty() {
                break;
            }
            if mirror.try_copy(&batch, Change::Other).await.is_ok() {
                mirror.finish(batch.len());
                continue;
            }
            // One name that cannot be copied must not block the others.
            let mut is_stuck = false;
            for name in batch {
                let name = [name];
                if mirror.check_usable().is_err() || mirror.try_copy(&name, Change::Other).await.is_err() {
                    mirror.enqueue(&name);
                    is_stuck = true;
                }
                mirror.finish(1);
            }
            if is_stuck {
                break;
            }
        }
    }
}
