//! Tokens that cannot be decided yet, kept until they can be: bounded in number, bytes and time. They are in memory and
//! nowhere else: what strangers send is not to fill Redis, where revocations live.
//!
//! Whoever sends may be anybody. When it is full, a token drawn by lot gives way, so a sender of many forged ones cannot
//! choose which: of all that came in the time that a decision takes, each has the same chance.
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::refused::{Failed, Refused};
use super::{Endpoint, Taken};

/// The longest that a token is kept. It must be young enough when it is carried out, too: what names it among those that were
/// used is kept no longer.
pub const KEPT_FOR: Duration = Duration::from_secs(300);
/// What a token takes beside its text.
const BESIDE: usize = 256;

/// Whoever waits for the outcome of a token.
pub type Waiter = oneshot::Sender<Result<Taken, Failed>>;

#[derive(Debug)]
pub struct Token {
    pub endpoint: Endpoint,
    pub text: String,
    pub arrived: Instant,
    /// In Unix seconds: what it ends is what was issued before.
    pub arrived_at: u64,
    /// With which keys it was judged, and how. With the same ones it would be the same again.
    pub judged: Option<(u64, Refused)>,
    pub waiter: Option<Waiter>,
}

#[derive(Debug)]
pub struct Kept {
    max_bytes: usize,
    /// With a key of its own, so that the order is known to nobody.
    lot: RandomState,
    tokens: BTreeMap<u64, Token>,
    bytes: usize,
    /// None of them came before.
    oldest: Option<Instant>,
}

impl Kept {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, lot: RandomState::new(), tokens: BTreeMap::new(), bytes: 0, oldest: None }
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Keeps `token`, and gives back those that gave way. One that is there already stays, with its time; who waits now is
    /// told of it.
    pub fn put(&mut self, token: Token) -> Vec<Token> {
        let place = self.lot.hash_one((token.endpoint.name(), &token.text));
        let size = size_of(&token);
        if size > self.max_bytes {
            return vec![token];
        }
        match self.tokens.get_mut(&place) {
            Some(there) => {
                if token.waiter.is_some() {
                    there.waiter = token.waiter;
                }
            }
            None => {
                self.bytes = self.bytes.saturating_add(size);
                self.oldest = Some(self.oldest.map_or(token.arrived, |oldest| oldest.min(token.arrived)));
                self.tokens.insert(place, token);
            }
        }
        let mut gone = Vec::new();
        while self.bytes > self.max_bytes {
            let Some((_, first)) = self.tokens.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(size_of(&first));
            gone.push(first);
        }
        gone
    }

    /// Takes all that came until `until`.
    pub fn take_until(&mut self, until: Instant) -> Vec<Token> {
        if self.oldest.is_none_or(|oldest| oldest > until) {
            return Vec::new();
        }
        let (taken, left) = std::mem::take(&mut self.tokens).into_iter().partition(|(_, token)| token.arrived <= until);
        let taken: BTreeMap<u64, Token> = taken;
        self.tokens = left;
        self.bytes = self.tokens.values().map(size_of).sum();
        self.oldest = self.tokens.values().map(|token| token.arrived).min();
        taken.into_values().collect()
    }

    /// Takes one, whichever.
    pub fn take_one(&mut self) -> Option<Token> {
        let (_, token) = self.tokens.pop_first()?;
        self.bytes = self.bytes.saturating_sub(size_of(&token));
        if self.tokens.is_empty() {
            self.oldest = None;
        }
        Some(token)
    }

    /// Takes those that were kept long enough.
    pub fn take_old(&mut self, now: Instant) -> Vec<Token> {
        now.checked_sub(KEPT_FOR).map_or_else(Vec::new, |until| self.take_until(until))
    }

    /// Nobody waits any longer; the tokens that came until `until` stay.
    pub fn waiters_until(&mut self, until: Instant) -> Vec<Waiter> {
        let of_then = self.tokens.values_mut().filter(|token| token.arrived <= until);
        of_then.filter_map(|token| token.waiter.take()).collect()
    }
}

fn size_of(token: &Token) -> usize {
    token.text.len().saturating_add(BESIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, arrived: Instant) -> Token {
        let endpoint = Endpoint::Logout;
        Token { endpoint, text: text.to_owned(), arrived, arrived_at: 0, judged: None, waiter: None }
    }

    fn texts(tokens: &[Token]) -> Vec<&str> {
        let mut texts: Vec<_> = tokens.iter().map(|token| token.text.as_str()).collect();
        texts.sort_unstable();
        texts
    }

    #[test]
    fn what_came_until_then_is_taken_and_the_rest_stays() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut kept = Kept::new(10_000);
        for (text, at) in [("a", 0), ("b", 1), ("c", 2), ("a", 3)] {
            assert!(kept.put(token(text, after(at))).is_empty());
        }
        assert_eq!(kept.len(), 3, "the same token is kept once");
        assert_eq!(texts(&kept.take_until(after(1))), ["a", "b"]);
        assert_eq!(kept.bytes, BESIDE + 1);
        assert!(kept.take_old(after(2) + KEPT_FOR - Duration::from_millis(1)).is_empty());
        assert_eq!(texts(&kept.take_old(after(2) + KEPT_FOR)), ["c"]);
        assert_eq!((kept.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn those_that_are_taken_one_by_one_leave_their_room() {
        let start = Instant::now();
        let mut kept = Kept::new(10_000);
        for text in ["a", "b"] {
            kept.put(token(text, start));
        }
        let taken: Vec<Token> = (0..2).filter_map(|_| kept.take_one()).collect();
        assert_eq!(texts(&taken), ["a", "b"]);
        assert!(kept.take_one().is_none());
        assert_eq!((kept.len(), kept.bytes, kept.oldest), (0, 0, None));
    }

    #[test]
    fn it_never_has_more_bytes_than_it_may_however_long_the_tokens_are() {
        let now = Instant::now();
        let mut kept = Kept::new(20_000);
        for n in 0..1000 {
            kept.put(token(&format!("{n}{}", "x".repeat(n * 17 % 16_000)), now));
            assert!(kept.bytes <= 20_000);
            assert_eq!(kept.bytes, kept.tokens.values().map(size_of).sum::<usize>());
        }
    }

    #[test]
    fn a_token_longer_than_all_the_room_is_not_kept() {
        let now = Instant::now();
        let mut kept = Kept::new(1_000);
        assert_eq!(texts(&kept.put(token(&"x".repeat(1_001), now))).len(), 1);
        assert!(kept.put(token("a", now)).is_empty());
        assert_eq!(texts(&kept.put(token(&"x".repeat(1_001), now))).len(), 1, "and nobody goes for it");
        assert_eq!(kept.len(), 1);
    }

    // An attacker who sends ten times what fits does not choose who goes.
    #[test]
    fn who_gives_way_is_drawn_by_lot() {
        let now = Instant::now();
        let (room, rounds) = (100, 400);
        let mut stayed = 0;
        for round in 0..rounds {
            let mut kept = Kept::new(room * (BESIDE + 8));
            let genuine = format!("g{round:07}");
            for n in 0..1000 {
                if n == round {
                    kept.put(token(&genuine, now));
                }
                kept.put(token(&format!("f{n:07}"), now));
            }
            assert_eq!(kept.len(), room);
            stayed += usize::from(kept.tokens.values().any(|token| token.text == genuine));
        }
        // Of a mean of 40, with a deviation of 6.
        assert!((10..80).contains(&stayed), "{stayed} of {rounds}");
    }
}
