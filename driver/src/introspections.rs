//! Which requests wait for which introspection, one server at a time, and which tokens were refused a moment ago. No host
//! call, no clock: events in, what to do out, as in `checks`.
//!
//! RFC 7662 asks about one token at a time, so a flood of made-up tokens is a flood of questions. Tokens that were active
//! before have a share of the questions and of the waiting room that no other token can take.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::host::StreamId;
use authn::reject::Rejection;
use authn::time::Monotonic;

/// Questions to one server under way at once.
pub const MAX_IN_FLIGHT: usize = 64;
/// How many of them may be about tokens that were never seen to be active.
pub const MAX_UNKNOWN_IN_FLIGHT: usize = 48;

/// Names one question while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(u64);

/// Was the token seen to be active before, by this virtual machine?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHistory {
    WasActive,
    Unknown,
}

/// The questions to one server.
#[derive(Debug)]
pub struct Introspections {
    limit: usize,
    timeout: Duration,
    next_id: u64,
    /// All that is asked or to be asked, by the token: one that is waited for twice is asked about once.
    pending: HashMap<Arc<[u8]>, Pending>,
    /// Those of `pending` that no question under way is about. May name some that are gone.
    were_active: Vec<Arc<[u8]>>,
    unknown: Vec<Arc<[u8]>>,
    in_flight: HashMap<QueryId, CalloutInFlight>,
    unknown_in_flight: usize,
    waiters: HashMap<StreamId, Waiting>,
    unknown_waiters: usize,
    /// In the order of their deadlines, since every request waits equally long. May name some that are gone.
    deadlines: VecDeque<(Monotonic, StreamId)>,
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

/// A question that is over, well or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    pub token: Arc<[u8]>,
    /// When it was sent: from then an answer's freshness counts.
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
            deadlines: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// `waiter` waits for what the server says of `token`.
    ///
    /// # Errors
    /// [`Full`], and the request must be refused. Tokens that were never active fill three quarters at the most.
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
        self.deadlines.push_back((now.plus(self.timeout), waiter));
        Ok(())
    }

    /// The next question, if one may go out. Call it again until there is none.
    ///
    /// The newest goes first: when more is asked than the server can answer, the oldest are those whose time is nearly
    /// over, and to serve them first would be to serve nobody in time.
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

    /// The question has its answer, or will never have one. `None` if it was given up before.
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

    /// The request is gone, or was answered otherwise. A question under way goes on: its answer is worth keeping.
    pub fn leave(&mut self, waiter: StreamId) {
        let Some(token) = self.forget_waiter(waiter) else { return };
        let Some(pending) = self.pending.get_mut(&token) else { return };
        pending.waiters.retain(|one| *one != waiter);
        if pending.waiters.is_empty() && !pending.is_under_way {
            self.pending.remove(&token);
        }
        self.forget_the_gone();
    }

    /// Those whose time is over: they must be refused. A question that outlived its timeout is given up, so that a
    /// callback that never comes cannot hold a place for ever.
    pub fn expire(&mut self, now: Monotonic) -> Vec<StreamId> {
        let mut late = Vec::new();
        while let Some((deadline, waiter)) = self.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
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

    /// Requests that come and go while nothing is answered must not pile up in the queues.
    fn forget_the_gone(&mut self) {
        let most = self.limit.saturating_mul(2).saturating_add(64);
        if self.deadlines.len() > most {
            self.deadlines.retain(|(_, waiter)| self.waiters.contains_key(waiter));
        }
        let (pending, waits) = (&self.pending, |pending: &Pending| !pending.is_under_way);
        for queue in [&mut self.were_active, &mut self.unknown] {
            if queue.len() > most {
                queue.retain(|token| pending.get(token).is_some_and(waits));
                // One that left and came back is there twice.
                let mut seen = std::collections::HashSet::new();
                queue.retain(|token| seen.insert(Arc::clone(token)));
            }
        }
    }
}

/// Tokens that were refused a moment ago, and why. A fixed number of places, apart from the tokens that are good: no flood
/// of bad ones pushes out a good one.
#[derive(Debug)]
pub struct Refusals {
    places: Vec<Option<Refusal>>,
    seed: u64,
}

#[derive(Debug)]
struct Refusal {
    /// Of seed, issuer and the whole token.
    digest: [u8; 32],
    sent: Monotonic,
    rejection: Rejection,
}

/// Refusals that one virtual machine remembers.
pub const MAX_REFUSALS: usize = 1024;

impl Refusals {
    /// `seed` is random, so that nobody can choose tokens that push each other out.
    pub fn new(seed: u64) -> Self {
        Self { places: Vec::new(), seed }
    }

    /// Why the token was refused, and when that was asked.
    pub fn find(&self, issuer: usize, token: &[u8]) -> Option<(Monotonic, &Rejection)> {
        if self.places.is_empty() {
            return None;
        }
        let (digest, index) = self.index(issuer, token);
        let refused = self.places.get(index)?.as_ref().filter(|refused| refused.digest == digest)?;
        Some((refused.sent, &refused.rejection))
    }

