//! Which requests wait for which answers: misses that arrive while a question is under way wait, and go out together in
//! the next one. No host call, no clock: events in, what to do out, so that any history can be replayed in a test.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wire::{
    Answer, RevocationKey,
    check::{MAX_KEYS, Reply},
};

use authn::revocation::{RevocationQuery, Verdict};
use authn::time::Monotonic;

use crate::host::StreamId;
use crate::mac_hash::{MacMap, MacSet};

/// Names one question while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(u64);

/// Questions under way at once: with a second one, a request that just missed the first does not wait a whole round
/// trip for its turn. More would only make batches smaller.
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;

#[derive(Debug)]
pub struct Checks {
    limit: usize,
    timeout: Duration,
    next_batch_id: u64,
    /// All that is asked or to be asked, by the question's digest: a token that is waited for twice is asked once.
    pending: MacMap<[u8; 16], Pending>,
    /// Those of `pending` that no question under way asks, in the order in which they came. May name some that are gone.
    queue: VecDeque<[u8; 16]>,
    /// Those that nobody waits for yet: asked along with others, or when [`Trigger::Tick`] says so.
    refreshes: VecDeque<[u8; 16]>,
    in_flight: Vec<BatchInFlight>,
    /// Which question each request waits for.
    waiters: HashMap<StreamId, [u8; 16]>,
    /// In the order of their deadlines, since every request waits equally long. May name some that are gone.
    deadlines: VecDeque<(Monotonic, StreamId)>,
    recent: Recent,
}

/// The newest answers about what many tokens share, with the time of their questions. They serve other tokens for a small
/// part of their freshness, which a verdict that rests on one loses: it counts from the oldest of its questions.
#[derive(Debug)]
struct Recent {
    answers: MacMap<RevocationKey, (Monotonic, Answer)>,
    serves: Duration,
    swept: Monotonic,
}

/// One token that is asked about, and all who wait for it.
#[derive(Debug)]
struct Pending {
    query: Arc<RevocationQuery>,
    waiters: Vec<StreamId>,
    /// The question under way that asks it.
    batch: Option<BatchId>,
}

#[derive(Debug)]
struct BatchInFlight {
    id: BatchId,
    sent: Monotonic,
    keys: Vec<RevocationKey>,
    /// Not asked, since the answer was at hand.
    known: Vec<(RevocationKey, Monotonic, Answer)>,
    tokens: Vec<[u8; 16]>,
}

/// What a question may go out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Somebody waits.
    Waiters,
    /// Nobody need wait: what is to be refreshed goes out now and then, so that much of it shares a question.
    Tick,
}

/// No more requests may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A question to send now.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    pub keys: Vec<RevocationKey>,
    pub tokens: usize,
}

/// What became of one token that was asked about.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub query: Arc<RevocationQuery>,
    /// When the oldest question that it rests on was sent: from then its freshness counts.
    pub sent: Monotonic,
    /// `None`: the service keeps revocations for less time than such a token lives, so what it answers says nothing.
    pub verdict: Option<Verdict>,
    pub waiters: Vec<StreamId>,
}

