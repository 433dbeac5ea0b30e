//! Follows one region: asks for what changed, and reads all of it in pages at the start, at intervals, and after each outage.
//!
//! Both go on side by side, since merges commute. The pages of a comparison have at least everything up to the cursor that they
//! are asked with, and what came after that cursor comes as changes. So when all pages were read, everything is here.
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::StoreId;
use tokio::sync::watch;
use tokio::time::sleep;
use wire::check::Needs;
use wire::feed::Cursor;
use wire::join::{Content, Entry, Facts, MAX_ENTRIES, Question, Reply, Row};
use wire::{DerivedKeys, RevocationKey, SecretId};

use super::exchange::Exchange;
use super::merge::{Bounds, SLACK, lacking};
use super::metrics::Mismatch;
use super::status::{Status, Turn};
use super::{AskError, Parts};
use crate::base::clock::unix_seconds;
use crate::base::throttle::Throttle;
use crate::domain::audit::Event;

/// How long a region may hold a request if nothing changed. It is also how old the last proof is in quiet times.
const WAIT: Duration = Duration::from_secs(1);
/// Entries that are read from our store at once, and that are written at once: not all, so that our own revocations pass.
const READ: usize = 256;
const WRITE: usize = 512;
/// The most entries that are written in a second. A region that floods ours gives time to react.
const WRITES_PER_SECOND: u32 = 5000;
/// From one step to the next one, so that a region whose replies lead nowhere does not keep us busy.
const LEAST_STEP: Duration = Duration::from_millis(10);
/// How often a region may give us a new cursor before a comparison was finished.
const MAX_ANEW: u32 = 3;
/// After a failure. Doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// A difference of clocks that is reported.
const CLOCK: u64 = 5;
/// After an outage of at least so long, all is compared. It is longer than one lost request takes.
const OUTAGE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Follower {
    region: Box<dyn Exchange>,
    parts: Arc<Parts>,
    status: Mutex<Status>,
    failures: Throttle,
}

/// Where this follower is in the region.
#[derive(Debug)]
pub struct Progress {
    cursor: Cursor,
    /// A comparison is going on.
    comparing: Option<Comparing>,
    /// Everything up to the cursor is here, apart from a comparison that is going on.
    is_whole: bool,
    compare_next: Instant,
    last_success: Instant,
    /// Of our store, when this began.
    epoch: Option<u64>,
    /// How often the region began anew since the last comparison was finished.
    anew: u32,
}

#[derive(Debug, Default)]
struct Comparing {
    after: Option<RevocationKey>,
    written: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("facts", &self.facts.get()).finish_non_exhaustive()
    }
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        let (cursor, comparing) = (Cursor::default(), None);
        Self { cursor, comparing, is_whole: false, compare_next: now, last_success: now, epoch: None, anew: 0 }
    }

    /// All pages must be read before anything is complete again.
    fn begin_anew(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.is_whole = false;
        self.comparing = Some(Comparing::default());
    }

    /// The region does not understand our cursor.
    fn begin_anew_at(&mut self, cursor: Cursor) -> Result<(), AskError> {
        self.begin_anew(cursor);
        self.anew = self.anew.saturating_add(1);
        if self.anew <= MAX_ANEW { Ok(()) } else { Err(AskError::Protocol("it does not understand its own cursors")) }
    }
}

impl Follower {
    pub fn new(region: Box<dyn Exchange>, parts: Arc<Parts>) -> Self {
        parts.metrics.begin(region.name());
        let status = Mutex::new(Status::new(Instant::now()));
        Self { region, parts, status, failures: Throttle::every(Duration::from_secs(10)) }
    }

    /// From the next request on.
    pub fn ask_with(&self, secret: &DerivedKeys) {
        self.region.ask_with(secret);
    }

    pub fn status(&self) -> Reported {
        Reported(self.lock().clone())
    }

