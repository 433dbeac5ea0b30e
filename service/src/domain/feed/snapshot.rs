//! Snapshots: all keys as approximate sets, in pieces. One is made for all followers that need it at about the same time.
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::RevocationKey;
use wire::feed::{MAX_PIECES, Membership, MembershipError, piece_of};

use super::picture::Numbers;

/// A piece has at most about so many keys, which are 115 KB.
const PIECE: usize = 48 * 1024;
/// For how long a new follower gets a snapshot that was made for another.
pub const FRESH: Duration = Duration::from_secs(5);
/// Entries after it, beyond which a new follower gets another one.
pub const MAX_DISTANCE: u64 = 4096;
/// Snapshots that are kept: instances may differ in the number of pieces for a while.
const KEPT: usize = 2;

/// All revocations as of `from`, and perhaps later ones.
#[derive(Debug)]
pub struct Snapshot {
    pub from: Numbers,
    pub made: Instant,
    pub pieces: Vec<Membership>,
}

#[derive(Debug, Default)]
pub struct Snapshots(Vec<Arc<Snapshot>>);

/// How many pieces so many keys need: a power of two, so that it seldom changes.
pub fn pieces_for(keys: usize) -> u16 {
    let pieces = keys.div_ceil(PIECE).max(1).next_power_of_two();
    u16::try_from(pieces).unwrap_or(MAX_PIECES).min(MAX_PIECES)
}

impl Snapshot {
    /// # Errors
    /// See [`MembershipError`]. [`MembershipError::TooLarge`]: it needs more pieces.
    pub fn make(from: Numbers, keys: Vec<Vec<RevocationKey>>) -> Result<Self, MembershipError> {
        let pieces = keys.into_iter().map(Membership::of).collect::<Result<_, _>>()?;
        Ok(Self { from, made: Instant::now(), pieces })
    }

    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(Membership::len_bytes).sum()
    }
}

impl Snapshots {
    /// The newest that `fits`.
    pub fn find(&self, fits: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        self.0.iter().rev().find(|snapshot| fits(snapshot)).cloned()
    }

    pub fn keep(&mut self, snapshot: Arc<Snapshot>) {
        self.0.retain(|kept| kept.pieces.len() != snapshot.pieces.len());
        self.0.push(snapshot);
        if self.0.len() > KEPT {
            self.0.remove(0);
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The keys of each piece.
pub fn split(keys: impl Iterator<Item = RevocationKey>, parts: &mut [Vec<RevocationKey>]) {
    let pieces = u16::try_from(parts.len()).unwrap_or(MAX_PIECES);
    for key in keys {
        if let Some(part) = parts.get_mut(usize::from(piece_of(&key, pieces))) {
            part.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_stays_below_its_bound() {
        assert_eq!([0, 1, PIECE, PIECE + 1, 1_000_000, 100_000_000].map(pieces_for), [1, 1, 1, 2, 32, 1024]);
        let keys = (0..PIECE as u128 + PIECE as u128 / 4)
            .map(|n| RevocationKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()));
        // Many more than planned fit.
        assert!(Membership::of(keys).is_ok());
    }
}