impl Checks {
    /// At most `limit` requests wait, each at most `timeout`. An answer about what many tokens share serves others for as
    /// long as `serves`.
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
            deadlines: VecDeque::new(),
            recent: Recent { answers: MacMap::default(), serves, swept: Monotonic::default() },
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// `waiter` waits for what `ask` asks.
    ///
    /// # Errors
    /// [`Full`], and the request must be refused.
    pub fn join(&mut self, waiter: StreamId, query: Arc<RevocationQuery>, now: Monotonic) -> Result<(), Full> {
        if self.waiters.len() >= self.limit {
            return Err(Full);
        }
        let digest = query.digest;
        self.waiters.insert(waiter, digest);
        self.deadlines.push_back((now.plus(self.timeout), waiter));
        // A question that is already under way may have been sent before a revocation that this request comes after. Its
        // answer counts only while it is fresh, which is reckoned from the sending: joining it is a cache hit, no more.
        match self.pending.get_mut(&digest) {
            Some(pending) => {
                // It was only to be refreshed, and now somebody waits.
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

    /// Asks what somebody will want to know in a moment, if there is room. Nobody waits for it.
    pub fn anticipate(&mut self, query: Arc<RevocationQuery>) {
        let digest = query.digest;
        if self.pending.len() >= self.limit || self.queue.len() >= self.limit {
            return;
        }
        match self.pending.get(&digest) {
            None => {
                self.pending.insert(digest, Pending { query, waiters: Vec::new(), batch: None });
                self.queue.push_back(digest);
            }
            // It was to be refreshed with the next tick.
            Some(pending) if pending.batch.is_none() && pending.waiters.is_empty() => self.queue.push_back(digest),
            Some(_) => {}
        }
    }

    /// `ask` is to be asked anew, and nobody waits for it. Where too much is to be refreshed already, it is left: its next
    /// request will wait.
    pub fn refresh(&mut self, query: Arc<RevocationQuery>) {
        let digest = query.digest;
        if self.refreshes.len() < self.limit && !self.pending.contains_key(&digest) {
            self.pending.insert(digest, Pending { query, waiters: Vec::new(), batch: None });
            self.refreshes.push_back(digest);
        }
    }

    /// The next question, if one may go out. Call it again until there is none.
    pub fn next_batch(&mut self, trigger: Trigger, now: Monotonic) -> Option<Batch> {
        if self.in_flight.len() >= MAX_BATCHES_IN_FLIGHT || (trigger == Trigger::Waiters && self.queue.is_empty()) {
            return None;
        }
        let id = BatchId(self.next_batch_id);
        let mut keys: Vec<RevocationKey> = Vec::new();
        let mut seen: MacSet<RevocationKey> = MacSet::default();
        let mut known = Vec::new();
        let mut tokens: Vec<[u8; 16]> = Vec::new();
        // Those who wait come first.
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
                        // A question needs a key: where a token has none of its own, all are asked.
                        Some((sent, answer)) if !own.is_empty() => known.push((*key, sent, answer)),
                        _ => keys.push(*key),
                    }
                }
                pending.batch = Some(id);
                tokens.push(digest);
            }
            if self.queue.pop_front().is_none() {
                self.refreshes.pop_front();
            }
        }
        if tokens.is_empty() {
            return None;
        }
        self.next_batch_id = self.next_batch_id.wrapping_add(1);
        let batch = Batch { id, keys: keys.clone(), tokens: tokens.len() };
        self.in_flight.push(BatchInFlight { id, sent: now, keys, known, tokens });
        Some(batch)
    }

    /// The reply to a question, with an answer for each of its keys, in order.
    ///
    /// # Errors
    /// The answers do not fit the question: all who waited for it must be refused.
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
            // A key without an answer cannot be, since the question was made of these very keys; it would be a death.
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

    /// The question could not be sent, or its answer proves nothing. Those who waited for it must be refused.
    pub fn failed(&mut self, batch: BatchId) -> Vec<StreamId> {
        match self.take(batch) {
            Some(done) => self.release(done.tokens),
            None => Vec::new(),
        }
    }

    /// The request is gone, or was answered otherwise. A question under way goes on: its answer is worth keeping.
    pub fn leave(&mut self, waiter: StreamId) {
        let Some(digest) = self.waiters.remove(&waiter) else { return };
        let Some(pending) = self.pending.get_mut(&digest) else { return };
        pending.waiters.retain(|one| *one != waiter);
        if pending.waiters.is_empty() && pending.batch.is_none() {
            self.pending.remove(&digest);
        }
        self.forget_the_gone();
    }

    /// Those whose time is over: they must be refused. A question under way that outlived its timeout is forgotten, so
    /// that a callback that never comes cannot hold the next batch for ever.
    pub fn expire(&mut self, now: Monotonic) -> Vec<StreamId> {
        let mut over = Vec::new();
        while let Some((deadline, waiter)) = self.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
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

    /// Requests that come and go while nothing is answered must not pile up in the queues.
    fn forget_the_gone(&mut self) {
        let most = self.limit.saturating_mul(2).saturating_add(64);
        if self.deadlines.len() > most {
            self.deadlines.retain(|(_, waiter)| self.waiters.contains_key(waiter));
        }
        if self.queue.len() > most {
            self.queue.retain(|digest| self.pending.get(digest).is_some_and(|pending| pending.batch.is_none()));
        }
    }
}

