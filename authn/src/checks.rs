//! Which requests wait for which answers: misses that arrive while a question is under way wait, and go out together in
//! the next one. No host call, no clock: events in, what to do out, so that any history can be replayed in a test.
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use wire::{Answer, RevocationKey, check::MAX_KEYS};

use crate::revocation::{Ask, Verdict};
use crate::time::Monotonic;

/// A paused request, by its context id in the host.
pub type Waiter = u32;

/// Names one question while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flight(u64);

/// Questions under way at once: with a second one, a request that just missed the first does not wait a whole round
/// trip for its turn. More would only make batches smaller.
pub const MAX_FLIGHTS: usize = 2;

#[derive(Debug)]
pub struct Checks {
    limit: usize,
    timeout: Duration,
    next_flight: u64,
    queue: VecDeque<Pending>,
    flights: Vec<InFlight>,
    waiting: usize,
}

/// One token that is asked about, and all who wait for it.
#[derive(Debug)]
struct Pending {
    ask: Rc<Ask>,
    waiters: Vec<(Waiter, Monotonic)>,
}

#[derive(Debug)]
struct InFlight {
    flight: Flight,
    sent: Monotonic,
    keys: Vec<RevocationKey>,
    pending: Vec<Pending>,
}

/// No more requests may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A question to send now.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub flight: Flight,
    pub keys: Vec<RevocationKey>,
    pub tokens: usize,
}

/// What became of one token that was asked about.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub ask: Rc<Ask>,
    /// When its question was sent: from then its freshness counts.
    pub sent: Monotonic,
    pub verdict: Verdict,
    pub waiters: Vec<Waiter>,
}

impl Checks {
    /// At most `limit` requests wait, each at most `timeout`.
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self { limit, timeout, next_flight: 0, queue: VecDeque::new(), flights: Vec::new(), waiting: 0 }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// `waiter` waits for what `ask` asks.
    ///
    /// # Errors
    /// [`Full`], and the request must be refused.
    pub fn join(&mut self, waiter: Waiter, ask: Rc<Ask>, now: Monotonic) -> Result<(), Full> {
        if self.waiting >= self.limit {
            return Err(Full);
        }
        self.waiting = self.waiting.saturating_add(1);
        let entry = (waiter, now.plus(self.timeout));
        // A question that is already under way was sent before this request came, so its answer may be older than a
        // revocation that this request must see only if the answer were kept past its freshness, which counts from
        // the sending. So joining it is as good as a cache hit.
        let known = self.flights.iter_mut().flat_map(|flight| &mut flight.pending).chain(&mut self.queue);
        for pending in known {
            if pending.ask.digest == ask.digest {
                pending.waiters.push(entry);
                return Ok(());
            }
        }
        self.queue.push_back(Pending { ask, waiters: vec![entry] });
        Ok(())
    }

    /// The next question, if one may go out. Call it again until there is none.
    pub fn next_batch(&mut self, now: Monotonic) -> Option<Batch> {
        if self.flights.len() >= MAX_FLIGHTS || self.queue.is_empty() {
            return None;
        }
        let mut keys: Vec<RevocationKey> = Vec::new();
        let mut seen: HashMap<RevocationKey, ()> = HashMap::new();
        let mut pending: Vec<Pending> = Vec::new();
        while let Some(next) = self.queue.front() {
            let new = next.ask.keys.iter().filter(|key| !seen.contains_key(key)).count();
            if keys.len().saturating_add(new) > MAX_KEYS && !pending.is_empty() {
                break;
            }
            for key in &next.ask.keys {
                if seen.insert(*key, ()).is_none() {
                    keys.push(*key);
                }
            }
            pending.extend(self.queue.pop_front());
        }
        let flight = Flight(self.next_flight);
        self.next_flight = self.next_flight.wrapping_add(1);
        let batch = Batch { flight, keys: keys.clone(), tokens: pending.len() };
        self.flights.push(InFlight { flight, sent: now, keys, pending });
        Some(batch)
    }

