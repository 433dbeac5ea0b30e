//! The log of a shard: a head item with the newest batch of entries, and an item for each earlier batch.
//!
//! To append, a writer first copies the head's batch into an item of its own, which is the same whoever writes it, and then
//! replaces the head if it has not changed. So entries are in one order, and a writer that stops in between changes nothing.
//! Each entry has a chain, a hash over the chain before it, so equal places have the same past.
//!
//! `f` and `c` are the sequences of the batch's first and last entry, `b` the chain before it, `h` the chain after it, `z` a
//! random number, `o` when it was written, `q` when the batch before it was, `d` its entries. In the head, `v` is `h`. `y` maps other regions to the place in their logs up
//! to which their entries are in this one (global tables with eventual consistency).
use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest as _, Sha256};
use store::{Change, LogEntry, Place, StoreError};
use wire::RevocationKey;

use crate::entry;
use crate::item::{self, Item, Name, blob, integer};

/// Entries in one batch.
pub const MAX_BATCH: usize = 100;
/// A follower that is further behind reads the shard anew.
pub const MAX_BEHIND: u64 = 1024;
/// A batch's item is removed at the latest this long after it was written.
const KEPT_MILLIS: u64 = 7 * 86_400_000;
/// More than DynamoDB's TTL and clocks may be early.
const MARGIN_MILLIS: u64 = 86_400_000;

const BEGUN: u8 = 0;
const REVOKED: u8 = 1;
const LIFTED: u8 = 2;
const TAKEN_OVER: u8 = 3;
const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    Begun,
    /// With its expiry in Unix milliseconds, and the number of the item's state.
    Revoked(RevocationKey, Option<u64>, u64),
    /// A revocation of another region, from its log.
    TakenOver(RevocationKey, Option<u64>),
    Lifted(RevocationKey),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub first: u64,
    pub before: [u8; 8],
    nonce: [u8; 8],
    pub written: u64,
    /// When the batch before it was written.
    previous: u64,
    pub entries: Vec<Logged>,
    pub imported: BTreeMap<String, Place>,
}

pub fn head_name(shard: usize, region: &str) -> Name {
    Name::new(format!("h#{shard}#{region}"), "head")
}

pub fn log_partition(shard: usize, region: &str) -> String {
    format!("l#{shard}#{region}")
}

/// Sorts as the number does.
pub fn log_sort(sequence: u64) -> String {
    format!("{sequence:020}")
}

impl Logged {
    const BYTES: usize = 33;

    fn encode(self) -> [u8; Self::BYTES] {
        let (kind, key, expires, number) = match self {
            Logged::Begun => (BEGUN, [0; 16], 0, 0),
            Logged::Revoked(key, expires, number) => (REVOKED, key.0, expires.unwrap_or(NEVER), number),
            Logged::TakenOver(key, expires) => (TAKEN_OVER, key.0, expires.unwrap_or(NEVER), 0),
            Logged::Lifted(key) => (LIFTED, key.0, 0, 0),
        };
        let mut bytes = [0; Self::BYTES];
        let all = [kind].into_iter().chain(key).chain(expires.to_be_bytes()).chain(number.to_be_bytes());
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (key, expires) = rest.split_first_chunk::<16>()?;
        let key = RevocationKey(*key);
        let (expires, number) = expires.split_first_chunk::<8>()?;
        let expires = Some(u64::from_be_bytes(*expires)).filter(|expires| *expires != NEVER);
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match *kind {
            BEGUN => Some(Logged::Begun),
            REVOKED => Some(Logged::Revoked(key, expires, number)),
            TAKEN_OVER => Some(Logged::TakenOver(key, expires)),
            LIFTED => Some(Logged::Lifted(key)),
            _ => None,
        }
    }

    fn change(self, written: u64) -> Change {
        match self {
            Logged::Begun => Change::Begun,
            Logged::Revoked(key, expires, _) | Logged::TakenOver(key, expires) => {
                Change::Revoked { key, expires_in: entry::left(expires, written) }
            }
            Logged::Lifted(key) => Change::Lifted { key },
        }
    }
}