    pub fn remember(&mut self, issuer: usize, token: &[u8], sent: Monotonic, rejection: Rejection) {
        if self.places.is_empty() {
            self.places.resize_with(MAX_REFUSALS, || None);
        }
        let (digest, index) = self.index(issuer, token);
        if let Some(index) = self.places.get_mut(index) {
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
mod tests {
    use super::TokenHistory::{Unknown, WasActive};
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * MS)
    }

    fn questions() -> Introspections {
        Introspections::new(100, Duration::from_millis(500))
    }

    fn name(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    #[test]
    fn one_token_that_is_waited_for_twice_is_asked_about_once() {
        let mut questions = questions();
        questions.join(1, b"token", Unknown, at(0)).unwrap();
        let (query, token) = questions.next_query(at(0)).unwrap();
        assert_eq!(&*token, b"token");
        questions.join(2, b"token", Unknown, at(1)).unwrap();
        assert_eq!(questions.next_query(at(1)), None);
        let over = questions.over(query).unwrap();
        assert_eq!((&*over.token, over.sent, over.waiters), (b"token".as_slice(), at(0), vec![1, 2]));
        assert_eq!(questions.over(query), None, "an answer counts once");
        assert_eq!((questions.waiting(), questions.unknown_waiters, questions.unknown_in_flight), (0, 0, 0));
        questions.join(3, b"token", Unknown, at(2)).unwrap();
        assert!(questions.next_query(at(2)).is_some(), "and is asked about again");
    }

    #[test]
    fn a_flood_of_unknown_tokens_leaves_room_for_those_that_were_active() {
        let mut questions = questions();
        let joined = (0..200).filter(|&waiter| questions.join(waiter, &name(waiter), Unknown, at(0)).is_ok()).count();
        assert_eq!(joined, 75, "three quarters of the waiting room");
        let sent = std::iter::from_fn(|| questions.next_query(at(0))).count();
        assert_eq!(sent, MAX_UNKNOWN_IN_FLIGHT);
        for waiter in 1000..1025 {
            questions.join(waiter, &name(waiter), WasActive, at(1)).unwrap();
        }
        assert_eq!(questions.join(1025, b"one more", WasActive, at(1)), Err(Full));
        let mut asked = Vec::new();
        while let Some((query, token)) = questions.next_query(at(1)) {
            assert!(name(1000) <= *token.first_chunk::<8>().unwrap(), "only those that were active");
            asked.push(query);
        }
        assert_eq!(asked.len(), MAX_IN_FLIGHT - MAX_UNKNOWN_IN_FLIGHT);
        // A place that becomes free goes to one that was active, before all that came earlier.
        questions.over(asked[0]).unwrap();
        assert!(name(1000) <= *questions.next_query(at(2)).unwrap().1.first_chunk::<8>().unwrap());
    }

    #[test]
    fn the_newest_of_those_that_queue_is_asked_about_first() {
        let mut questions = questions();
        let in_flight: Vec<QueryId> = (0..60)
            .filter_map(|waiter| {
                questions.join(waiter, &name(waiter), Unknown, at(0)).unwrap();
                questions.next_query(at(0)).map(|(query, _)| query)
            })
            .collect();
        assert_eq!(in_flight.len(), MAX_UNKNOWN_IN_FLIGHT);
        questions.over(in_flight[0]).unwrap();
        assert_eq!(*questions.next_query(at(1)).unwrap().1, name(59));
    }

    #[test]
    fn each_waiter_keeps_its_own_deadline() {
        let mut questions = questions();
        questions.join(1, b"token", Unknown, at(0)).unwrap();
        let (query, _) = questions.next_query(at(0)).unwrap();
        questions.join(2, b"token", Unknown, at(300)).unwrap();
        assert!(questions.expire(at(499)).is_empty());
        assert_eq!(questions.expire(at(500)), [1]);
        assert_eq!(questions.over(query).unwrap().waiters, [2]);
        assert!(questions.expire(at(5000)).is_empty());
    }

    #[test]
    fn a_question_that_is_never_answered_gives_its_place_back() {
        let mut questions = questions();
        questions.join(1, b"a", Unknown, at(0)).unwrap();
        let (query, _) = questions.next_query(at(0)).unwrap();
        questions.join(2, b"a", Unknown, at(900)).unwrap();
        assert_eq!(questions.expire(at(1001)), [1, 2]);
        assert_eq!((questions.in_flight.len(), questions.unknown_in_flight), (0, 0));
        assert_eq!(questions.over(query), None, "its late answer counts for nothing");
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_asked() {
        let mut questions = questions();
        questions.join(1, b"a", Unknown, at(0)).unwrap();
        questions.leave(1);
        assert_eq!(questions.next_query(at(0)), None);
        assert!(questions.pending.is_empty() && questions.unknown.is_empty());
    }

    #[test]
    fn what_comes_and_goes_does_not_pile_up() {
        let mut questions = Introspections::new(10, Duration::from_millis(500));
        for waiter in 0..MAX_UNKNOWN_IN_FLIGHT as u64 {
            questions.join(waiter, &name(waiter), Unknown, at(0)).unwrap();
            questions.next_query(at(0)).unwrap();
            questions.leave(waiter);
        }
        for waiter in 100..100_000 {
            questions.join(waiter, &name(waiter % 7 + 1000), Unknown, at(1)).unwrap();
            questions.leave(waiter);
        }
        assert!(questions.deadlines.len() <= 90 && questions.unknown.len() <= 90);
        assert_eq!((questions.waiting(), questions.unknown_waiters), (0, 0));
    }

    #[test]
    fn refusals_are_of_one_issuer_and_the_exact_token_and_never_more_than_their_places() {
        let mut refusals = Refusals::new(7);
        assert!(refusals.find(0, b"token").is_none());
        let rejection = Rejection::new(authn::reject::Cause::NotActive);
        refusals.remember(0, b"token", at(3), rejection.clone());
        assert_eq!(refusals.find(0, b"token"), Some((at(3), &rejection)));
        assert!(refusals.find(1, b"token").is_none() && refusals.find(0, b"tokem").is_none());
        for number in 0..100_000 {
            refusals.remember(0, &name(number), at(4), rejection.clone());
        }
        assert_eq!(refusals.places.len(), MAX_REFUSALS);
    }
}
