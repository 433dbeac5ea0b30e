//! The VM's own cache of verified tokens: bounded, with the exact token as its key. Its entries were verified;
//! everything that time or the request can change is judged again at each use.
use std::sync::Arc;

use authn::decide::Verified;
use authn::request::scan;

/// Slots that one hash value may use.
const WAYS: usize = 4;

/// A fixed number of sets of four; a new entry replaces the least recently used one of its set. Also bounded in bytes:
/// with long tokens, sets are emptied in turn until the rest fits.
#[derive(Debug)]
pub struct TokenCache {
    sets: Vec<[Option<Entry>; WAYS]>,
    mask: u64,
    uses: u32,
    bytes: usize,
    most_bytes: usize,
    largest: usize,
    /// The next set to empty when bytes run out.
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    /// Avoids most comparisons with the set's other tokens.
    hash: u64,
    verified: Arc<Verified>,
    used: u32,
}

impl TokenCache {
    /// Holds about `tokens` (rounded up to a power of two of sets), none for 0, of at most `most_bytes` together and
    /// `largest` each.
    pub fn new(tokens: usize, most_bytes: usize, largest: usize) -> Self {
        let count = if tokens == 0 { 0 } else { tokens.div_ceil(WAYS).next_power_of_two() };
        let sets = (0..count).map(|_| Default::default()).collect();
        let mask = u64::try_from(count).unwrap_or(0).wrapping_sub(1);
        Self { sets, mask, uses: 0, bytes: 0, most_bytes, largest, hand: 0 }
    }

    #[cfg(test)]
    pub fn largest(&self) -> usize {
        self.largest
    }

    #[cfg(test)]
    pub fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    pub fn find(&mut self, hash: u64, token: &[u8]) -> Option<&Arc<Verified>> {
        self.uses = self.uses.wrapping_add(1);
        let uses = self.uses;
        let set = self.sets.get_mut(index(self.mask, hash))?;
        let is_same = |entry: &&mut Entry| entry.hash == hash && scan::are_equal(entry.verified.token(), token);
        let entry = set.iter_mut().flatten().find(is_same)?;
        entry.used = uses;
        Some(&entry.verified)
    }

    pub fn insert(&mut self, hash: u64, verified: Arc<Verified>) {
        let size = verified.bytes();
        if size > self.largest {
            return;
        }
        let uses = self.uses;
        let at = index(self.mask, hash);
        let Some(set) = self.sets.get_mut(at) else { return };
        let age = |slot: &Option<Entry>| slot.as_ref().map_or(u32::MAX, |entry| uses.wrapping_sub(entry.used));
        let is_same = |slot: &Option<Entry>| {
            let entry = slot.as_ref().filter(|entry| entry.hash == hash);
            entry.is_some_and(|entry| scan::are_equal(entry.verified.token(), verified.token()))
        };
        let same = set.iter().position(is_same);
        let oldest = set.iter().enumerate().max_by_key(|(_, slot)| age(slot)).map(|(index, _)| index);
        let Some(slot) = same.or(oldest).and_then(|index| set.get_mut(index)) else { return };
        let left = slot.replace(Entry { hash, verified, used: uses }).map_or(0, |entry| entry.verified.bytes());
        self.bytes = self.bytes.saturating_add(size).saturating_sub(left);
        self.make_room(at);
    }

    /// Empties sets in turn, except `kept`, until the rest fits.
    fn make_room(&mut self, kept: usize) {
        for _ in 0..self.sets.len() {
            if self.bytes <= self.most_bytes {
                return;
            }
            let at = self.hand;
            self.hand = at.wrapping_add(1).checked_rem(self.sets.len()).unwrap_or(0);
            if let Some(set) = self.sets.get_mut(at).filter(|_| at != kept) {
                let freed = set.iter_mut().filter_map(Option::take).map(|entry| entry.verified.bytes());
                self.bytes = self.bytes.saturating_sub(freed.sum());
            }
        }
    }
}

/// The set of a token; an index beyond all sets if there are none.
fn index(mask: u64, hash: u64) -> usize {
    usize::try_from(hash & mask).unwrap_or(usize::MAX)
}

/// A fast seeded hash of the token's last 32 bytes, which are signature: two verified tokens with the same ones are
/// practically impossible to make, and a collision only displaces an entry, since the whole token is compared.
pub fn tail_hash(seed: u64, token: &[u8]) -> u64 {
    let mut hash = seed ^ u64::try_from(token.len()).unwrap_or(0);
    let start = token.len().saturating_sub(32);
    let (words, rest) = token.get(start..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    for byte in rest {
        hash = mix(hash ^ u64::from(*byte));
    }
    hash
}

/// The finalizer of SplitMix64: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
