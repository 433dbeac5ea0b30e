//! Tokens that cannot be decided yet, held until they can be: bounded in number, bytes and time. They are in memory only, so
//! that strangers cannot fill the store.
//!
//! Anybody can send tokens. When the room is full, a token is dropped at random, so a sender of many forged ones cannot
//! choose which: all tokens that arrived within the time of a decision have the same chance.
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{EventError, RejectReason};
use super::{Endpoint, Outcome};

/// The longest that a token is held. It must also be young enough when it is carried out: its replay mark is kept no longer.
pub const MAX_PENDING: Duration = Duration::from_secs(300);
/// The memory that a token takes beside its text, in bytes.
const OVERHEAD: usize = 256;

/// To the request that waits for the outcome of a token.
pub type Waiter = oneshot::Sender<Result<Outcome, EventError>>;

#[derive(Debug)]
pub struct PendingToken {
    pub endpoint: Endpoint,
    pub text: String,
    /// What came with it: the body of a revocation request.
    pub body: Option<String>,
    pub arrived: Instant,
    /// In Unix seconds. It ends what was issued before.
    pub arrived_at: u64,
    /// The generation of keys that it was judged with, and the result. The same keys would give the same result.
    pub judged: Option<(u64, RejectReason)>,
    pub waiter: Option<Waiter>,
}

#[derive(Debug)]
pub struct PendingTokens {
    max_bytes: usize,
    /// Hashes under a random key, so that the order cannot be predicted.
    order: RandomState,
    tokens: BTreeMap<u64, PendingToken>,
    bytes: usize,
    /// No token arrived before.
    oldest: Option<Instant>,
}

impl PendingTokens {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, order: RandomState::new(), tokens: BTreeMap::new(), bytes: 0, oldest: None }
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Holds `token`, and returns those that were dropped for it. One that is there already stays, with its time, and the
    /// request that waits now gets its outcome.
    pub fn put(&mut self, token: PendingToken) -> Vec<PendingToken> {
        let index = self.order.hash_one((token.endpoint.name(), &token.text, &token.body));
        let size = size_of(&token);
        if size > self.max_bytes {
            return vec![token];
        }
        match self.tokens.get_mut(&index) {
            Some(there) => {
                if token.waiter.is_some() {
                    there.waiter = token.waiter;
                }
            }
            None => {
                self.bytes = self.bytes.saturating_add(size);
                self.oldest = Some(self.oldest.map_or(token.arrived, |oldest| oldest.min(token.arrived)));
                self.tokens.insert(index, token);
            }
        }
        self.shrink()
    }

    /// Returns what was dropped for the new limit.
    pub fn set_max_bytes(&mut self, max_bytes: usize) -> Vec<PendingToken> {
        self.max_bytes = max_bytes;
        self.shrink()
    }

    fn shrink(&mut self) -> Vec<PendingToken> {
        let mut gone = Vec::new();
        while self.bytes > self.max_bytes {
            let Some((_, first)) = self.tokens.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(size_of(&first));
            gone.push(first);
        }
        gone
    }

    /// Takes all that arrived until `until`.
    pub fn take_until(&mut self, until: Instant) -> Vec<PendingToken> {
        if self.oldest.is_none_or(|oldest| oldest > until) {
            return Vec::new();
        }
        let (taken, left) = std::mem::take(&mut self.tokens).into_iter().partition(|(_, token)| token.arrived <= until);
        let taken: BTreeMap<u64, PendingToken> = taken;
        self.tokens = left;
        self.bytes = self.tokens.values().map(size_of).sum();
        self.oldest = self.tokens.values().map(|token| token.arrived).min();
        taken.into_values().collect()
    }

    pub fn take_all(&mut self) -> Vec<PendingToken> {
        (self.bytes, self.oldest) = (0, None);
        std::mem::take(&mut self.tokens).into_values().collect()
    }

    /// Takes any one.
    pub fn take_one(&mut self) -> Option<PendingToken> {
        let (_, token) = self.tokens.pop_first()?;
        self.bytes = self.bytes.saturating_sub(size_of(&token));
        if self.tokens.is_empty() {
            self.oldest = None;
        }
        Some(token)
    }

    /// Takes those that were held for [`MAX_PENDING`].
    pub fn take_old(&mut self, now: Instant) -> Vec<PendingToken> {
        now.checked_sub(MAX_PENDING).map_or_else(Vec::new, |until| self.take_until(until))
    }

    /// Takes the waiters of the tokens that arrived until `until`. The tokens stay.
    pub fn waiters_until(&mut self, until: Instant) -> Vec<Waiter> {
        let of_then = self.tokens.values_mut().filter(|token| token.arrived <= until);
        of_then.filter_map(|token| token.waiter.take()).collect()
    }
}

fn size_of(token: &PendingToken) -> usize {
    let body = token.body.as_ref().map_or(0, String::len);
    token.text.len().saturating_add(body).saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests;
