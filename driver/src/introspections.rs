//! The bookkeeping of introspection requests, for one server, and the cache of refused tokens. No host call, no clock:
//! events in, actions out, as in `checks`.
//!
//! RFC 7662 asks about one token at a time, so a flood of made-up tokens causes a flood of requests. Tokens that were
//! active before have a reserved share of requests and waiting slots.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::deadlines::Deadlines;
use crate::host::StreamId;
use authn::reject::Rejection;
use authn::time::Monotonic;

/// Requests to one server in flight at once.
pub const MAX_IN_FLIGHT: usize = 64;
/// How many of them may be about tokens that were never seen active.
pub const MAX_UNKNOWN_IN_FLIGHT: usize = 48;

/// Identifies a batch while it is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(u64);

/// Has this VM seen the token active before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHistory {
    WasActive,
    Unknown,
}

/// The requests to one server.
#[derive(Debug)]
pub struct Introspections {
    limit: usize,
    timeout: Duration,
    next_id: u64,
    /// All requests in flight or queued, by token: two requests with one token share an introspection request.
    pending: HashMap<Arc<[u8]>, Pending>,
    /// Those of `pending` that are not in flight. May contain entries that are gone.
    were_active: Vec<Arc<[u8]>>,
    unknown: Vec<Arc<[u8]>>,
    in_flight: HashMap<QueryId, CalloutInFlight>,
    unknown_in_flight: usize,
    waiters: HashMap<StreamId, Waiting>,
    unknown_waiters: usize,
    deadlines: Deadlines,
}

#[derive(Debug)]
struct Pending {
    history: TokenHistory,
    waiters: Vec<StreamId>,
    is_under_way: bool,
}

#[derive(Debug)]
struct Waiting {
    token: Arc<[u8]>,
    history: TokenHistory,
}

#[derive(Debug)]
struct CalloutInFlight {
    token: Arc<[u8]>,
    history: TokenHistory,
    sent: Monotonic,
}

/// No more requests may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A request that has ended, successfully or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    pub token: Arc<[u8]>,
    /// When it was sent: an answer's freshness counts from then.
    pub sent: Monotonic,
    pub waiters: Vec<StreamId>,
}

impl Introspections {
    /// At most `limit` requests wait, each at most `timeout`.
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self {
            limit,
            timeout,
            next_id: 0,
            pending: HashMap::new(),
            were_active: Vec::new(),
            unknown: Vec::new(),
            in_flight: HashMap::new(),
            unknown_in_flight: 0,
            waiters: HashMap::new(),
            unknown_waiters: 0,
            deadlines: Deadlines::default(),
        }
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// `waiter` waits for the server's answer about `token`.
    ///
    /// # Errors
    /// [`Full`]: the request must be refused. Tokens that were never active may use at most three quarters.
    pub fn join(&mut self, waiter: StreamId, token: &[u8], history: TokenHistory, now: Monotonic) -> Result<(), Full> {
        let most_unknown = self.limit.saturating_sub(self.limit.div_ceil(4)).max(1);
        if self.waiters.len() >= self.limit
            || (history == TokenHistory::Unknown && self.unknown_waiters >= most_unknown)
        {
            return Err(Full);
        }
        let token: Arc<[u8]> = match self.pending.get_key_value(token) {
            Some((token, _)) => Arc::clone(token),
            None => token.into(),
        };
        match self.pending.get_mut(&token) {
            Some(pending) => pending.waiters.push(waiter),
            None => {
                let pending = Pending { history, waiters: vec![waiter], is_under_way: false };
                self.pending.insert(Arc::clone(&token), pending);
                self.queue(history).push(Arc::clone(&token));
            }
        }
        if history == TokenHistory::Unknown {
            self.unknown_waiters = self.unknown_waiters.saturating_add(1);
        }
        self.waiters.insert(waiter, Waiting { token, history });
        self.deadlines.push(now.plus(self.timeout), waiter);
        Ok(())
    }