impl Batch {
    /// The first one of a log.
    pub fn begin(now: u64, imported: BTreeMap<String, Place>) -> Self {
        let entries = vec![Logged::Begun];
        Self {
            first: 1,
            before: item::version(),
            nonce: item::version(),
            written: now,
            previous: now,
            entries,
            imported,
        }
    }

    /// The one after `self`.
    pub fn next(&self, now: u64, entries: Vec<Logged>, imported: BTreeMap<String, Place>) -> Self {
        let last = self.last();
        let (first, before, previous) = (last.sequence + 1, last.chain, self.written);
        Self { first, before, nonce: item::version(), written: now, previous, entries, imported }
    }

    pub fn places(&self) -> impl Iterator<Item = (Place, Logged)> {
        let mut place = self.place_before();
        self.entries.iter().map(move |logged| {
            let mut hash = Sha256::new();
            hash.update(place.chain);
            hash.update(self.nonce);
            hash.update(logged.encode());
            let digest = hash.finalize();
            let mut chain = [0; 8];
            chain.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
            place = Place { sequence: place.sequence + 1, chain };
            (place, *logged)
        })
    }

    pub fn entries(&self) -> impl Iterator<Item = LogEntry> {
        self.places().map(|(place, logged)| LogEntry { place, change: logged.change(self.written) })
    }

    pub fn place_before(&self) -> Place {
        Place { sequence: self.first - 1, chain: self.before }
    }

    /// Does it come after `place`? A place that is not the one before it counts if all batches in between were removed because what
    /// they revoked has expired.
    pub fn follows(&self, place: Option<Place>, now: u64) -> bool {
        let is_removed = self.previous.saturating_add(KEPT_MILLIS).saturating_add(MARGIN_MILLIS) < now;
        match place {
            Some(place) => {
                self.place_before() == place || (self.place_before().sequence > place.sequence && is_removed)
            }
            None => self.first == 1 || is_removed,
        }
    }

    pub fn last(&self) -> Place {
        self.places().last().map_or(self.place_before(), |(place, _)| place)
    }

    /// # Errors
    /// It is not ours.
    pub fn read(found: &Item) -> Result<Self, StoreError> {
        Self::parse(found).ok_or(StoreError::StoreFailed)
    }

    fn parse(found: &Item) -> Option<Self> {
        let eight = |name: &str| item::bytes(found, name)?.try_into().ok();
        let data = item::bytes(found, "d")?;
        let entries = data.chunks(Logged::BYTES).map(Logged::decode).collect::<Option<Vec<_>>>()?;
        let place = |value: &AttributeValue| {
            let (sequence, chain) = value.as_b().ok()?.as_ref().split_first_chunk::<8>()?;
            Some(Place { sequence: u64::from_be_bytes(*sequence), chain: chain.try_into().ok()? })
        };
        let imported = match found.get("y") {
            None => BTreeMap::new(),
            Some(map) => {
                let map = map.as_m().ok()?.iter();
                map.map(|(region, value)| Some((region.clone(), place(value)?))).collect::<Option<_>>()?
            }
        };
        let first = item::number(found, "f").filter(|first| *first > 0)?;
        let batch = Self {
            first,
            before: eight("b")?,
            nonce: eight("z")?,
            written: item::number(found, "o")?,
            previous: item::number(found, "q")?,
            entries,
            imported,
        };
        (batch.last().chain == eight("h")?).then_some(batch)
    }

    fn set(&self, made: &mut Item) {
        let last = self.last();
        made.insert("f".to_owned(), integer(self.first));
        made.insert("c".to_owned(), integer(last.sequence));
        made.insert("b".to_owned(), blob(&self.before));
        made.insert("z".to_owned(), blob(&self.nonce));
        made.insert("o".to_owned(), integer(self.written));
        made.insert("q".to_owned(), integer(self.previous));
        made.insert("d".to_owned(), blob(&self.entries.iter().flat_map(|logged| logged.encode()).collect::<Vec<_>>()));
        made.insert("h".to_owned(), blob(&last.chain));
        if !self.imported.is_empty() {
            let bytes = |place: &Place| [place.sequence.to_be_bytes(), place.chain].concat();
            let map: HashMap<_, _> =
                self.imported.iter().map(|(region, place)| (region.clone(), blob(&bytes(place)))).collect();
            made.insert("y".to_owned(), AttributeValue::M(map));
        }
    }

