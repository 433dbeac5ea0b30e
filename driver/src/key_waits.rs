//! The requests that wait for their issuers' keys: how many may, and which of them newer keys could help.
use std::collections::{HashMap, HashSet};

use authn::keys::source::KeySource;
use authn::time::Monotonic;

use crate::checks::Full;
use crate::host::StreamId;

/// Tokens with a signature that no key verifies get this part of the room: each of them costs all of the work once more
/// when a newer set comes, and anybody can make them.
const MISMATCH_SHARE: usize = 8;

#[derive(Debug)]
pub struct KeyWaits {
    limit: usize,
    waiting: HashMap<StreamId, KeyWait>,
    mismatches: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct KeyWait {
    pub issuer: usize,
    pub deadline: Monotonic,
    /// Which of the issuer's key sets in a row the token was judged by.
    pub generation: u32,
    /// Its signature matches no key.
    pub is_mismatch: bool,
}

impl KeyWait {
    /// Only another set than the one that it was judged by can change the judgement.
    pub fn is_judged_anew(&self, source: Option<&KeySource>) -> bool {
        source.is_none_or(|source| source.generation() != self.generation)
    }
}

impl KeyWaits {
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: HashMap::new(), mismatches: 0 }
    }

    /// # Errors
    /// [`Full`], and the request must be refused.
    pub fn join(&mut self, waiter: StreamId, wait: KeyWait) -> Result<(), Full> {
        let mismatches_allowed = self.limit.div_ceil(MISMATCH_SHARE);
        if self.waiting.len() >= self.limit || (wait.is_mismatch && self.mismatches >= mismatches_allowed) {
            return Err(Full);
        }
        self.leave(waiter);
        self.mismatches = self.mismatches.saturating_add(usize::from(wait.is_mismatch));
        self.waiting.insert(waiter, wait);
        Ok(())
    }

    /// It waits no longer.
    pub fn leave(&mut self, waiter: StreamId) -> Option<KeyWait> {
        let left = self.waiting.remove(&waiter)?;
        self.mismatches = self.mismatches.saturating_sub(usize::from(left.is_mismatch));
        Some(left)
    }

    #[cfg(test)]
    pub fn is_waiting(&self, waiter: StreamId) -> bool {
        self.waiting.contains_key(&waiter)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All who wait for this issuer's keys.
    pub fn of(&self, issuer: usize) -> Vec<StreamId> {
        self.those(|wait| wait.issuer == issuer)
    }

    pub fn overdue(&self, now: Monotonic) -> Vec<StreamId> {
        self.those(|wait| wait.deadline <= now)
    }

    /// The issuers that somebody waits for.
    pub fn issuers(&self) -> HashSet<usize> {
        self.waiting.values().map(|wait| wait.issuer).collect()
    }

    fn those(&self, is_meant: impl Fn(&KeyWait) -> bool) -> Vec<StreamId> {
        self.waiting.iter().filter(|(_, wait)| is_meant(wait)).map(|(waiter, _)| *waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(issuer: usize, is_mismatch: bool) -> KeyWait {
        KeyWait { issuer, deadline: Monotonic(10), generation: 1, is_mismatch }
    }

    #[test]
    fn forged_signatures_leave_room_for_unknown_key_ids() {
        let mut waits = KeyWaits::new(16);
        let join = |waits: &mut KeyWaits, waiter: StreamId, is_mismatch: bool| {
            waits.join(waiter, wait(0, is_mismatch)).is_ok()
        };
        assert!(join(&mut waits, 1, true) && join(&mut waits, 2, true));
        assert!(!join(&mut waits, 3, true), "an eighth");
        for waiter in 3..17 {
            assert!(join(&mut waits, waiter, false), "{waiter}");
        }
        assert!(!join(&mut waits, 17, false) && waits.len() == 16);
        // What leaves makes room, of its own kind, and only once.
        assert!(waits.leave(3).is_some() && waits.leave(3).is_none());
        assert!(!join(&mut waits, 18, true));
        assert!(waits.leave(1).is_some() && join(&mut waits, 18, true));
        assert!(!join(&mut waits, 19, true) && !waits.is_waiting(19) && waits.is_waiting(18));
        assert!(KeyWaits::new(1).join(1, wait(0, true)).is_ok(), "never none at all");
    }

    #[test]
    fn each_issuer_wakes_its_own_and_late_ones_are_overdue() {
        let mut waits = KeyWaits::new(8);
        for (waiter, issuer) in [(1, 0), (2, 1)] {
            waits.join(waiter, wait(issuer, false)).unwrap();
        }
        assert_eq!((waits.of(0), waits.of(1), waits.of(2)), (vec![1], vec![2], vec![]));
        assert_eq!(waits.issuers(), HashSet::from([0, 1]));
        assert!(waits.overdue(Monotonic(9)).is_empty() && waits.overdue(Monotonic(10)).len() == 2);
    }
}