    /// The next request, if one may be sent. Call this until it returns none.
    ///
    /// The newest goes first (LIFO): under overload the oldest are close to their deadline, and serving them first
    /// would make all of them miss it.
    pub fn next_query(&mut self, now: Monotonic) -> Option<(QueryId, Arc<[u8]>)> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let token = match self.take_queued(TokenHistory::WasActive) {
            Some(token) => token,
            None if self.unknown_in_flight < MAX_UNKNOWN_IN_FLIGHT => self.take_queued(TokenHistory::Unknown)?,
            None => return None,
        };
        let pending = self.pending.get_mut(&token)?;
        pending.is_under_way = true;
        let history = pending.history;
        if history == TokenHistory::Unknown {
            self.unknown_in_flight = self.unknown_in_flight.saturating_add(1);
        }
        let query = QueryId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.in_flight.insert(query, CalloutInFlight { token: Arc::clone(&token), history, sent: now });
        Some((query, token))
    }

    /// The request has its answer, or will never have one. `None` if it was abandoned before.
    pub fn over(&mut self, query: QueryId) -> Option<Over> {
        let CalloutInFlight { token, history, sent } = self.in_flight.remove(&query)?;
        if history == TokenHistory::Unknown {
            self.unknown_in_flight = self.unknown_in_flight.saturating_sub(1);
        }
        let waiters = self.pending.remove(&token).map_or_else(Vec::new, |pending| pending.waiters);
        for waiter in &waiters {
            self.forget_waiter(*waiter);
        }
        Some(Over { token, sent, waiters })
    }

    /// The request is gone, or was answered in another way. A batch in flight continues: its answer is worth caching.
    pub fn leave(&mut self, waiter: StreamId) {
        let Some(token) = self.forget_waiter(waiter) else { return };
        let Some(pending) = self.pending.get_mut(&token) else { return };
        pending.waiters.retain(|one| *one != waiter);
        if pending.waiters.is_empty() && !pending.is_under_way {
            self.pending.remove(&token);
        }
        self.forget_the_gone();
    }

    /// The requests whose deadline has passed: they must be refused. A request that exceeded its timeout is abandoned,
    /// so that a missing callback cannot occupy a place forever.
    pub fn expire(&mut self, now: Monotonic) -> Vec<StreamId> {
        let mut late = Vec::new();
        while let Some(waiter) = self.deadlines.pop_due(now) {
            if self.waiters.contains_key(&waiter) {
                self.leave(waiter);
                late.push(waiter);
            }
        }
        let patience = self.timeout.saturating_mul(2);
        let is_lost = |query: &CalloutInFlight| now.since(query.sent) > patience;
        let lost: Vec<QueryId> =
            self.in_flight.iter().filter(|(_, query)| is_lost(query)).map(|(query, _)| *query).collect();
        for query in lost {
            late.extend(self.over(query).into_iter().flat_map(|over| over.waiters));
        }
        late
    }

    fn queue(&mut self, history: TokenHistory) -> &mut Vec<Arc<[u8]>> {
        match history {
            TokenHistory::WasActive => &mut self.were_active,
            TokenHistory::Unknown => &mut self.unknown,
        }
    }

    fn take_queued(&mut self, history: TokenHistory) -> Option<Arc<[u8]>> {
        while let Some(token) = self.queue(history).pop() {
            if self.pending.get(&token).is_some_and(|pending| !pending.is_under_way) {
                return Some(token);
            }
        }
        None
    }

    fn forget_waiter(&mut self, waiter: StreamId) -> Option<Arc<[u8]>> {
        let Waiting { token, history } = self.waiters.remove(&waiter)?;
        if history == TokenHistory::Unknown {
            self.unknown_waiters = self.unknown_waiters.saturating_sub(1);
        }
        Some(token)
    }

    /// Requests that come and go without answers must not accumulate in the queues.
    fn forget_the_gone(&mut self) {
        let most = self.limit.saturating_mul(2).saturating_add(64);
        self.deadlines.shrink(most, |waiter| self.waiters.contains_key(&waiter));
        let (pending, waits) = (&self.pending, |pending: &Pending| !pending.is_under_way);
        for queue in [&mut self.were_active, &mut self.unknown] {
            if queue.len() > most {
                queue.retain(|token| pending.get(token).is_some_and(waits));
                // A request that left and came back is there twice.
                let mut seen = std::collections::HashSet::new();
                queue.retain(|token| seen.insert(Arc::clone(token)));
            }
        }
    }
}

/// Recently refused tokens, and why. A fixed number of slots, separate from valid tokens: a flood of invalid ones never
/// displaces a valid one.
#[derive(Debug)]
pub struct Refusals {
    slots: Vec<Option<Refusal>>,
    seed: u64,
}

#[derive(Debug)]
struct Refusal {
    /// Of seed, issuer and the whole token.
    digest: [u8; 32],
    sent: Monotonic,
    rejection: Rejection,
}

/// Refusals that one VM caches.
pub const MAX_REFUSALS: usize = 1024;

impl Refusals {
    /// `seed` is random, so that an attacker cannot choose tokens that displace each other.
    pub fn new(seed: u64) -> Self {
        Self { slots: Vec::new(), seed }
    }

    /// Why the token was refused, and when the request was sent.
    pub fn find(&self, issuer: usize, token: &[u8]) -> Option<(Monotonic, &Rejection)> {
        if self.slots.is_empty() {
            return None;
        }
        let (digest, index) = self.index(issuer, token);
        let refused = self.slots.get(index)?.as_ref().filter(|refused| refused.digest == digest)?;
        Some((refused.sent, &refused.rejection))
    }

    pub fn remember(&mut self, issuer: usize, token: &[u8], sent: Monotonic, rejection: Rejection) {
        if self.slots.is_empty() {
            self.slots.resize_with(MAX_REFUSALS, || None);
        }
        let (digest, index) = self.index(issuer, token);
        if let Some(index) = self.slots.get_mut(index) {
            *index = Some(Refusal { digest, sent, rejection });
        }
    }

    fn index(&self, issuer: usize, token: &[u8]) -> ([u8; 32], usize) {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(u64::try_from(issuer).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(token);
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, ..] = digest;
        (digest, usize::from(u16::from_be_bytes([a, b])) & (MAX_REFUSALS.wrapping_sub(1)))
    }
}

#[cfg(test)]
mod tests;