    /// As of when every revocation that was acknowledged there is in our store, and ends what it must for the filters with this
    /// secret. `read`: when the reading of our store began. `None`: that cannot be said.
    pub fn proven(&self, secret: SecretId, read: Instant) -> Option<Instant> {
        self.lock().proven(secret, self.parts.store.epoch(), read).filter(|_| self.parts.store.health().is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn run(self: Arc<Self>, mut on_stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = on_stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow(&self) {
        let mut progress = Progress::new(Instant::now());
        let mut failures = 0_u32;
        loop {
            let began = Instant::now();
            let stepped = self.step(&mut progress).await;
            let region = self.region.name();
            self.parts.metrics.asked(region, stepped.as_ref().err());
            self.tell_turns().await;
            let Err(error) = stepped else {
                failures = 0;
                sleep(LEAST_STEP.saturating_sub(began.elapsed())).await;
                continue;
            };
            if let Some(more) = self.failures.pass(Instant::now()) {
                tracing::warn!(region, %error, more, "a joined region is not followed");
            }
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LAST_PAUSE);
            failures = failures.saturating_add(1);
            sleep(jittered(pause)).await;
        }
    }

    /// One request for changes and, during a comparison, one for a page.
    ///
    /// # Errors
    /// See [`AskError`]. What was merged stays, and the next step goes on from there.
    pub async fn step(&self, progress: &mut Progress) -> Result<(), AskError> {
        let (health, epoch) = (self.parts.store.health(), self.parts.store.epoch());
        let is_other = progress.epoch.replace(epoch).is_some_and(|last| last != epoch);
        if is_other || health.is_err() {
            // A failover may lose what was merged, also one that is over: all of it is compared.
            progress.begin_anew(progress.cursor.clone());
            self.lock().doubt(Instant::now());
            self.parts.metrics.complete(self.region.name(), None);
        }
        health.map_err(AskError::OurStore)?;
        if progress.last_success.elapsed() > OUTAGE || (progress.is_whole && Instant::now() >= progress.compare_next) {
            progress.comparing.get_or_insert_default();
        }
        self.changes(progress).await?;
        if progress.comparing.is_some() {
            self.page(progress).await?;
        }
        progress.last_success = Instant::now();
        Ok(())
    }

    async fn changes(&self, progress: &mut Progress) -> Result<(), AskError> {
        let wait = if progress.comparing.is_some() { Duration::ZERO } else { WAIT };
        let question = Question::Changes { cursor: progress.cursor.clone(), wait };
        let (content, sent) = self.ask(&question).await?;
        match content {
            Content::Anew(cursor) => progress.begin_anew_at(cursor)?,
            Content::Changes { more: true, entries, cursor, .. } if entries.is_empty() && cursor == progress.cursor => {
                return Err(AskError::Protocol("there is more, and nothing of it comes"));
            }
            Content::Changes { cursor, complete_millis, more, entries } => {
                self.merge(entries, sent).await?;
                progress.cursor = cursor;
                if let Some(moment) = moment(sent, complete_millis).filter(|_| !more && progress.is_whole) {
                    self.complete(moment, progress.epoch);
                }
            }
            Content::Page { .. } | Content::Entries(_) => return Err(AskError::Protocol("it answers another request")),
        }
        Ok(())
    }

    async fn page(&self, progress: &mut Progress) -> Result<(), AskError> {
        let Some(comparing) = &mut progress.comparing else { return Ok(()) };
        let question = Question::Page { cursor: progress.cursor.clone(), after: comparing.after };
        let (rows, next, sent) = match self.ask(&question).await? {
            (Content::Anew(cursor), _) => {
                return progress.begin_anew_at(cursor);
            }
            (Content::Page { rows, next }, sent) => (rows, next, sent),
            _ => return Err(AskError::Protocol("it answers another request")),
        };
        // Each page leads on, so a comparison ends.
        let is_ordered = rows.is_sorted_by(|one, other| one.key < other.key);
        let is_after = rows.first().is_none_or(|first| comparing.after.is_none_or(|after| first.key > after));
        let leads_on = next.is_none_or(|next| {
            comparing.after.is_none_or(|after| next > after) && rows.last().is_none_or(|last| last.key <= next)
        });
        if !is_ordered || !is_after || !leads_on {
            return Err(AskError::Protocol("its pages do not lead on"));
        }
        comparing.written = comparing.written.saturating_add(self.merge_rows(&rows, sent).await?);
        comparing.after = next;
        if next.is_none() {
            let written = comparing.written;
            progress.comparing = None;
            progress.is_whole = true;
            progress.anew = 0;
            progress.compare_next = Instant::now() + jittered(self.parts.compare);
            self.compared(written).await;
        }
        Ok(())
    }

    /// Merges those of the rows that our store lacks. How many were written.
    async fn merge_rows(&self, rows: &[Row], sent: Instant) -> Result<u64, AskError> {
        let mut lacking_keys = Vec::new();
        for rows in rows.chunks(READ) {
            let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
            let ours = self.parts.store.show_all(&keys).await.map_err(AskError::OurStore)?;
            lacking_keys.extend(lacking(&ours, rows, self.bounds(sent)));
        }
        let mut written = 0;
        for keys in lacking_keys.chunks(MAX_ENTRIES) {
            match self.ask(&Question::Entries(keys.to_vec())).await? {
                (Content::Entries(entries), sent) => {
                    let asked: HashSet<_> = keys.iter().collect();
                    if entries.iter().any(|entry| !asked.contains(&entry.row.key)) {
                        return Err(AskError::Protocol("it sends what was not asked for"));
                    }
                    written += self.write(entries, sent).await?;
                }
                _ => return Err(AskError::Protocol("it answers another request")),
            }
        }
        Ok(written)
    }

    /// Merges those of the entries that our store lacks.
    async fn merge(&self, entries: Vec<Entry>, sent: Instant) -> Result<(), AskError> {
        let mut lacked = HashSet::new();
        for entries in entries.chunks(READ) {
            let rows: Vec<_> = entries.iter().map(|entry| entry.row).collect();
            let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
            let ours = self.parts.store.show_all(&keys).await.map_err(AskError::OurStore)?;
            lacked.extend(lacking(&ours, &rows, self.bounds(sent)));
        }
        let entries = entries.into_iter().filter(|entry| lacked.contains(&entry.row.key)).collect();
        self.write(entries, sent).await.map(drop)
    }

    async fn write(&self, mut entries: Vec<Entry>, sent: Instant) -> Result<u64, AskError> {
        let mut all = 0;
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(WRITE));
            let bounds = self.bounds(sent);
            let bounded = entries.iter().filter(|entry| bounds.is_beyond(&entry.row)).count();
            let merged: Vec<_> = entries.into_iter().filter_map(|entry| bounds.merged(entry)).collect();
            let count = u32::try_from(merged.len()).unwrap_or(u32::MAX);
            let began = Instant::now();
            let written = self.parts.store.merge(merged, SLACK).await;
            let written = written.map_err(|error| AskError::OurStore(error.store_error()))?;
            self.parts.feed.written();
            self.parts.metrics.merged(self.region.name(), written, u64::try_from(bounded).unwrap_or(u64::MAX));
            all += written;
            let least = Duration::from_secs(1) * count / WRITES_PER_SECOND;
            sleep(least.saturating_sub(began.elapsed())).await;
            entries = rest;
        }
        Ok(all)
    }

