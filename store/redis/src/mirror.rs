//! The other store of `--redis-also`: what was written to ours is brought there before it is acknowledged. Nothing is ever
//! read from it for an answer.
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::Cmd;

use super::Pin;
use super::contents::{Kind, Name};
use super::transfer::Transfer;
use store::throttle::Throttle;
use store::{Durability, Ending, Observer, WriteError};

/// Names that could not be brought and are tried again. More than these wait for `portcullis migrate`.
const MAX_BEHIND: usize = 10_000;
/// How often they are, and how many at once.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_ONCE: usize = 256;
const SETTLE_POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Also {
    transfer: Transfer,
    ours: Pin,
    pin: Pin,
    behind: Mutex<Behind>,
    observer: Arc<dyn Observer>,
    /// Failures, as they are logged.
    failed: Throttle,
    /// Names that nobody will try again.
    lost: Throttle,
}

/// What the other store lacks for now.
#[derive(Debug, Default)]
struct Behind {
    waiting: HashSet<Name>,
    /// How many more are being tried: not there yet either.
    in_hand: usize,
}

/// What was done in our store a moment ago.
#[derive(Debug, Clone, Copy)]
pub enum Just<'a> {
    /// Each name is revoked at least so.
    Revoked(&'a [Ending]),
    /// An entry with this id, to the audit stream.
    Added(&'a str),
    Changed,
}

impl Also {
    pub fn new(transfer: Transfer, ours: Pin, pin: Pin, observer: Arc<dyn Observer>) -> Arc<Self> {
        let (failed, lost) = (Throttle::default(), Throttle::default());
        let also = Arc::new(Self { transfer, ours, pin, behind: Mutex::default(), observer, failed, lost });
        tokio::spawn(try_again(Arc::downgrade(&also)));
        also
    }

    /// Brings what lies under `names` in our store.
    ///
    /// # Errors
    /// [`WriteError::Unconfirmed`], since it is in our store. It is tried again in the background.
    pub async fn bring(&self, names: &[Name], just: Just<'_>) -> Result<Option<Durability>, WriteError> {
        let brought = self.try_bring(names, just).await;
        self.observer.mirror_written(brought.is_ok());
        if let Err(error) = &brought {
            match just {
                Just::Added(id) => self.later(&[Name::of_audit_entry(id)]),
                Just::Revoked(_) | Just::Changed => self.later(names),
            }
            self.tell(error);
        }
        brought.map_err(|error| unconfirmed(&error))
    }

    /// Does there what was just done here: it took something away. What is here all the same, by somebody who put it back
    /// meanwhile, is brought again.
    ///
    /// # Errors
    /// [`WriteError::Unconfirmed`]: it is done here, and perhaps not there.
    pub async fn remove(&self, names: &[Name], commands: Vec<Cmd>) -> Result<Option<Durability>, WriteError> {
        let removing = async {
            self.fit()?;
            let commands = names.iter().zip(commands).map(|(name, command)| (name.bucket, command)).collect();
            let removed = self.transfer.run(commands).await?;
            self.transfer.bring(names, &[]).await?;
            Ok(removed.map(|(_, confirmed)| confirmed))
        };
        let removed: Result<_, WriteError> = removing.await;
        self.observer.mirror_written(removed.is_ok());
        if let Err(error) = &removed {
            // Never taken away later: by then it may have been put back on purpose. `migrate` tells of what is there only.
            self.later(names);
            self.tell(error);
        }
        removed.map_err(|error| unconfirmed(&error))
    }

    /// Brings them in the background, soon.
    pub fn later(&self, names: &[Name]) {
        let mut behind = self.behind();
        for name in names {
            // Strangers can cause entries, and are to leave room for the rest. The stream is brought in any case.
            let name = match name.kind {
                Kind::Audit if behind.waiting.len() >= MAX_BEHIND / 2 => &Name::of_audit(),
                _ => name,
            };
            if behind.waiting.len() >= MAX_BEHIND && !behind.waiting.contains(name) {
                if let Some(more) = self.lost.pass(Instant::now()) {
                    tracing::error!(
                        more,
                        "too much waits for the other store: run `portcullis migrate` before the switch"
                    );
                }
                continue;
            }
            behind.waiting.insert(name.clone());
        }
        self.count(&behind);
    }

    /// Waits until nothing is lacking, for `limit` at the most. How many names are.
    pub async fn settle(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let lacking = self.behind().len();
            if lacking == 0 || Instant::now() >= deadline {
                return lacking;
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, behind: &Behind) {
        self.observer.mirror_behind(behind.len());
    }

    /// Some of those that wait. Out first: who adds one of them meanwhile has something newer.
    fn take_in_hand(&self) -> Vec<Name> {
        let mut behind = self.behind();
        let some: Vec<Name> = behind.waiting.iter().take(RETRY_AT_ONCE).cloned().collect();
        for name in &some {
            behind.waiting.remove(name);
        }
        behind.in_hand = some.len();
        some
    }

    /// So many were tried, and are there or wait again.
    fn tried(&self, names: usize) {
        let mut behind = self.behind();
        behind.in_hand = behind.in_hand.saturating_sub(names);
        self.count(&behind);
    }

    async fn try_bring(&self, names: &[Name], just: Just<'_>) -> Result<Option<Durability>, WriteError> {
        self.fit()?;
        let stream = Name::of_audit();
        for name in names.iter().filter(|name| name.kind == Kind::Audit) {
            let own = match just {
                Just::Added(id) => Some(id),
                // Of those that wait.
                Just::Revoked(_) | Just::Changed => (*name != stream).then_some(name.text.as_str()),
            };
            self.transfer.bring_audit(own).await?;
        }
        let names: Vec<_> = names.iter().filter(|name| name.kind != Kind::Audit).cloned().collect();
        let least = match just {
            Just::Revoked(least) => least,
            Just::Added(_) | Just::Changed => &[],
        };
        self.transfer.bring(&names, least).await
    }

    /// What is known to be out of reach is not waited for.
    fn fit(&self) -> Result<(), WriteError> {
        self.transfer.there.standing().map_err(WriteError::NotWritten)?;
        if self.ours.id().is_some() && self.ours.id() == self.pin.id() {
            return Err(WriteError::Unconfirmed("it is the very store of --redis".into()));
        }
        Ok(())
    }

    fn tell(&self, error: &WriteError) {
        if let Some(more) = self.failed.pass(Instant::now()) {
            tracing::warn!(%error, more, "the other store (redis-also) lacks a write; it is tried again");
        }
    }
}

impl Behind {
    fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.in_hand)
    }
}

