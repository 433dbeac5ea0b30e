//! The bookkeeping of checks: cache misses that arrive while a check is in flight wait, and are sent together in the
//! next one. No host call, no clock: events in, actions out, so that a test can replay any history.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wire::{
    Answer, RevocationKey,
    check::{MAX_KEYS, Reply},
};

use authn::revocation::{RevocationQuery, Verdict};
use authn::time::Monotonic;

use crate::deadlines::Deadlines;
use crate::host::StreamId;
use crate::mac_hash::{MacMap, MacSet};

/// Identifies a batch while it is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(u64);

#[cfg(test)]
impl BatchId {
    pub fn for_test(id: u64) -> Self {
        Self(id)
    }
}

/// Batches in flight at once. With a second one, a request that just missed the first does not wait a whole round trip
/// for its turn. More would only make batches smaller.
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;

#[derive(Debug)]
pub struct Checks {
    limit: usize,
    timeout: Duration,
    next_batch_id: u64,
    /// All queries in flight or queued, by digest: two requests with one token share a query.
    pending: MacMap<[u8; 16], Pending>,
    /// Those of `pending` that are not in flight, in order of arrival. May contain entries that are gone.
    queue: VecDeque<[u8; 16]>,
    /// Queries for which no request waits yet: sent along with others, or at [`Trigger::Tick`].
    refreshes: VecDeque<[u8; 16]>,
    in_flight: Vec<BatchInFlight>,
    /// The query that each request waits for.
    waiters: HashMap<StreamId, [u8; 16]>,
    deadlines: Deadlines,
    recent: Recent,
}

/// The newest answers about keys that many tokens share, with the time of their checks. They are reused for other
/// tokens for a small part of their freshness. A verdict that uses one loses that part: it counts from the oldest of
/// its checks.
#[derive(Debug)]
struct Recent {
    answers: MacMap<RevocationKey, (Monotonic, Answer)>,
    serves: Duration,
    swept: Monotonic,
    /// An older answer may lack a revocation that is known meanwhile.
    not_before: Monotonic,
}

/// One token's query, and all requests that wait for it.
#[derive(Debug)]
struct Pending {
    query: Arc<RevocationQuery>,
    waiters: Vec<StreamId>,
    /// The batch in flight that contains it.
    batch: Option<BatchId>,
}

#[derive(Debug)]
struct BatchInFlight {
    id: BatchId,
    sent: Monotonic,
    keys: Vec<RevocationKey>,
    /// Answers that were already known, so these keys are not sent.
    known: Vec<(RevocationKey, Monotonic, Answer)>,
    tokens: Vec<[u8; 16]>,
}

/// Why a batch may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A request waits.
    Waiters,
    /// No request waits: refreshes are sent at intervals, so that many of them share a batch.
    Tick,
}

/// No more requests may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A batch to send now.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    pub keys: Vec<RevocationKey>,
    pub tokens: usize,
    /// Those of the tokens for which no request waits.
    pub refreshes: usize,
}

/// The result for one token.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub query: Arc<RevocationQuery>,
    /// When the oldest check that it uses was sent: its freshness counts from then.
    pub sent: Monotonic,
    /// `None`: the service's retention is shorter than such a token's lifetime, so its answer proves nothing.
    pub verdict: Option<Verdict>,
    pub waiters: Vec<StreamId>,
}

