//! The last entries of a shard's log, so that a follower's place in it is understood, by whichever instance it was made.
use std::collections::VecDeque;

use store::{Change, LogEntry, Place};
use wire::RevocationKey;

/// The most entries of one shard.
pub const MAX_ENTRIES: usize = 2048;

/// What a cursor has of a place: the low bits of the sequence, and of the chain. The cursor has a digest of all places too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub sequence: u16,
    pub chain: u16,
}

#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
    /// How many entries were dropped before the first.
    dropped: u64,
}

/// A key that was revoked, or none, and the place after it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    place: Place,
    key: Option<RevocationKey>,
}

/// Where a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The number of an entry, counted from the beginning of this history.
    At(u64, Place),
    /// Probably of an entry that this instance has not seen yet.
    Ahead,
    Unknown,
}

impl Mark {
    pub fn of(place: Place) -> Self {
        let [first, second, ..] = place.chain;
        let [.., high, low] = place.sequence.to_be_bytes();
        Self { sequence: u16::from_be_bytes([high, low]), chain: u16::from_be_bytes([first, second]) }
    }
}

impl History {
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    pub fn push(&mut self, entry: LogEntry) {
        let key = match entry.change {
            Change::Revoked { key, .. } => Some(key),
            Change::Begun | Change::Lifted { .. } => None,
        };
        self.append(Entry { place: entry.place, key });
    }

    /// Begins anew at `place`: no older place is understood.
    pub fn restart(&mut self, place: Place) {
        self.forget();
        self.append(Entry { place, key: None });
    }

    /// Forgets everything. The numbers go on, so that none ever names two places.
    pub fn forget(&mut self) {
        self.dropped += self.entries.len() as u64;
        self.entries = VecDeque::new();
    }

    /// Continues at `place`, where the shard has `keys`, although the log does not lead there. A follower with an older
    /// place gets all of them.
    pub fn bridge(&mut self, place: Place, keys: impl Iterator<Item = RevocationKey>) {
        self.append(Entry { place, key: None });
        for key in keys {
            self.append(Entry { place, key: Some(key) });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        (self.dropped + self.entries.len() as u64).saturating_sub(1)
    }

    /// Whether the entry with this number is here.
    pub fn has(&self, number: u64) -> bool {
        number >= self.dropped && number <= self.last()
    }

    /// The last entry of a place counts: after a bridge, that of its last key.
    pub fn find(&self, mark: Mark) -> Found {
        let at = self.entries.iter().rposition(|entry| Mark::of(entry.place) == mark);
        if let Some((at, entry)) = at.and_then(|at| Some((at, self.entries.get(at)?))) {
            return Found::At(self.dropped + at as u64, entry.place);
        }
        let Some(last) = self.entries.back() else { return Found::Unknown };
        let ahead = mark.sequence.wrapping_sub(Mark::of(last.place).sequence);
        if (1..=i16::MAX as u16).contains(&ahead) { Found::Ahead } else { Found::Unknown }
    }

    /// The keys after the entry with this number, at most `room`. With them goes the place after the last one, and the number
    /// of its entry. It is never a place within a bridge.
    pub fn after(&self, number: u64, room: usize) -> (Vec<RevocationKey>, u64) {
        let begin = usize::try_from((number + 1).saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let mut keys = Vec::new();
        let (mut whole, mut end) = (0, number);
        for (at, entry) in self.entries.iter().enumerate().skip(begin) {
            if keys.len() >= room && entry.key.is_some() {
                break;
            }
            keys.extend(entry.key);
            if self.entries.get(at + 1).is_none_or(|next| next.place != entry.place) {
                (whole, end) = (keys.len(), self.dropped + at as u64);
            }
        }
        keys.truncate(whole);
        (keys, end)
    }

    pub fn place(&self, number: u64) -> Option<Place> {
        let at = usize::try_from(number.checked_sub(self.dropped)?).ok()?;
        self.entries.get(at).map(|entry| entry.place)
    }

    fn append(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_front();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sequence: u64) -> Place {
        Place { sequence, chain: sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes() }
    }

    fn key(number: u64) -> RevocationKey {
        RevocationKey(u128::from(number).to_be_bytes())
    }

    fn revoked(number: u64) -> LogEntry {
        LogEntry { place: place(number), change: Change::Revoked { key: key(number), expires_in: None } }
    }

    fn at(history: &History, sequence: u64) -> u64 {
        match history.find(Mark::of(place(sequence))) {
            Found::At(number, found) => {
                assert_eq!(found, place(sequence));
                number
            }
            other => panic!("{sequence}: {other:?}"),
        }
    }

    #[test]
    fn the_keys_after_a_place_are_found() {
        let mut history = History::default();
        history.restart(place(10));
        for number in 11..=20 {
            history.push(revoked(number));
        }
        let after = |sequence, room| history.after(at(&history, sequence), room);
        assert_eq!(after(17, 100), ((18..=20).map(key).collect(), at(&history, 20)));
        assert_eq!(after(17, 2), ((18..=19).map(key).collect(), at(&history, 19)));
        assert_eq!(after(20, 100), (vec![], at(&history, 20)));
        assert_eq!(after(20, 0), (vec![], at(&history, 20)));
        assert_eq!(history.find(Mark::of(place(21))), Found::Ahead);
        assert_eq!(history.find(Mark::of(place(9))), Found::Unknown);
        assert_eq!(history.find(Mark { chain: 7, ..Mark::of(place(15)) }), Found::Unknown);
    }

    #[test]
    fn the_oldest_are_dropped() {
        let mut history = History::default();
        history.restart(place(1));
        for number in 2..=MAX_ENTRIES as u64 + 50 {
            history.push(revoked(number));
        }
        assert_eq!(history.entries.len(), MAX_ENTRIES);
        assert_eq!(history.find(Mark::of(place(50))), Found::Unknown);
        assert!(!history.has(at(&history, 51) - 1) && history.has(at(&history, 51)));
        assert_eq!(history.after(at(&history, 51), usize::MAX).0.len(), MAX_ENTRIES - 1);
        assert_eq!(history.place(history.last()), Some(place(MAX_ENTRIES as u64 + 50)));
        history.restart(place(5));
        assert!(!history.has(history.last() - 1));
        assert_eq!(history.last(), at(&history, 5));
    }

    #[test]
    fn a_bridge_is_crossed_in_one_step() {
        let mut history = History::default();
        history.restart(place(10));
        history.push(revoked(11));
        let other = Place { chain: [7; 8], ..place(11) };
        history.bridge(other, (100..110).map(key));
        history.push(LogEntry { place: place(12), ..revoked(12) });
        let (keys, end) = history.after(at(&history, 10), 100);
        assert_eq!(keys, [key(11)].into_iter().chain((100..110).map(key)).chain([key(12)]).collect::<Vec<_>>());
        assert_eq!(end, history.last());
        let (keys, end) = history.after(at(&history, 10), 5);
        assert_eq!((keys, history.place(end)), (vec![key(11)], Some(place(11))), "not to a place within");
        let Found::At(number, _) = history.find(Mark::of(other)) else { panic!() };
        assert_eq!(history.after(number, 100).0, [key(12)], "after its last key");
    }
}