/// The most answers that are kept for other tokens.
const MAX_RECENT: usize = 256;

impl Recent {
    fn get(&self, key: &RevocationKey, now: Monotonic) -> Option<(Monotonic, Answer)> {
        self.answers.get(key).copied().filter(|(sent, _)| *sent <= now && now.since(*sent) < self.serves)
    }

    fn learn(&mut self, key: RevocationKey, (sent, answer): (Monotonic, Answer)) {
        if self.serves.is_zero() {
            return;
        }
        if let Some(known) = self.answers.get_mut(&key) {
            if known.0 < sent {
                *known = (sent, answer);
            }
            return;
        }
        // As many clients as there are tokens: sweeping for each of them would gain nothing.
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
mod tests {
    use super::*;
    use wire::Retention;

    const NEEDS: Retention = Retention { token: 600, login: 3600 };

    fn reply(answers: &[Answer]) -> Reply {
        Reply { keeps: NEEDS, answers: answers.to_vec() }
    }
    use authn::time::UnixSeconds;

    const MS: u64 = 1_000_000;

    fn query(name: u8) -> Arc<RevocationQuery> {
        let keys = vec![RevocationKey([name; 16]), RevocationKey([200; 16])];
        Arc::new(RevocationQuery::of(keys, 0, UnixSeconds(100), NEEDS, [name; 16]))
    }

    fn checks() -> Checks {
        Checks::new(10, Duration::from_millis(500), Duration::from_millis(100))
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * MS)
    }

    #[test]
    fn a_lone_miss_goes_at_once_and_later_ones_share_the_next_question() {
        let mut checks = checks();
        checks.join(1, query(1), at(0)).unwrap();
        let first = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!(first.keys.len(), 2);
        assert_eq!(checks.next_batch(Trigger::Waiters, at(0)), None);
        checks.join(2, query(2), at(1)).unwrap();
        let second = checks.next_batch(Trigger::Waiters, at(1)).unwrap();
        for waiter in 3..6 {
            checks.join(waiter, query(waiter as u8), at(2)).unwrap();
        }
        assert_eq!(checks.next_batch(Trigger::Waiters, at(2)), None, "two are under way");
        let resolved = checks.answered(first.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        assert_eq!(resolved[0].waiters, [1]);
        assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Live), at(0)));
        let third = checks.next_batch(Trigger::Waiters, at(3)).unwrap();
        assert_eq!((third.tokens, third.keys.len()), (3, 4), "the shared key is asked once");
        assert_eq!(checks.failed(second.id), [2]);
        assert_eq!(checks.waiting(), 3);
    }

    #[test]
    fn one_token_that_is_waited_for_twice_is_asked_once() {
        let mut checks = checks();
        checks.join(1, query(1), at(0)).unwrap();
        checks.join(2, query(1), at(0)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!(batch.tokens, 1);
        checks.join(3, query(1), at(1)).unwrap();
        assert_eq!(checks.next_batch(Trigger::Waiters, at(1)), None);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Dead, Answer::Live])).unwrap();
        assert_eq!((resolved[0].verdict, resolved[0].waiters.as_slice()), (Some(Verdict::Dead), [1, 2, 3].as_slice()));
        assert_eq!(checks.waiting(), 0);
    }

    #[test]
    fn what_is_anticipated_is_asked_once_and_whoever_comes_later_waits_for_it() {
        let mut checks = checks();
        checks.refresh(query(1));
        checks.anticipate(query(1));
        checks.anticipate(query(1));
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!((batch.tokens, checks.waiting()), (1, 0));
        checks.join(1, query(1), at(1)).unwrap();
        assert_eq!(checks.next_batch(Trigger::Waiters, at(1)), None);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        assert_eq!((resolved.len(), resolved[0].waiters.as_slice()), (1, [1].as_slice()));
        for name in 0..20 {
            checks.anticipate(query(name));
        }
        assert_eq!(checks.next_batch(Trigger::Waiters, at(2)).unwrap().tokens, 10, "no more than may wait");
    }

    #[test]
    fn what_is_to_be_refreshed_goes_along_with_others_or_with_a_tick() {
        let mut checks = checks();
        checks.refresh(query(1));
        checks.refresh(query(1));
        assert_eq!(checks.next_batch(Trigger::Waiters, at(0)), None);
        checks.join(7, query(2), at(0)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!(batch.tokens, 2);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live, Answer::Dead])).unwrap();
        let seen: Vec<_> =
            resolved.iter().map(|one| (one.query.digest[0], one.verdict, one.waiters.as_slice())).collect();
        assert_eq!(seen, [(2, Some(Verdict::Live), [7].as_slice()), (1, Some(Verdict::Dead), [].as_slice())]);
        checks.refresh(query(3));
        let batch = checks.next_batch(Trigger::Tick, at(1)).unwrap();
        assert_eq!(batch.tokens, 1);
        assert!(checks.failed(batch.id).is_empty());
        assert_eq!(checks.next_batch(Trigger::Tick, at(2)), None);
        assert!(checks.pending.is_empty());
    }

    #[test]
    fn who_comes_while_its_token_is_to_be_refreshed_does_not_wait_for_a_tick() {
        let mut checks = checks();
        checks.refresh(query(1));
        checks.join(7, query(1), at(0)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!(batch.tokens, 1);
        checks.join(8, query(1), at(1)).unwrap();
        assert_eq!(checks.next_batch(Trigger::Tick, at(1)), None, "it is under way");
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        assert_eq!(resolved[0].waiters, [7, 8]);
        // Who leaves takes the refresh along: nobody was there for it but them.
        checks.refresh(query(2));
        checks.join(9, query(2), at(2)).unwrap();
        checks.leave(9);
        assert_eq!(checks.next_batch(Trigger::Tick, at(2)), None);
        assert!(checks.pending.is_empty() && checks.queue.is_empty() && checks.refreshes.is_empty());
    }

    #[test]
    fn what_is_to_be_refreshed_is_bounded() {
        let mut checks = checks();
        (0..100).for_each(|name| checks.refresh(query(name)));
        assert_eq!((checks.refreshes.len(), checks.pending.len()), (10, 10));
        assert_eq!(checks.join(1, query(1), at(0)), Ok(()));
        assert_eq!(checks.next_batch(Trigger::Waiters, at(0)).unwrap().tokens, 10);
    }

    /// A question with one key of its own and one that it shares with every other.
    fn sharing(name: u8) -> Arc<RevocationQuery> {
        let keys = vec![RevocationKey([name; 16]), RevocationKey([200; 16])];
        Arc::new(RevocationQuery::of(keys, 1, UnixSeconds(100), NEEDS, [name; 16]))
    }

    #[test]
    fn what_many_tokens_share_is_not_asked_again_at_once_and_counts_from_its_own_question() {
        let mut checks = checks();
        checks.join(1, sharing(1), at(10)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(10)).unwrap();
        assert_eq!(batch.keys.len(), 2);
        checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        checks.join(2, sharing(2), at(109)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(109)).unwrap();
        assert_eq!(batch.keys, [RevocationKey([2; 16])]);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
        assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Live), at(10)));
        // Having served does not make it younger.
        checks.join(3, sharing(3), at(110)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(110)).unwrap();
        assert_eq!(batch.keys.len(), 2);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Before(101)])).unwrap();
        assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Dead), at(110)));
        // A death is served on as well.
        checks.join(4, sharing(4), at(120)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(120)).unwrap();
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
        assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Dead), at(110)));
    }

    #[test]
    fn an_older_answer_that_comes_late_does_not_replace_a_newer_one() {
        let mut checks = checks();
        checks.join(1, sharing(1), at(0)).unwrap();
        let older = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        checks.join(2, sharing(2), at(1)).unwrap();
        let newer = checks.next_batch(Trigger::Waiters, at(1)).unwrap();
        checks.answered(newer.id, &reply(&[Answer::Live, Answer::Dead])).unwrap();
        checks.answered(older.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        checks.join(3, sharing(3), at(2)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(2)).unwrap();
        assert_eq!(checks.answered(batch.id, &reply(&[Answer::Live])).unwrap()[0].verdict, Some(Verdict::Dead));
    }

    #[test]
    fn a_token_with_no_key_of_its_own_is_asked_about_whole_and_what_is_kept_is_bounded() {
        let mut checks = Checks::new(10, Duration::from_millis(500), Duration::from_millis(100));
        for number in 0..10_000u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(number / 2).to_le_bytes());
            let query = RevocationQuery::of(vec![RevocationKey(key)], 1, UnixSeconds(1), NEEDS, key);
            checks.join(1, Arc::new(query), at(number)).unwrap();
            let batch = checks.next_batch(Trigger::Waiters, at(number)).unwrap();
            assert_eq!(batch.keys, [RevocationKey(key)]);
            checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
            assert!(checks.recent.answers.len() <= MAX_RECENT);
        }
    }

    #[test]
    fn answers_that_do_not_fit_resolve_nobody() {
        let mut checks = checks();
        checks.join(1, query(1), at(0)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        assert_eq!(checks.answered(batch.id, &reply(&[Answer::Live])).unwrap_err(), [1]);
        assert!(checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap().is_empty());
    }

    #[test]
    fn nobody_hangs_when_the_request_that_caused_the_question_goes_away() {
        let mut checks = checks();
        checks.join(1, query(1), at(0)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        checks.join(2, query(1), at(1)).unwrap();
        checks.leave(1);
        let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
        assert_eq!(resolved[0].waiters, [2]);
    }

    #[test]
    fn a_waiter_is_refused_at_its_own_deadline_whatever_the_batch_does() {
        let mut checks = checks();
        checks.join(1, query(1), at(0)).unwrap();
        checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        checks.join(2, query(1), at(300)).unwrap();
        assert!(checks.expire(at(499)).is_empty());
        assert_eq!(checks.expire(at(500)), [1]);
        assert!(checks.expire(at(799)).is_empty());
        assert_eq!(checks.expire(at(800)), [2]);
        assert_eq!(checks.waiting(), 0);
    }

    #[test]
    fn a_question_that_is_never_answered_does_not_block_the_next_ones() {
        let mut checks = checks();
        for waiter in 1..=2 {
            checks.join(waiter, query(waiter as u8), at(0)).unwrap();
            checks.next_batch(Trigger::Waiters, at(0)).unwrap();
        }
        checks.join(3, query(3), at(900)).unwrap();
        assert_eq!(checks.next_batch(Trigger::Waiters, at(900)), None);
        assert_eq!(checks.expire(at(1001)), [1, 2]);
        assert_eq!(checks.next_batch(Trigger::Waiters, at(1001)).unwrap().tokens, 1);
    }

    #[test]
    fn what_waits_is_bounded_and_so_is_what_is_remembered_of_those_who_left() {
        let mut checks = checks();
        for waiter in 0..10 {
            checks.join(waiter, query(waiter as u8), at(0)).unwrap();
        }
        assert_eq!(checks.join(10, query(10), at(0)), Err(Full));
        for waiter in 0..10 {
            checks.leave(waiter);
        }
        for waiter in 10..100_000 {
            checks.join(waiter, query((waiter % 100) as u8), at(1)).unwrap();
            checks.leave(waiter);
        }
        assert_eq!(checks.waiting(), 0);
        assert!(checks.queue.len() <= 100 && checks.deadlines.len() <= 100 && checks.pending.is_empty());
    }

    #[test]
    fn a_batch_takes_no_more_keys_than_a_question_may_have() {
        let mut checks = Checks::new(10_000, Duration::from_millis(500), Duration::ZERO);
        for waiter in 0..1_000u64 {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&waiter.to_be_bytes());
            let query = RevocationQuery::of(vec![RevocationKey(digest)], 0, UnixSeconds(1), NEEDS, digest);
            checks.join(waiter, Arc::new(query), at(0)).unwrap();
        }
        assert_eq!(checks.next_batch(Trigger::Waiters, at(0)).unwrap().keys.len(), MAX_KEYS);
        assert_eq!(checks.next_batch(Trigger::Waiters, at(0)).unwrap().keys.len(), 1_000 - MAX_KEYS);
    }
}
