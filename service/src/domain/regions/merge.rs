//! What of another region's revocations is merged: pure.
//!
//! Two states of a revocation join to the stronger ending and the longer life, so the order of merges does not matter, and
//! neither do repetitions.
//!
//! **Times to live** go from region to region as a remainder, since no wall clock may shorten them. A remainder is counted from
//! when the request was received, and is reduced here by all the time since it was sent. So a copy lives no longer than the
//! original, but for the time that the write takes. An entry is prolonged only by more than [`SLACK`], so a revocation does not
//! travel in circles. A copy may therefore end earlier than the original, by [`SLACK`] and the time that a request takes. That
//! is made up for where revocations are made, by [`super::EXTRA_TTL`].
//!
//! **`before`** is in the seconds of the region that revoked. One that is far in our future is merged as a nearer one: a region
//! whose clock is wrong by a year must not lock out the logins of a year in all other regions. It is raised again with each
//! comparison, while the region still has it.
use std::time::Duration;

use store::{Ending, MergedRevocation, StoredRevocation};
use wire::join::{Ends, Entry, Row};
use wire::{Answer, RevocationKey};

use crate::base::limits::MAX_SKEW;

/// An entry that would live for at most this much longer is not written again.
pub const SLACK: Duration = Duration::from_secs(60);

/// A revocation without its key and its note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub ending: Ending,
    /// `None`: it does not expire.
    pub left: Option<Duration>,
}

/// What another region may do here.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The latest `before`.
    pub before: u64,
    /// Since the request was sent.
    pub elapsed: Duration,
}

impl State {
    /// The least that is at least as strong and long as both.
    #[cfg(test)]
    pub fn join(self, other: Self) -> Self {
        let left = self.left.zip(other.left).map(|(one, other)| one.max(other));
        Self { ending: self.ending.max(other.ending), left }
    }

    /// `None`: what is stored cannot be understood.
    pub fn of(stored: &StoredRevocation) -> Option<Self> {
        let ending = match stored.answer? {
            Answer::Dead => Ending::Dead,
            Answer::Before(before) => Ending::Before(before),
            Answer::Live => return None,
        };
        Some(Self { ending, left: stored.expires_in })
    }

    /// Whether `other` adds nothing to this, or so little that it does not count.
    pub fn covers(self, other: Self) -> bool {
        let lives = match (self.left, other.left) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => ours.saturating_add(SLACK) >= theirs,
        };
        self.ending >= other.ending && lives
    }
}

impl Bounds {
    pub fn new(now_seconds: u64, future_iat_tolerance_seconds: u64, elapsed: Duration) -> Self {
        let ahead = MAX_SKEW.as_secs().saturating_add(future_iat_tolerance_seconds).saturating_add(1);
        Self { before: now_seconds.saturating_add(ahead), elapsed }
    }

    /// The state that is merged of a row. `None`: it has expired.
    pub fn state(self, row: &Row) -> Option<State> {
        let ending = match row.ends {
            Ends::All => Ending::Dead,
            Ends::Before(before) => Ending::Before(before.min(self.before)),
        };
        let left = match row.ttl {
            None => None,
            Some(ttl) => Some(ttl.checked_sub(self.elapsed).filter(|left| !left.is_zero())?),
        };
        Some(State { ending, left })
    }

    pub fn is_beyond(self, row: &Row) -> bool {
        matches!(row.ends, Ends::Before(before) if before > self.before)
    }

    pub fn merged(self, entry: Entry) -> Option<MergedRevocation> {
        let State { ending, left } = self.state(&entry.row)?;
        Some(MergedRevocation { key: entry.row.key, ending, sealed: entry.sealed, ttl: left })
    }
}

/// The keys of `rows` that this region lacks, or has in a weaker form.
pub fn lacking(ours: &[StoredRevocation], rows: &[Row], bounds: Bounds) -> Vec<RevocationKey> {
    let ours: std::collections::HashMap<_, _> = ours.iter().map(|stored| (stored.key, State::of(stored))).collect();
    let lacks = |row: &&Row| {
        let Some(theirs) = bounds.state(row) else { return false };
        !ours.get(&row.key).copied().flatten().is_some_and(|ours| ours.covers(theirs))
    };
    rows.iter().filter(lacks).map(|row| row.key).collect()
}

#[cfg(test)]
mod tests;
