//! The picture of all revocations in the host's shared data: one VM of a process follows the feed, and the others take the
//! picture over. Bounded: as many slots as a picture has pieces and chunks.
//!
//! Every entry carries a MAC over its slot and content. All parts of one picture have its generation, so that parts of two
//! pictures are never mixed.
use authn::revocation::CHUNK;
use authn::time::Monotonic;
use wire::feed::{Cursor, MAX_PIECES, Membership};
use wire::{DerivedKeys, RevocationKey};

use crate::shared::Namespace;

#[derive(Debug)]
pub struct SharedFeed {
    space: Namespace,
    /// Which set of slots: feeds that differ have different ones, mostly.
    set: u8,
}

/// Sets of slots. The host keeps every entry as long as it runs, so their number is bounded.
const SETS: u8 = 32;

/// Which VM follows, and until when it may be believed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedLease {
    pub owner: u64,
    pub until: Monotonic,
}

/// What belongs to the newest picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the picture. Not 0.
    pub generation: u64,
    pub pieces: u16,
    /// How many keys came after the snapshot.
    pub later: usize,
    pub complete: Monotonic,
}

impl SharedFeed {
    /// `service` identifies the service and how it is asked: another configuration that follows the same feed finds the
    /// picture.
    pub fn new(derived: &DerivedKeys, service: &[u8; 32]) -> Self {
        let [first, ..] = *service;
        Self { space: Namespace::new(derived, service), set: first.checked_rem(SETS).unwrap_or(0) }
    }

    fn place(&self, rest: impl std::fmt::Display) -> String {
        format!("f{}.{rest}", self.set)
    }

    pub fn lease_key(&self) -> String {
        self.space.key(&self.place("l"))
    }

    pub fn write_lease(&self, lease: FeedLease) -> Vec<u8> {
        let content = [lease.owner.to_be_bytes(), lease.until.0.to_be_bytes()].concat();
        self.space.seal(&self.place("l"), content)
    }

    pub fn read_lease(&self, bytes: &[u8]) -> Option<FeedLease> {
        let (owner, until) = self.space.open(&self.place("l"), bytes)?.split_first_chunk::<8>()?;
        let until = u64::from_be_bytes(until.try_into().ok()?);
        Some(FeedLease { owner: u64::from_be_bytes(*owner), until: Monotonic(until) })
    }

    pub fn head_key(&self) -> String {
        self.space.key(&self.place("h"))
    }

    pub fn write_head(&self, head: Head) -> Vec<u8> {
        let later = u64::try_from(head.later).unwrap_or(u64::MAX);
        let numbers = [head.generation, head.pieces.into(), later, head.complete.0];
        self.space.seal(&self.place("h"), numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
    }

    pub fn read_head(&self, bytes: &[u8]) -> Option<Head> {
        let (numbers, []) = self.space.open(&self.place("h"), bytes)?.as_chunks::<8>() else { return None };
        let [generation, pieces, later, complete] = numbers else { return None };
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Some(Head {
            generation: number(generation),
            pieces: u16::try_from(number(pieces)).ok().filter(|pieces| *pieces <= MAX_PIECES)?,
            later: usize::try_from(number(later)).ok()?,
            complete: Monotonic(number(complete)),
        })
    }

    pub fn cursor_key(&self) -> String {
        self.space.key(&self.place("c"))
    }

    /// `later`: how many keys of the picture came before this cursor.
    pub fn write_cursor(&self, generation: u64, later: usize, cursor: &Cursor) -> Vec<u8> {
        let later = u64::try_from(later).unwrap_or(u64::MAX);
        let content = [&generation.to_be_bytes()[..], &later.to_be_bytes(), cursor.bytes()].concat();
        self.space.seal(&self.place("c"), content)
    }

    /// A cursor that is newer than a picture with so many keys is none: the keys between would never come.
    pub fn read_cursor(&self, bytes: &[u8], generation: u64, later: usize) -> Option<Cursor> {
        let content = self.of_generation(&self.place("c"), bytes, generation)?;
        let (before, cursor) = content.split_first_chunk::<8>()?;
        let before = usize::try_from(u64::from_be_bytes(*before)).ok()?;
        (before <= later).then(|| Cursor::new(cursor.to_vec()).ok())?
    }

    pub fn piece_key(&self, number: usize) -> String {
        self.space.key(&self.place(format_args!("p{number}")))
    }

    pub fn write_piece(&self, number: usize, generation: u64, piece: &Membership) -> Vec<u8> {
        let mut content = generation.to_be_bytes().to_vec();
        piece.write(&mut content);
        self.space.seal(&self.place(format_args!("p{number}")), content)
    }

    pub fn read_piece(&self, number: usize, bytes: &[u8], generation: u64) -> Option<Membership> {
        Membership::read(self.of_generation(&self.place(format_args!("p{number}")), bytes, generation)?).ok()
    }

    pub fn chunk_key(&self, number: usize) -> String {
        self.space.key(&self.place(format_args!("k{number}")))
    }

    pub fn write_chunk(&self, number: usize, generation: u64, keys: &[RevocationKey]) -> Vec<u8> {
        let mut content = generation.to_be_bytes().to_vec();
        content.extend(keys.iter().flat_map(|key| key.0));
        self.space.seal(&self.place(format_args!("k{number}")), content)
    }

    pub fn read_chunk(&self, number: usize, bytes: &[u8], generation: u64) -> Option<Vec<RevocationKey>> {
        let (keys, []) =
            self.of_generation(&self.place(format_args!("k{number}")), bytes, generation)?.as_chunks::<16>()
        else {
            return None;
        };
        (keys.len() <= CHUNK).then(|| keys.iter().copied().map(RevocationKey).collect())
    }

    fn of_generation<'b>(&self, place: &str, bytes: &'b [u8], generation: u64) -> Option<&'b [u8]> {
        let (of, content) = self.space.open(place, bytes)?.split_first_chunk::<8>()?;
        (*of == generation.to_be_bytes()).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Secret;