impl Checks {
    /// At most `limit` requests wait, each at most `timeout`. An answer about a shared key is reused for `serves`.
    pub fn new(limit: usize, timeout: Duration, serves: Duration) -> Self {
        Self {
            limit,
            timeout,
            next_batch_id: 0,
            pending: MacMap::default(),
            queue: VecDeque::new(),
            refreshes: VecDeque::new(),
            in_flight: Vec::new(),
            waiters: HashMap::new(),
            deadlines: Deadlines::default(),
            recent: Recent {
                answers: MacMap::default(),
                serves,
                swept: Monotonic::default(),
                not_before: Monotonic::default(),
            },
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// `waiter` waits for the answer to `query`.
    ///
    /// # Errors
    /// [`Full`]: the request must be refused.
    pub fn join(&mut self, waiter: StreamId, query: Arc<RevocationQuery>, now: Monotonic) -> Result<(), Full> {
        if self.waiters.len() >= self.limit {
            return Err(Full);
        }
        let digest = *query.digest();
        self.waiters.insert(waiter, digest);
        self.deadlines.push(now.plus(self.timeout), waiter);
        // A check that is already in flight may have been sent before a revocation that precedes this request. Its
        // answer counts only while it is fresh, from the time of sending: joining it is equivalent to a cache hit.
        match self.pending.get_mut(&digest) {
            Some(pending) => {
                // It was only a refresh, and now a request waits for it.
                if pending.waiters.is_empty() && pending.batch.is_none() {
                    self.queue.push_back(digest);
                }
                pending.waiters.push(waiter);
            }
            None => {
                self.pending.insert(digest, Pending { query, waiters: vec![waiter], batch: None });
                self.queue.push_back(digest);
            }
        }
        Ok(())
    }

    /// Queries what will probably be needed soon. No request waits for it. False if there is no room.
    pub fn anticipate(&mut self, query: Arc<RevocationQuery>) -> bool {
        let digest = *query.digest();
        if self.pending.len() >= self.limit || self.queue.len() >= self.limit {
            return false;
        }
        match self.pending.get(&digest) {
            None => {
                self.pending.insert(digest, Pending { query, waiters: Vec::new(), batch: None });
                self.queue.push_back(digest);
            }
            // It was queued as a refresh for the next tick.
            Some(pending) if pending.batch.is_none() && pending.waiters.is_empty() => self.queue.push_back(digest),
            Some(_) => {}
        }
        true
    }

    /// Queues a refresh of `query`; no request waits for it. False if too many refreshes are queued already: it is dropped,
    /// and the next request will wait.
    pub fn refresh(&mut self, query: Arc<RevocationQuery>) -> bool {
        let digest = *query.digest();
        if self.pending.contains_key(&digest) {
            return true;
        }
        let has_room = self.refreshes.len() < self.limit;
        if has_room {
            self.pending.insert(digest, Pending { query, waiters: Vec::new(), batch: None });
            self.refreshes.push_back(digest);
        }
        has_room
    }

    /// False while as many batches are in flight as may be.
    pub fn may_send(&self) -> bool {
        self.in_flight.len() < MAX_BATCHES_IN_FLIGHT
    }

    /// Forgets the queued refreshes that `is_needed` denies. A query that a request waits for stays.
    pub fn retain_refreshes(&mut self, mut is_needed: impl FnMut(&RevocationQuery) -> bool) {
        let Self { pending, refreshes, .. } = self;
        refreshes.retain(|digest| {
            let Some(queued) = pending.get(digest) else { return false };
            if queued.batch.is_some() || !queued.waiters.is_empty() || is_needed(&queued.query) {
                return true;
            }
            pending.remove(digest);
            false
        });
    }

    /// The next batch, if one may be sent. Call this until it returns none. `has_more`: something else is to be sent with
    /// it, so it may have no keys.
    pub fn next_batch(&mut self, trigger: Trigger, has_more: bool, now: Monotonic) -> Option<Batch> {
        if !self.may_send() || (trigger == Trigger::Waiters && self.queue.is_empty() && !has_more) {
            return None;
        }
        let id = BatchId(self.next_batch_id);
        let mut keys: Vec<RevocationKey> = Vec::new();
        let mut seen: MacSet<RevocationKey> = MacSet::default();
        let mut known = Vec::new();
        let mut tokens: Vec<[u8; 16]> = Vec::new();
        let mut refreshes: usize = 0;
        // Queries with waiting requests come first.
        while let Some(digest) = self.queue.front().or(self.refreshes.front()).copied() {
            let waiting = self.pending.get_mut(&digest).filter(|pending| pending.batch.is_none());
            if let Some(pending) = waiting {
                let new = pending.query.keys.iter().filter(|key| !seen.contains(key)).count();
                if keys.len().saturating_add(new) > MAX_KEYS && !tokens.is_empty() {
                    break;
                }
                let (own, shared) = pending.query.own_and_shared_keys();
                keys.extend(own.iter().filter(|key| seen.insert(**key)));
                for key in shared.iter().filter(|key| seen.insert(**key)) {
                    match self.recent.get(key, now) {
                        // A check needs at least one key: if a token has none of its own, all are sent.
                        Some((sent, answer)) if !own.is_empty() => known.push((*key, sent, answer)),
                        _ => keys.push(*key),
                    }
                }
                pending.batch = Some(id);
                tokens.push(digest);
                refreshes = refreshes.saturating_add(usize::from(self.queue.is_empty()));
            }
            if self.queue.pop_front().is_none() {
                self.refreshes.pop_front();
            }
        }
        if tokens.is_empty() && !has_more {
            return None;
        }
        self.next_batch_id = self.next_batch_id.wrapping_add(1);
        let batch = Batch { id, keys: keys.clone(), tokens: tokens.len(), refreshes };
        self.in_flight.push(BatchInFlight { id, sent: now, keys, known, tokens });
        Some(batch)
    }

    /// The reply to a batch, with an answer for each of its keys, in order.
    ///
    /// # Errors
    /// The answers do not fit the check: all requests that wait for it must be refused.
    pub fn answered(&mut self, batch: BatchId, reply: &Reply) -> Result<Vec<Resolved>, Vec<StreamId>> {
        let Some(done) = self.take(batch) else { return Ok(Vec::new()) };
        let answers = &reply.answers;
        if done.keys.len() != answers.len() {
            return Err(self.release(done.tokens));
        }
        let asked = done.keys.iter().zip(answers).map(|(key, answer)| (*key, (done.sent, *answer)));
        let known = done.known.iter().map(|(key, sent, answer)| (*key, (*sent, *answer)));
        let by_key: MacMap<RevocationKey, (Monotonic, Answer)> = asked.chain(known).collect();
        let mut resolved = Vec::with_capacity(done.tokens.len());
        for digest in done.tokens {
            let Some(pending) = self.pending.remove(&digest) else { continue };
            for waiter in &pending.waiters {
                self.waiters.remove(waiter);
            }
            // A key without an answer is impossible, since the batch was made of these keys; it would count as revoked.
            let answer = |key| by_key.get(key).copied().unwrap_or((done.sent, Answer::Dead));
            let is_kept = reply.keeps.covers(pending.query.needs);
            for key in pending.query.own_and_shared_keys().1.iter().filter(|_| is_kept) {
                self.recent.learn(*key, answer(key));
            }
            let sent = pending.query.keys.iter().map(|key| answer(key).0).fold(done.sent, Monotonic::min);
            resolved.push(Resolved {
                verdict: is_kept.then(|| pending.query.judge(pending.query.keys.iter().map(|key| answer(key).1))),
                sent,
                waiters: pending.waiters,
                query: pending.query,
            });
        }
        Ok(resolved)
    }

    /// The batch could not be sent, or its reply cannot be trusted. The requests that wait for it must be refused.
    pub fn failed(&mut self, batch: BatchId) -> Vec<StreamId> {
        match self.take(batch) {
            Some(done) => self.release(done.tokens),
            None => Vec::new(),
        }
    }

    /// Revocations became known in another way: earlier answers are not reused for other tokens.
    pub fn forget_answers(&mut self, now: Monotonic) {
        self.recent.answers.clear();
        self.recent.not_before = now;
    }

    /// The request is gone, or was answered in another way. A batch in flight continues: its answer is worth caching.
    pub fn leave(&mut self, waiter: StreamId) {
        let Some(digest) = self.waiters.remove(&waiter) else { return };
        let Some(pending) = self.pending.get_mut(&digest) else { return };
        pending.waiters.retain(|one| *one != waiter);
        if pending.waiters.is_empty() && pending.batch.is_none() {
            self.pending.remove(&digest);
        }
        self.forget_the_gone();
    }

    /// The requests whose deadline has passed: they must be refused. A batch that exceeded its timeout is abandoned, so
    /// that a missing callback cannot block the next batch forever.
    pub fn expire(&mut self, now: Monotonic) -> Vec<StreamId> {
        let mut over = Vec::new();
        while let Some(waiter) = self.deadlines.pop_due(now) {
            if self.waiters.contains_key(&waiter) {
                self.leave(waiter);
                over.push(waiter);
            }
        }
        let patience = self.timeout.saturating_mul(2);
        let lost: Vec<BatchId> =
            self.in_flight.iter().filter(|batch| now.since(batch.sent) > patience).map(|batch| batch.id).collect();
        for batch in lost {
            over.extend(self.failed(batch));
        }
        over
    }

    fn take(&mut self, batch: BatchId) -> Option<BatchInFlight> {
        let at = self.in_flight.iter().position(|one| one.id == batch)?;
        Some(self.in_flight.swap_remove(at))
    }

    fn release(&mut self, tokens: Vec<[u8; 16]>) -> Vec<StreamId> {
        let mut waiters = Vec::new();
        for digest in tokens {
            if let Some(pending) = self.pending.remove(&digest) {
                waiters.extend(pending.waiters);
            }
        }
        for waiter in &waiters {
            self.waiters.remove(waiter);
        }
        waiters
    }

    /// Requests that come and go without answers must not accumulate in the queues.
    fn forget_the_gone(&mut self) {
        let most = self.limit.saturating_mul(2).saturating_add(64);
        self.deadlines.shrink(most, |waiter| self.waiters.contains_key(&waiter));
        if self.queue.len() > most {
            self.queue.retain(|digest| self.pending.get(digest).is_some_and(|pending| pending.batch.is_none()));
        }
    }
}

/// The most answers kept for other tokens.
const MAX_RECENT: usize = 256;

impl Recent {
    fn get(&self, key: &RevocationKey, now: Monotonic) -> Option<(Monotonic, Answer)> {
        self.answers
            .get(key)
            .copied()
            .filter(|(sent, _)| *sent <= now && *sent >= self.not_before && now.since(*sent) < self.serves)
    }

    fn learn(&mut self, key: RevocationKey, (sent, answer): (Monotonic, Answer)) {
        if self.serves.is_zero() || sent < self.not_before {
            return;
        }
        if let Some(known) = self.answers.get_mut(&key) {
            if known.0 < sent {
                *known = (sent, answer);
            }
            return;
        }
        // As many clients as tokens: a sweep for each of them would gain nothing.
        if self.answers.len() >= MAX_RECENT && sent.since(self.swept) >= self.serves {
            self.swept = sent;
            self.answers.retain(|_, (other, _)| sent.since(*other) < self.serves);
        }
        if self.answers.len() < MAX_RECENT {
            self.answers.insert(key, (sent, answer));
        }
    }
}

#[cfg(test)]
mod tests;