    pub fn head(&self, shard: usize, region: &str) -> Item {
        let mut made = head_name(shard, region).item();
        self.set(&mut made);
        made.insert("v".to_owned(), blob(&self.last().chain));
        made
    }

    /// As an item of its own. If other regions read it, it stays until its revocations have expired: one of them may have been cut
    /// off for so long.
    pub fn kept(&self, shard: usize, region: &str, is_read_by_others: bool) -> Item {
        let mut made = Name::new(log_partition(shard, region), log_sort(self.last().sequence)).item();
        self.set(&mut made);
        let kept = Some(self.written.saturating_add(KEPT_MILLIS));
        let longest = |all, logged: &Logged| match logged {
            Logged::Revoked(_, expires, _) => entry::later(all, *expires),
            // Nobody reads them there.
            Logged::Begun | Logged::TakenOver(..) | Logged::Lifted(_) => all,
        };
        let expires = if is_read_by_others { self.entries.iter().fold(kept, longest) } else { kept };
        item::set_expiry(&mut made, expires);
        made
    }
}

/// The entries after `place`, from batches in the order of the log. `None`: they do not begin at `place`, or lack some.
pub fn after(place: Place, batches: &[Batch]) -> Option<Vec<LogEntry>> {
    let mut last = place;
    let mut entries = Vec::new();
    for batch in batches {
        let before = batch.place_before();
        if batch.last().sequence <= place.sequence && batch.last() != place {
            continue;
        }
        if before.sequence < place.sequence {
            // The place is inside of this batch.
            if batch.places().all(|(inside, _)| inside != place) {
                return None;
            }
        } else if before != last {
            return None;
        }
        entries.extend(batch.entries().filter(|entry| entry.place.sequence > place.sequence));
        last = batch.last();
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> RevocationKey {
        RevocationKey([number; 16])
    }

    #[test]
    fn batches_are_read_back_as_written_and_follow_each_other() {
        let other = Place { sequence: 9, chain: [4; 8] };
        let one = Batch::begin(7, BTreeMap::from([("b".to_owned(), other)]));
        let entries =
            vec![Logged::Revoked(key(1), Some(9), 6), Logged::TakenOver(key(2), None), Logged::Lifted(key(1))];
        let two = one.next(8, entries, BTreeMap::new());
        let three = two.next(9, vec![Logged::Lifted(key(2))], BTreeMap::new());
        for batch in [&one, &two] {
            assert_eq!(Batch::read(&batch.head(3, "a")).as_ref(), Ok(batch));
            assert_eq!(Batch::read(&batch.kept(3, "a", true)).as_ref(), Ok(batch));
        }
        let all = [one.clone(), two.clone(), three.clone()];
        assert_eq!(after(one.last(), &all).unwrap().len(), 4);
        assert_eq!(after(one.last(), &all[1..]).unwrap().len(), 4);
        let (inside, _) = two.places().next().unwrap();
        assert_eq!(after(inside, &all).unwrap().len(), 3);
        assert_eq!(after(three.last(), &all), Some(vec![]));
        assert_eq!(after(one.last(), &all[2..]), None, "one is missing");
        assert_eq!(after(Place { chain: [0; 8], ..inside }, &all), None, "another history");
        assert!(three.follows(Some(two.last()), 9) && !three.follows(Some(one.last()), 9) && !three.follows(None, 9));
        let late = 8 + KEPT_MILLIS + MARGIN_MILLIS + 1;
        assert!(three.follows(Some(one.last()), late) && three.follows(None, late), "what it lacks has expired");
        assert!(!two.follows(Some(three.last()), late));
        let mut damaged = two.head(3, "a");
        damaged.insert("d".to_owned(), blob(&three.entries[0].encode()));
        assert!(Batch::read(&damaged).is_err());
    }
}