    fn bounds(&self, sent: Instant) -> Bounds {
        Bounds::new(unix_seconds(), self.parts.facts.get().future_iat_tolerance_seconds, sent.elapsed())
    }

    async fn ask(&self, question: &Question) -> Result<(Content, Instant), AskError> {
        let needs = self.parts.facts.get().needs();
        let (Reply { facts, content }, sent) = self.region.ask(question, needs).await?;
        if facts.store == [0; 16] {
            return Err(AskError::Protocol("it does not say which store it has"));
        }
        if facts.store == self.parts.store.id().map(StoreId::bytes).unwrap_or_default() {
            return Err(AskError::Ourselves);
        }
        self.compare_facts(facts, needs);
        Ok((content, sent))
    }

    /// `needs`: what the request said.
    fn compare_facts(&self, theirs: Facts, needs: Needs) {
        let (ours, region) = (self.parts.facts.get(), self.region.name());
        let is_store_of_another = self.parts.stores_seen.see(region, theirs.store);
        let is = |mismatch| match mismatch {
            Mismatch::Secrets => ours.secrets.iter().any(|id| !theirs.secrets.contains(id)),
            Mismatch::Retention => !theirs.keeps.covers(ours.keeps),
            Mismatch::Tolerance => u64::from(theirs.future_iat_tolerance_seconds) < ours.future_iat_tolerance_seconds,
            Mismatch::Clock => theirs.now_seconds.abs_diff(unix_seconds()) > CLOCK,
            Mismatch::Store => is_store_of_another,
        };
        for mismatch in Mismatch::ALL {
            self.parts.metrics.mismatch(region, mismatch, is(mismatch));
        }
        // As for filters: its time is later than that of the request.
        let latest = theirs.now_seconds.saturating_add(1).saturating_add(theirs.future_iat_tolerance_seconds.into());
        let is_behind = needs.now_seconds > latest;
        let ends_enough = !is(Mismatch::Retention) && !is(Mismatch::Tolerance) && !is_behind;
        let secrets = if ends_enough { theirs.secrets } else { Vec::new() };
        self.lock().learn(secrets, is_store_of_another);
    }