    /// The answers to a question, one for each of its keys, in order. A count that does not fit resolves nothing
    /// and fails all, as [`Checks::failed`] does.
    ///
    /// # Errors
    /// Those who must be refused because the answers do not fit.
    pub fn answered(&mut self, flight: Flight, answers: &[Answer]) -> Result<Vec<Resolved>, Vec<Waiter>> {
        let Some(done) = self.take(flight) else { return Ok(Vec::new()) };
        if done.keys.len() != answers.len() {
            return Err(self.release(done.pending));
        }
        let by_key: HashMap<RevocationKey, Answer> = done.keys.iter().copied().zip(answers.iter().copied()).collect();
        let mut resolved = Vec::with_capacity(done.pending.len());
        let mut unanswered = Vec::new();
        for pending in done.pending {
            let answers: Option<Vec<Answer>> = pending.ask.keys.iter().map(|key| by_key.get(key).copied()).collect();
            let Some(answers) = answers else {
                unanswered.push(pending);
                continue;
            };
            self.waiting = self.waiting.saturating_sub(pending.waiters.len());
            resolved.push(Resolved {
                verdict: pending.ask.judge(answers),
                sent: done.sent,
                waiters: pending.waiters.into_iter().map(|(waiter, _)| waiter).collect(),
                ask: pending.ask,
            });
        }
        if !unanswered.is_empty() {
            return Err(self.release(unanswered));
        }
        Ok(resolved)
    }

    /// The question could not be sent, or its answer proves nothing. Those who waited for it must be refused.
    pub fn failed(&mut self, flight: Flight) -> Vec<Waiter> {
        match self.take(flight) {
            Some(done) => self.release(done.pending),
            None => Vec::new(),
        }
    }

    /// The request is gone, or was answered otherwise. The question it caused goes on: others may wait for it.
    pub fn leave(&mut self, waiter: Waiter) {
        let all = self.flights.iter_mut().flat_map(|flight| &mut flight.pending).chain(&mut self.queue);
        let mut gone = 0usize;
        for pending in all {
            let before = pending.waiters.len();
            pending.waiters.retain(|(one, _)| *one != waiter);
            gone = gone.saturating_add(before.saturating_sub(pending.waiters.len()));
        }
        self.queue.retain(|pending| !pending.waiters.is_empty());
        self.waiting = self.waiting.saturating_sub(gone);
    }

    /// Those whose time is over: they must be refused. A question under way that outlived its timeout is forgotten, so
    /// that a callback that never comes cannot hold the next batch for ever.
    pub fn expire(&mut self, now: Monotonic) -> Vec<Waiter> {
        let mut over = Vec::new();
        let all = self.flights.iter_mut().flat_map(|flight| &mut flight.pending).chain(&mut self.queue);
        for pending in all {
            pending.waiters.retain(|(waiter, deadline)| {
                let waits = *deadline > now;
                if !waits {
                    over.push(*waiter);
                }
                waits
            });
        }
        self.queue.retain(|pending| !pending.waiters.is_empty());
        self.waiting = self.waiting.saturating_sub(over.len());
        let patience = self.timeout.saturating_mul(2);
        let lost: Vec<Flight> = self
            .flights
            .iter()
            .filter(|flight| now.since(flight.sent) > patience)
            .map(|flight| flight.flight)
            .collect();
        for flight in lost {
            over.extend(self.failed(flight));
        }
        over
    }

    fn take(&mut self, flight: Flight) -> Option<InFlight> {
        let at = self.flights.iter().position(|one| one.flight == flight)?;
        Some(self.flights.swap_remove(at))
    }

    fn release(&mut self, pending: Vec<Pending>) -> Vec<Waiter> {
        let waiters: Vec<Waiter> =
            pending.into_iter().flat_map(|pending| pending.waiters).map(|(waiter, _)| waiter).collect();
        self.waiting = self.waiting.saturating_sub(waiters.len());
        waiters
    }
}
