//! The one task of an instance that writes revocations. Writes that arrive while it works are written together, next.
//!
//! For each key: read what is there, merge, write it if it has not changed meanwhile, append it to the log of its shard, note
//! in the entry that the log has it. Only then is it acknowledged. A writer that stops in between leaves an entry without the note,
//! which the next writer of the key appends again.
//!
//! A lift first marks the entry as lifted. It is appended only if the key is still not in force after the log's head was
//! read. A revocation that comes later is appended later: so the last entry of a key in the log is never a lift while the key
//! is revoked.
//!
//! A write that failed its condition may have been applied by an earlier attempt, whose reply was lost: then the item that is read
//! again has the version of that write, and its plan is carried on with.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use store::clock::unix_millis;
use store::{Ending, Ends, InForce, MergedRevocation, Revocation, StoreError, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use wire::RevocationKey;

use crate::append::{append, pause};
use crate::entry::{self, Entry, Stored, Together, expiry};
use crate::error::{not_written, unknown};
use crate::item;
use crate::log::{Logged, MAX_BATCH};
use crate::table::{CONCURRENT, If, Table};

/// The longest that a write may take, with its time in the queue.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Writes that wait. Further ones are refused.
const MAX_QUEUE: usize = 1024;
/// Changes that are written together.
const MAX_TOGETHER: usize = 1024;
#[derive(Debug, Clone)]
pub enum Change {
    Revoke(Revocation),
    /// With the slack of [`store::RevocationStore::merge`].
    Merge(MergedRevocation, Duration),
    Lift(RevocationKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// And whether nothing was in force before.
    InForce(InForce, bool),
    /// Whether there was something to merge or to lift.
    Changed(bool),
}

#[derive(Debug)]
pub struct Writer(mpsc::Sender<Job>);

#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    until: Instant,
    reply: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
}

impl Change {
    fn key(&self) -> RevocationKey {
        match self {
            Change::Revoke(revocation) => revocation.key,
            Change::Merge(entry, _) => entry.key,
            Change::Lift(key) => *key,
        }
    }
}

impl Writer {
    pub fn start(table: Arc<Table>, tolerance_seconds: u64) -> Self {
        let (queue, mut jobs) = mpsc::channel::<Job>(MAX_QUEUE);
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                let mut group = vec![job];
                let mut count = group.iter().map(|job| job.changes.len()).sum::<usize>();
                while count < MAX_TOGETHER
                    && let Ok(job) = jobs.try_recv()
                {
                    count += job.changes.len();
                    group.push(job);
                }
                write_group(&table, tolerance_seconds, group).await;
            }
        });
        Self(queue)
    }

    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, changes: Vec<Change>) -> Result<Vec<Outcome>, WriteError> {
        let (reply, done) = oneshot::channel();
        let job = Job { changes, until: Instant::now() + WRITE_LIMIT, reply };
        self.0.try_send(job).map_err(|_| not_written(StoreError::StoreSlow))?;
        match timeout(WRITE_LIMIT, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(unknown(StoreError::StoreFailed)),
            Err(_) => Err(unknown(StoreError::StoreSlow)),
        }
    }
}

async fn write_group(table: &Table, tolerance_seconds: u64, mut group: Vec<Job>) {
    let now = Instant::now();
    // Whoever waited for them is gone.
    group.retain(|job| job.until > now && !job.reply.is_closed());
    let Some(until) = group.iter().map(|job| job.until).min() else { return };
    let changes: Vec<_> = group.iter().flat_map(|job| job.changes.iter().cloned()).collect();
    let work = Work { table, tolerance_seconds };
    let written = timeout_at(until, work.write(&changes)).await.unwrap_or(Err(unknown(StoreError::StoreSlow)));
    let mut outcomes = written.map(Vec::into_iter);
    for job in group {
        let outcome = match &mut outcomes {
            Ok(outcomes) => Ok(outcomes.take(job.changes.len()).collect()),
            Err(error) => Err(error.clone()),
        };
        // Its caller may be gone.
        let _ = job.reply.send(outcome);
    }
}

struct Work<'t> {
    table: &'t Table,
    tolerance_seconds: u64,
}

/// What becomes of one key.
struct Plan {
    key: RevocationKey,
    /// Each change's index, and what it leads to.
    outcomes: Vec<(usize, Outcome)>,
    /// What was read, and what takes its place.
    old: Option<Stored>,
    new: Option<Stored>,
    log: Option<Logged>,
}