    fn feed(secret: u8) -> SharedFeed {
        SharedFeed::new(&Secret::new(&[secret; 32]).unwrap().derive(), &[7; 32])
    }

    #[test]
    fn each_entry_is_read_back_only_whole_in_its_place_and_of_its_generation() {
        let (ours, theirs) = (feed(1), feed(2));
        let lease = FeedLease { owner: 5, until: Monotonic(9) };
        let head = Head { generation: 3, pieces: 4, later: 5000, complete: Monotonic(8) };
        let (cursor, keys) = (Cursor::new(vec![1, 2, 3]).unwrap(), vec![RevocationKey([4; 16]); 3]);
        let piece = Membership::of(keys.iter().copied()).unwrap();
        let written = [
            ours.write_lease(lease),
            ours.write_head(head),
            ours.write_cursor(3, 5, &cursor),
            ours.write_piece(1, 3, &piece),
            ours.write_chunk(1, 3, &keys),
        ];
        // One reader for each; true if it reads what was written.
        let reads = |feed: &SharedFeed, bytes: &[u8]| {
            [
                feed.read_lease(bytes) == Some(lease),
                feed.read_head(bytes) == Some(head),
                feed.read_cursor(bytes, 3, 5).as_ref() == Some(&cursor),
                feed.read_piece(1, bytes, 3).as_ref() == Some(&piece),
                feed.read_chunk(1, bytes, 3).as_ref() == Some(&keys),
            ]
        };
        for (number, bytes) in written.iter().enumerate() {
            let expected: [bool; 5] = std::array::from_fn(|at| at == number);
            assert_eq!(reads(&ours, bytes), expected);
            assert_eq!(reads(&theirs, bytes), [false; 5]);
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert_eq!(reads(&ours, &bad), [false; 5], "entry {number}, byte {at}");
                assert_eq!(reads(&ours, &bytes[..at]), [false; 5], "entry {number}, cut at {at}");
            }
        }
        assert_eq!(ours.read_cursor(&written[2], 4, 5), None);
        assert_eq!(ours.read_cursor(&written[2], 3, 4), None);
        assert_eq!(ours.read_cursor(&written[2], 3, 6).as_ref(), Some(&cursor));
        assert_eq!(ours.read_piece(2, &written[3], 3), None);
        assert_eq!(ours.read_piece(1, &written[3], 4), None);
        assert_eq!(ours.read_chunk(2, &written[4], 3), None);
        assert_eq!(ours.read_chunk(1, &written[4], 4), None);
    }
}