/// What is about to be written to our store. Dropped before it is in the other one too, by who hangs up for example, it is
/// brought there later.
pub struct Owed<'a> {
    also: &'a Also,
    names: &'a [Name],
    is_settled: bool,
}

impl<'a> Owed<'a> {
    pub fn new(also: &'a Also, names: &'a [Name]) -> Self {
        Self { also, names, is_settled: false }
    }

    /// # Errors
    /// As for [`Also::bring`].
    pub async fn pay(mut self, just: Just<'_>) -> Result<Option<Durability>, WriteError> {
        let brought = self.also.bring(self.names, just).await;
        self.is_settled = true;
        brought
    }

    /// It was not written to ours: of one name nothing then, of several some may have been.
    pub fn refuse(mut self, error: &WriteError) {
        self.is_settled = matches!((error, self.names), (WriteError::NotWritten(_), [_]));
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.also.later(self.names);
        }
    }
}

/// As the asker is told: ours has it.
fn unconfirmed(error: &WriteError) -> WriteError {
    let why = match error {
        WriteError::NotWritten(trouble) | WriteError::Unknown(trouble) => trouble.name().to_owned(),
        WriteError::Unconfirmed(why) => why.clone(),
    };
    WriteError::Unconfirmed(format!("the other store, that of --redis-also, did not confirm it: {why}"))
}

async fn try_again(also: Weak<Also>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(also) = also.upgrade() else { return };
        loop {
            let some = also.take_in_hand();
            if some.is_empty() {
                break;
            }
            if also.try_bring(&some, Just::Changed).await.is_ok() {
                also.tried(some.len());
                continue;
            }
            // One that cannot be brought does not keep the others.
            let mut is_stuck = false;
            for name in some {
                let name = [name];
                if also.fit().is_err() || also.try_bring(&name, Just::Changed).await.is_err() {
                    also.later(&name);
                    is_stuck = true;
                }
                also.tried(1);
            }
            if is_stuck {
                break;
            }
        }
    }
}
