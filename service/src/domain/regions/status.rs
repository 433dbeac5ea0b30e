//! What is known of one followed region: as of when it is merged here, and whether it is cut off.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::SecretId;

/// What was proven in the last seconds is remembered at such intervals, and so often.
const STEP: Duration = Duration::from_millis(100);
const REMEMBERED: usize = 64;

/// A region is cut off when nothing of it was complete for so long.
pub const CUT_OFF: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Status {
    /// When this instance began to follow.
    began: Instant,
    /// Everything that was acknowledged there before this is here. `None`: it was never all here.
    complete: Option<Instant>,
    /// When it was so, and the moment, for those who read our store a while ago.
    proofs: VecDeque<(Instant, Instant)>,
    /// Of our store, when that was so.
    epoch: Option<u64>,
    /// The secrets that its revocations are written under, if they end what ours would. Otherwise none.
    secrets: Vec<SecretId>,
    /// Another region is found at the same store.
    is_other: bool,
    /// Whether it was told that the region is cut off.
    said: bool,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    CutOff,
    Back,
}

impl Status {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            complete: None,
            proofs: VecDeque::new(),
            epoch: None,
            secrets: Vec::new(),
            is_other: false,
            said: false,
        }
    }

    pub fn complete(&self) -> Option<Instant> {
        self.complete
    }

    /// What the last reply says of the region.
    pub fn learn(&mut self, secrets: Vec<SecretId>, is_other: bool) {
        (self.secrets, self.is_other) = (secrets, is_other);
    }

    /// As of when all of it was here, under this secret, for somebody who began to read our store at `read`, if our store has
    /// this epoch now.
    pub fn proven(&self, secret: SecretId, epoch: u64, read: Instant) -> Option<Instant> {
        if self.epoch != Some(epoch) || !self.secrets.contains(&secret) {
            return None;
        }
        self.proofs.iter().rev().find(|(told, _)| *told <= read).map(|(_, moment)| *moment)
    }

    pub fn completed(&mut self, moment: Instant, epoch: Option<u64>, now: Instant) {
        if self.is_other {
            return;
        }
        self.epoch = epoch;
        let moment = self.complete.map_or(moment, |complete| complete.max(moment));
        // The last two at least: one of them is older than the interval, or it is the first.
        if self.proofs.len() >= 2
            && self.proofs.iter().rev().nth(1).is_some_and(|(told, _)| now.saturating_duration_since(*told) < STEP)
        {
            self.proofs.pop_back();
        }
        if self.proofs.len() >= REMEMBERED {
            self.proofs.pop_front();
        }
        self.proofs.push_back((now, moment));
        // Another instance of the region may be behind. What is here stays here.
        self.complete = Some(moment);
    }

    /// It is not known any more that everything is here: our own store may have lost some of it.
    pub fn doubt(&mut self, now: Instant) {
        (self.began, self.complete) = (now, None);
        self.proofs.clear();
    }

    pub fn is_cut_off(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.complete.unwrap_or(self.began)) > CUT_OFF
    }

    /// At most once for each change.
    pub fn turn(&mut self, now: Instant) -> Option<Turn> {
        let is_cut_off = self.is_cut_off(now);
        if is_cut_off == self.said || (self.said && self.complete.is_none()) {
            return None;
        }
        self.said = is_cut_off;
        Some(if is_cut_off { Turn::CutOff } else { Turn::Back })
    }
}

/// Which store each region has, as of its last reply.
#[derive(Debug, Default)]
pub struct StoresSeen(Mutex<BTreeMap<String, [u8; 16]>>);

impl StoresSeen {
    /// Whether another region has the same one: a URL leads to the wrong region, or somebody in between sends requests to it.
    pub fn see(&self, region: &str, store: [u8; 16]) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that two regions that change places are told apart again.
        seen.insert(region.to_owned(), store);
        seen.iter().any(|(other, seen)| other != region && *seen == store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_cut_off_after_a_while_and_each_change_is_told_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut status = Status::new(start);
        assert_eq!((status.turn(at(30)), status.turn(at(31)), status.turn(at(32))), (None, Some(Turn::CutOff), None));
        status.completed(at(40), Some(0), at(40));
        assert_eq!((status.turn(at(41)), status.turn(at(42))), (Some(Turn::Back), None));
        status.completed(at(35), Some(0), at(43));
        assert_eq!(status.complete(), Some(at(40)), "an instance that is behind takes nothing back");
        status.doubt(at(50));
        assert_eq!((status.turn(at(80)), status.turn(at(81))), (None, Some(Turn::CutOff)));
        status.doubt(at(90));
        assert_eq!(status.turn(at(91)), None, "it is not back because it is doubted anew");
    }

    #[test]
    fn a_region_is_proven_for_the_secrets_that_it_writes_under_and_this_store_only() {
        let (start, ours, new) = (Instant::now(), SecretId([1; 8]), SecretId([2; 8]));
        let mut status = Status::new(start);
        status.completed(start, Some(3), start);
        assert_eq!(status.proven(ours, 3, start), None, "nothing is known of its secrets");
        status.learn(vec![ours], false);
        assert_eq!((status.proven(ours, 3, start), status.proven(new, 3, start)), (Some(start), None));
        assert_eq!(status.proven(ours, 4, start), None, "a server has taken the place of another one");
        status.learn(vec![], false);
        assert_eq!(status.proven(ours, 3, start), None);
    }

    #[test]
    fn nothing_is_proven_to_a_reader_that_began_before_it_was_written() {
        let (start, ours) = (Instant::now(), SecretId([1; 8]));
        let at = |millis| start + Duration::from_millis(millis);
        let mut status = Status::new(start);
        status.learn(vec![ours], false);
        let proven = |status: &Status, read| status.proven(ours, 0, at(read));
        for number in 1..=1000 {
            // What was acknowledged up to 5 ms ago was written just now.
            status.completed(at(number * 10 - 5), Some(0), at(number * 10));
            assert_eq!(proven(&status, number * 10), Some(at(number * 10 - 5)), "the newest one, for who reads now");
            let before = proven(&status, number * 10 - 1);
            assert!(before.is_none_or(|moment| moment < at(number * 10 - 5)));
            assert!(number < 30 || before.is_some_and(|moment| moment > at(number * 10 - 250)));
        }
        assert!(proven(&status, 10_000 - 5_000).is_some_and(|moment| moment < at(5_000)));
        assert!(status.proofs.len() <= REMEMBERED);
        assert_eq!(proven(&status, 5), None);
        status.doubt(at(10_001));
        assert_eq!(proven(&status, 10_002), None);
    }

    #[test]
    fn two_urls_that_lead_to_one_store_are_noticed_and_two_that_change_places_are_not() {
        let seen = StoresSeen::default();
        assert!(!seen.see("b", [2; 16]) && !seen.see("c", [3; 16]));
        assert!(seen.see("b", [3; 16]) && seen.see("c", [3; 16]));
        assert!(!seen.see("b", [2; 16]) && !seen.see("c", [3; 16]));
        assert!(seen.see("c", [2; 16]), "for the moment");
        assert!(!seen.see("b", [3; 16]) && !seen.see("c", [2; 16]));
    }
}