impl Work<'_> {
    async fn write(&self, changes: &[Change]) -> Result<Vec<Outcome>, WriteError> {
        let mut outcomes = vec![Outcome::Changed(false); changes.len()];
        let mut pending: BTreeMap<RevocationKey, Vec<usize>> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            pending.entry(change.key()).or_default().push(index);
        }
        let mut is_first = true;
        // Those whose write found another item than it expected.
        let mut tried: BTreeMap<RevocationKey, Plan> = BTreeMap::new();
        while !pending.is_empty() {
            if !is_first {
                pause().await;
            }
            let fail = if is_first { not_written } else { unknown };
            is_first = false;
            let found = self.table.together(pending.keys()).await.map_err(fail)?;
            let now = unix_millis();
            let nothing = Together::default();
            let plans = pending.iter().map(|(key, indexes)| {
                let found = found.get(key).unwrap_or(&nothing);
                let applied = tried.remove(key).filter(|plan| self.is_applied(plan, found));
                let is_applied = applied.is_some();
                (applied.unwrap_or_else(|| self.plan(*key, found, indexes, changes, now)), is_applied)
            });
            let puts: Vec<_> = plans.map(|(plan, is_applied)| self.put(plan, is_applied)).collect();
            let written = stream::iter(puts).buffer_unordered(CONCURRENT);
            let written: Vec<(Plan, bool)> = written.try_collect().await.map_err(unknown)?;
            let (written, others): (Vec<_>, Vec<_>) = written.into_iter().partition(|(_, made)| *made);
            let written: Vec<Plan> = written.into_iter().map(|(plan, _)| plan).collect();
            tried.extend(others.into_iter().map(|(plan, _)| (plan.key, plan)));
            self.log(&written).await.map_err(unknown)?;
            let finishes: Vec<_> = written.iter().map(|plan| self.finish(plan)).collect();
            stream::iter(finishes).buffer_unordered(CONCURRENT).collect::<()>().await;
            for plan in written {
                pending.remove(&plan.key);
                for (index, outcome) in plan.outcomes {
                    if let Some(slot) = outcomes.get_mut(index) {
                        *slot = outcome;
                    }
                }
            }
        }
        Ok(outcomes)
    }

    fn plan(&self, key: RevocationKey, found: &Together, indexes: &[usize], changes: &[Change], now: u64) -> Plan {
        let home = self.table.mode.home();
        let old = found.0.get(home).cloned();
        let mut all = found.clone();
        let (mut is_changed, mut is_lifted) = (false, false);
        let mut plan = Plan { key, outcomes: Vec::new(), old: old.clone(), new: None, log: None };
        for (index, change) in indexes.iter().filter_map(|index| Some((*index, changes.get(*index)?))) {
            let in_force = all.in_force(now);
            let outcome = match change {
                Change::Revoke(revocation) => {
                    let Revocation { ends, sealed, ttl, .. } = revocation.clone();
                    let entry = Entry { ending: self.ending(ends, now), sealed, expires: expiry(now, ttl) };
                    add(&mut all, home, entry, now);
                    (is_changed, is_lifted) = (true, false);
                    let after = all
                        .in_force(now)
                        .map_or(InForce { ending: Ending::Dead, expires_in: None }, |entry| entry.in_force(now));
                    Outcome::InForce(after, in_force.is_none())
                }
                Change::Merge(merged, slack) => {
                    let slack = u64::try_from(slack.as_millis()).unwrap_or(u64::MAX);
                    let MergedRevocation { ending, sealed, ttl, .. } = merged.clone();
                    let new = Entry { ending, sealed, expires: expiry(now, ttl) };
                    let is_here = in_force.is_some_and(|old| {
                        let lives = old.expires.zip(new.expires).map(|(old, new)| old.saturating_add(slack) >= new);
                        old.ending >= new.ending && lives.unwrap_or(old.expires.is_none())
                    });
                    if !is_here {
                        merge(&mut all, home, new, now);
                        (is_changed, is_lifted) = (true, false);
                    }
                    Outcome::Changed(!is_here)
                }
                Change::Lift(_) => {
                    if in_force.is_some() || old.as_ref().is_some_and(|old| old.entry.is_none() && !old.is_logged) {
                        lift(&mut all, home, now);
                        (is_changed, is_lifted) = (true, true);
                    }
                    Outcome::Changed(in_force.is_some())
                }
            };
            plan.outcomes.push((index, outcome));
        }
        let ours = all.0.get(home);
        let number = ours.map_or(0, |ours| ours.number);
        if is_changed {
            plan.new = ours.cloned();
            plan.log = match (is_lifted, ours.and_then(|ours| ours.entry.as_ref())) {
                (false, Some(entry)) => Some(Logged::Revoked(key, entry.expires, number)),
                _ => Some(Logged::Lifted(key)),
            };
        } else if let Some(entry) = ours.filter(|ours| !ours.is_logged).and_then(|ours| ours.entry.as_ref()) {
            // An instance stopped after it wrote this entry.
            plan.log = Some(Logged::Revoked(key, entry.expires, number));
        }
        plan
    }

    fn ending(&self, ends: Ends, now: u64) -> Ending {
        let seconds = now / 1000;
        // One more than now, since iat loses its fraction. A token that an issuer with a fast clock signs now is revoked too.
        let before = |then: u64| Ending::Before(then.saturating_add(1).saturating_add(self.tolerance_seconds));
        match ends {
            Ends::ForGood => Ending::Dead,
            Ends::IssuedUntilNow => before(seconds),
            Ends::IssuedUntil(then) => before(then.min(seconds)),
        }
    }

    /// Is our item in the state that `plan` has written?
    fn is_applied(&self, plan: &Plan, found: &Together) -> bool {
        let ours = found.0.get(self.table.mode.home());
        plan.new.as_ref().zip(ours).is_some_and(|(new, ours)| new.version == ours.version)
    }

    /// Whether it is written. `is_applied`: it is already.
    async fn put(&self, plan: Plan, is_applied: bool) -> Result<(Plan, bool), StoreError> {
        let Some(new) = plan.new.as_ref().filter(|_| !is_applied) else { return Ok((plan, true)) };
        let condition = plan.old.as_ref().map_or(If::Absent, |old| If::Version(&old.version));
        let made = self.table.put(new.item(&plan.key, self.table.mode.home()), condition).await?;
        Ok((plan, made))
    }

    async fn log(&self, written: &[Plan]) -> Result<(), StoreError> {
        let mut shards: BTreeMap<usize, Vec<Logged>> = BTreeMap::new();
        for plan in written {
            shards.entry(item::shard_of(&plan.key)).or_default().extend(plan.log);
        }
        let appends: Vec<_> = shards.into_iter().map(|(shard, entries)| self.append(shard, entries)).collect();
        stream::iter(appends).buffer_unordered(CONCURRENT).try_collect::<()>().await
    }

    async fn append(&self, shard: usize, entries: Vec<Logged>) -> Result<(), StoreError> {
        for entries in entries.chunks(MAX_BATCH) {
            append(self.table, shard, entries.to_vec(), None).await?;
        }
        Ok(())
    }

    /// Notes that the log has it. If that fails, the next writer of the key appends it again.
    async fn finish(&self, plan: &Plan) {
        let (Some(_), Some(ours)) = (plan.log, plan.new.as_ref().or(plan.old.as_ref())) else { return };
        let name = item::revocation(&plan.key, self.table.mode.home());
        // Another region waits for the number of this state, or a higher one.
        let is_needed = self.table.mode.is_eventual() || ours.entry.is_some() || !ours.lifted.is_empty();
        let _ = match !is_needed {
            true => self.table.delete(&name, Some(&ours.version)).await,
            false => self.table.clear(&name, "u", &ours.version).await,
        };
    }
}