    fn complete(&self, moment: Instant, epoch: Option<u64>) {
        // Since this step began, our store may have lost what was merged.
        if self.parts.store.health().is_err() || epoch != Some(self.parts.store.epoch()) {
            return;
        }
        let mut status = self.lock();
        status.completed(moment, epoch, Instant::now());
        self.parts.metrics.complete(self.region.name(), status.complete());
    }

    async fn compared(&self, written: u64) {
        let region = self.region.name();
        self.parts.metrics.compared(region);
        if written > 0 {
            tracing::info!(region, written, "a comparison with a joined region brought revocations");
            let reason = Some(format!("{written} revocations merged"));
            self.audit(Event { reason, ..Event::new("region", "region.compare", "done") }).await;
        }
    }

    async fn tell_turns(&self) {
        let turn = self.lock().turn(Instant::now());
        let region = self.region.name();
        match turn {
            None => {}
            Some(Turn::CutOff) => {
                tracing::error!(region, "a joined region is cut off: this region goes on by its own store");
                self.audit(Event::new("region", "region.follow", "cut_off")).await;
            }
            Some(Turn::Back) => {
                tracing::info!(region, "a joined region is followed again");
                self.audit(Event::new("region", "region.follow", "done")).await;
            }
        }
    }

    async fn audit(&self, event: Event) {
        self.parts.audit.get().write(Event { id: Some(self.region.name().to_owned()), ..event }).await;
    }
}

/// A copy for readers.
#[derive(Debug, Clone)]
pub struct Reported(Status);

impl Reported {
    pub fn is_cut_off(&self) -> bool {
        self.0.is_cut_off(Instant::now())
    }

    #[cfg(test)]
    pub fn complete(&self) -> Option<Instant> {
        self.0.complete()
    }
}

/// The region counts from when it received the request, which was not before it was sent. A moment that has not come yet proves
/// no more than now.
fn moment(sent: Instant, millis: i32) -> Option<Instant> {
    let by = Duration::from_millis(millis.unsigned_abs().into());
    let moment = if millis < 0 { sent.checked_sub(by) } else { sent.checked_add(by) };
    moment.map(|moment| moment.min(Instant::now()))
}

/// Half of it to the whole, so that regions and instances do not act at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(pause) % 500).unwrap_or(0);
    pause / 1000 * (500 + random)
}
