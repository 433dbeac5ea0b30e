//! What a filter knows of all revocations when it follows the service's feed: a snapshot, and the keys that came since.
//!
//! A key that is not in the picture is not revoked, as of the moment up to which the picture is complete. A key that may be
//! in it is asked about: the picture never refuses a token.
use std::collections::HashMap;
use std::time::Duration;

use wire::RevocationKey;
use wire::feed::{Membership, piece_of};

use super::RevocationQuery;
use crate::time::Monotonic;

/// How a filter follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedSettings {
    /// The longest time between the acknowledgement of a revocation and the last admission that it should have prevented.
    pub lag: Duration,
    /// The most memory of a picture.
    pub max_bytes: usize,
}

/// All revocations, as far as they are known. It is replaced as a whole when anything is added, and shares its parts.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pieces: std::sync::Arc<[Membership]>,
    /// When the snapshot was taken over. An answer of the service that is older may lack what the snapshot has.
    taken: Monotonic,
    /// Keys that came later. A chunk that is full is never changed again.
    chunks: Vec<std::sync::Arc<Chunk>>,
    /// The number of the first of them. Counts all keys and snapshots of a follower, so that it never repeats.
    first: u64,
}

/// Some keys, in the order in which they came.
#[derive(Debug, Clone, Default)]
struct Chunk {
    keys: Vec<RevocationKey>,
    /// When each came. Of one that came twice, the later time.
    came: HashMap<RevocationKey, Monotonic>,
}

/// The keys of one chunk. A picture is copied whenever keys come, and only the last chunk is copied with it.
pub const CHUNK: usize = 1024;
/// A remembered token is compared with so many new keys. If there are more, it is looked up.
const COMPARED: u64 = 32;
/// What a key of a chunk takes in memory, with its place in the map.
const BYTES_OF_KEY: usize = 64;

/// The newest picture of a thread, and up to when it is complete.
#[derive(Debug, Clone, Copy)]
pub struct Known<'k> {
    pub picture: &'k Picture,
    /// It has every revocation that was acknowledged before this moment. 0 is never.
    pub complete: Monotonic,
}

/// What the feed says about one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedWord {
    /// Nothing: the feed is not followed, or the proof is too old, and none of the keys is known.
    Silent,
    /// None of its keys is revoked.
    Clear,
    /// One of its keys may be revoked. An answer counts only if its check was sent at this time or later.
    Perhaps { since: Monotonic },
}

impl Picture {
    /// A new snapshot. It takes the place of everything that came before.
    #[must_use]
    pub fn replaced(&self, pieces: Vec<Membership>, now: Monotonic) -> Self {
        // One number is left out: a token that was clear in the earlier picture is looked up in this one.
        let first = self.end().saturating_add(1);
        Self { pieces: pieces.into(), taken: now, chunks: Vec::new(), first }
    }

    /// These keys came.
    #[must_use]
    pub fn with(&self, keys: &[RevocationKey], now: Monotonic) -> Self {
        let mut next = self.clone();
        for key in keys {
            let full = next.chunks.last().is_none_or(|chunk| chunk.keys.len() >= CHUNK);
            if full {
                next.chunks.push(std::sync::Arc::default());
            }
            if let Some(chunk) = next.chunks.last_mut() {
                let chunk = std::sync::Arc::make_mut(chunk);
                chunk.keys.push(*key);
                chunk.came.insert(*key, now);
            }
        }
        next
    }

    /// One more than the number of the newest key.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.later()).unwrap_or(0))
    }

    /// How many keys came after the snapshot.
    pub fn later(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        self.chunks.last().map_or(0, |chunk| full.saturating_add(chunk.keys.len()))
    }

    /// The keys that came after the snapshot, from a position that is a multiple of [`CHUNK`] on, at most [`CHUNK`].
    pub fn chunk(&self, number: usize) -> &[RevocationKey] {
        self.chunks.get(number).map_or(&[], |chunk| &chunk.keys)
    }

    /// The keys that came from this number on. `None`: a snapshot came meanwhile.
    pub fn keys_from(&self, from: u64) -> Option<impl Iterator<Item = &RevocationKey>> {
        let place = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let chunks = self.chunks.get(place.checked_div(CHUNK)?..).unwrap_or_default();
        let keys = chunks.iter().flat_map(|chunk| &chunk.keys).skip(place.checked_rem(CHUNK)?);
        (place <= self.later()).then_some(keys)
    }

    /// When the snapshot was taken over.
    pub fn taken(&self) -> Monotonic {
        self.taken
    }

    pub fn pieces(&self) -> &[Membership] {
        &self.pieces
    }

    /// About the memory that it takes.
    pub fn bytes(&self) -> usize {
        let snapshot = self.pieces.iter().map(Membership::len_bytes).fold(0, usize::saturating_add);
        snapshot.saturating_add(self.later().saturating_mul(BYTES_OF_KEY))
    }

    pub fn may_contain(&self, key: &RevocationKey) -> bool {
        self.came(key).is_some()
    }

    /// When a key came that may be this one. `None`: it is not revoked.
    fn came(&self, key: &RevocationKey) -> Option<Monotonic> {
        let later = self.chunks.iter().rev().find_map(|chunk| chunk.came.get(key).copied());
        later.or_else(|| {
            let piece = piece_of(key, u16::try_from(self.pieces.len()).unwrap_or(0));
            self.pieces.get(usize::from(piece))?.may_contain(key).then_some(self.taken)
        })
    }

    /// Is none of these keys among those that came from this number on? False if it would take long to tell.
    fn lacks_since(&self, keys: &[RevocationKey], from: u64) -> bool {
        // Beyond the end: another thread has a newer picture, and this one is looked up.
        if from < self.first || from > self.end() || self.end().saturating_sub(from) > COMPARED {
            return false;
        }
        let at = |number: u64| {
            let place = usize::try_from(number.saturating_sub(self.first)).ok()?;
            let chunk = self.chunks.get(place.checked_div(CHUNK)?)?;
            chunk.keys.get(place.checked_rem(CHUNK)?)
        };
        (from..self.end()).all(|number| at(number).is_some_and(|new| !keys.contains(new)))
    }
}

impl Known<'_> {
    /// Has the picture every revocation that was acknowledged before the lag?
    pub fn is_fresh(&self, lag: Duration, now: Monotonic) -> bool {
        self.complete.0 != 0 && self.complete.plus(lag) >= now
    }

    /// When a key came that may be one of this query. `None`: none of them is in the picture.
    pub fn came(&self, query: &RevocationQuery) -> Option<Monotonic> {
        if query.clear_until() == self.picture.end() {
            return None;
        }
        query.keys.iter().filter_map(|key| self.picture.came(key)).max()
    }

    /// What the feed says about a token now.
    pub(crate) fn word(&self, query: &RevocationQuery, lag: Duration, now: Monotonic) -> FeedWord {
        if !self.is_fresh(lag, now) {
            // Nothing is proved, but a key that came is known: an answer from before does not count.
            let came = query.keys.iter().filter_map(|key| self.picture.came(key)).max();
            return came.map_or(FeedWord::Silent, |since| FeedWord::Perhaps { since });
        }
        let end = self.picture.end();
        let clear = query.clear_until();
        if clear == end || self.picture.lacks_since(&query.keys, clear) {
            query.is_clear_until(end);
            return FeedWord::Clear;
        }
        match query.keys.iter().filter_map(|key| self.picture.came(key)).max() {
            None => {
                query.is_clear_until(end);
                FeedWord::Clear
            }
            Some(since) => FeedWord::Perhaps { since },
        }
    }
}

#[cfg(test)]
mod tests;