/// Our item in its next state.
fn ours<'a>(all: &'a mut Together, home: &str, now: u64) -> &'a mut Stored {
    let none = || Stored {
        version: Vec::new(),
        number: 0,
        entry: None,
        is_logged: true,
        lifted: BTreeMap::new(),
        expires: None,
    };
    let stored = all.0.entry(home.to_owned()).or_insert_with(none);
    stored.version = item::version().to_vec();
    // It grows also if the item was removed meanwhile.
    stored.number = now.max(stored.number.saturating_add(1));
    stored.is_logged = false;
    stored
}

/// Adds to our entry. The rules of [`Entry::merge`] apply, and of two equals the new note stays.
fn add(all: &mut Together, home: &str, new: Entry, now: u64) {
    // What another region has lifted does not come back.
    let is_lifted = all.0.get(home).is_some_and(|stored| all.is_lifted(home, stored));
    let stored = ours(all, home, now);
    let live = stored.entry.take().filter(|entry| !is_lifted && entry.expires.is_none_or(|expires| expires > now));
    let entry = match live {
        Some(old) => old.merge(new),
        None => new,
    };
    let has_lifts = !stored.lifted.is_empty();
    stored.expires = if has_lifts { entry::later(stored.expires, entry.expires) } else { entry.expires };
    stored.entry = Some(entry);
}

/// The same, but of two equals the old note stays.
fn merge(all: &mut Together, home: &str, new: Entry, now: u64) {
    let old = all.in_force(now).filter(|old| old.ending >= new.ending);
    let sealed = old.as_ref().map_or(new.sealed, |old| old.sealed.clone());
    let ending = old.map_or(new.ending, |old| old.ending);
    add(all, home, Entry { ending, sealed, expires: new.expires }, now);
}

/// Marks everything that was read as lifted. Items of other regions are not touched: their versions are noted in ours.
fn lift(all: &mut Together, home: &str, now: u64) {
    let others: BTreeMap<_, _> = all
        .0
        .iter()
        .filter(|(region, _)| *region != home)
        .map(|(region, stored)| (region.clone(), stored.version.clone()))
        .collect();
    let expires = all.0.values().map(|stored| stored.expires).reduce(entry::later).flatten();
    let stored = ours(all, home, now);
    stored.entry = None;
    stored.lifted = others;
    stored.expires = expires;
}
