//! A revocation in the table: one item for each key and region, and what they say together.
//!
//! `e` is `D`, or `B` and Unix seconds. `n` is the encrypted note. `u` is there until the log has the entry. `l` marks an entry
//! that was lifted. `r` maps regions to the versions of their entries that a lift of this region has removed: a lift never
//! writes another region's item, and a later revocation there has another version. `i` numbers the states of an item: it grows, and
//! tells in another region which of them has arrived.
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use store::{Ending, InForce, StoreError};
use wire::RevocationKey;

use crate::item::{self, Item, Name, blob, bytes, string};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub ending: Ending,
    pub sealed: Vec<u8>,
    /// In Unix milliseconds. `None`: never.
    pub expires: Option<u64>,
}

/// What one region has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub version: Vec<u8>,
    pub number: u64,
    /// `None`: it was lifted.
    pub entry: Option<Entry>,
    pub is_logged: bool,
    /// Versions of other regions that were lifted here.
    pub lifted: BTreeMap<String, Vec<u8>>,
    /// For a lifted entry as well.
    pub expires: Option<u64>,
}

/// What all regions have under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Together(pub BTreeMap<String, Stored>);

pub fn expiry(now: u64, ttl: Option<Duration>) -> Option<u64> {
    ttl.map(|ttl| now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).min(u64::MAX >> 2))
}

/// The later one. `None` is the latest.
pub fn later(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one.max(other))
}

impl Entry {
    /// Dead over before, the larger `before`, the longer life. The note is of the stronger one; of two equals, the new one's.
    pub fn merge(self, new: Entry) -> Entry {
        let expires = later(self.expires, new.expires);
        let stronger = if self.ending > new.ending { self } else { new };
        Entry { expires, ..stronger }
    }

    pub fn in_force(&self, now: u64) -> InForce {
        InForce { ending: self.ending, expires_in: left(self.expires, now) }
    }
}

pub fn left(expires: Option<u64>, now: u64) -> Option<Duration> {
    expires.map(|expires| Duration::from_millis(expires.saturating_sub(now)))
}

impl Stored {
    /// # Errors
    /// It is not ours. It must not be taken for absent.
    pub fn read(found: &Item) -> Result<Self, StoreError> {
        let failed = StoreError::StoreFailed;
        let expires = match found.get("x") {
            None => None,
            Some(_) => Some(item::number(found, "x").ok_or(failed)?),
        };
        let sealed = bytes(found, "n").unwrap_or_default().to_vec();
        let entry = match (found.contains_key("l"), item::text(found, "e")) {
            (true, _) => None,
            (false, Some("D")) => Some(Entry { ending: Ending::Dead, sealed, expires }),
            (false, Some(text)) => {
                let digits = text.strip_prefix('B').filter(|rest| rest.bytes().all(|c| c.is_ascii_digit()));
                let before = digits.and_then(|digits| digits.parse().ok()).ok_or(failed)?;
                Some(Entry { ending: Ending::Before(before), sealed, expires })
            }
            (false, None) => return Err(failed),
        };
        let lifted = match found.get("r").map(AttributeValue::as_m) {
            None => BTreeMap::new(),
            Some(map) => {
                let read = |(region, version): (&String, &AttributeValue)| {
                    Ok((region.clone(), version.as_b().map_err(|_| failed)?.as_ref().to_vec()))
                };
                map.map_err(|_| failed)?.iter().map(read).collect::<Result<_, _>>()?
            }
        };
        let version = bytes(found, "v").ok_or(failed)?.to_vec();
        let number = item::number(found, "i").ok_or(failed)?;
        Ok(Self { version, number, entry, is_logged: !found.contains_key("u"), lifted, expires })
    }

    pub fn item(&self, key: &RevocationKey, region: &str) -> Item {
        let mut made = item::revocation(key, region).item();
        made.insert("v".to_owned(), blob(&self.version));
        made.insert("i".to_owned(), item::integer(self.number));
        match &self.entry {
            None => drop(made.insert("l".to_owned(), AttributeValue::Bool(true))),
            Some(entry) => {
                let ending = match entry.ending {
                    Ending::Dead => "D".to_owned(),
                    Ending::Before(before) => format!("B{before}"),
                };
                made.insert("e".to_owned(), string(&ending));
                // An empty attribute is left out.
                if !entry.sealed.is_empty() {
                    made.insert("n".to_owned(), blob(&entry.sealed));
                }
            }
        }
        if !self.is_logged {
            made.insert("u".to_owned(), AttributeValue::Bool(true));
        }
        if !self.lifted.is_empty() {
            let map: HashMap<_, _> =
                self.lifted.iter().map(|(region, version)| (region.clone(), blob(version))).collect();
            made.insert("r".to_owned(), AttributeValue::M(map));
        }
        item::set_expiry(&mut made, self.expires);
        made
    }
}

impl Together {
    /// The entries that no region has lifted and that have not expired, merged.
    pub fn in_force(&self, now: u64) -> Option<Entry> {
        let live = self.0.iter().filter(|(region, stored)| !self.is_lifted(region, stored));
        let entries = live.filter_map(|(_, stored)| stored.entry.clone());
        entries.filter(|entry| entry.expires.is_none_or(|expires| expires > now)).reduce(Entry::merge)
    }

    /// Has another region lifted this state of the item?
    pub fn is_lifted(&self, region: &str, stored: &Stored) -> bool {
        self.0.values().any(|other| other.lifted.get(region).is_some_and(|version| *version == stored.version))
    }

    /// # Errors
    /// An item is not ours.
    pub fn read(items: &[Item]) -> Result<BTreeMap<RevocationKey, Together>, StoreError> {
        let mut all: BTreeMap<RevocationKey, Together> = BTreeMap::new();
        for found in items {
            let (key, region) = item::key_of(found).ok_or(StoreError::StoreFailed)?;
            all.entry(key).or_default().0.insert(region.to_owned(), Stored::read(found)?);
        }
        Ok(all)
    }
}

/// The names of `key` in all of `regions`.
pub fn names<'k>(
    key: &'k RevocationKey,
    regions: impl Iterator<Item = &'k str> + 'k,
) -> impl Iterator<Item = Name> + 'k {
    regions.map(move |region| item::revocation(key, region))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RevocationKey = RevocationKey([3; 16]);

    fn stored(version: u8, ending: Ending, expires: Option<u64>) -> Stored {
        let entry = Some(Entry { ending, sealed: vec![version], expires });
        Stored {
            version: vec![version; 8],
            number: u64::from(version),
            entry,
            is_logged: false,
            lifted: BTreeMap::new(),
            expires,
        }
    }

    #[test]
    fn entries_are_read_back_as_written() {
        for ending in [Ending::Dead, Ending::Before(7)] {
            let mut one = stored(1, ending, Some(9000));
            one.lifted.insert("b".to_owned(), vec![9; 8]);
            assert_eq!(Stored::read(&one.item(&KEY, "a")), Ok(one.clone()));
            one.entry = None;
            assert_eq!(Stored::read(&one.item(&KEY, "a")), Ok(one));
        }
        let mut foreign = stored(1, Ending::Dead, None).item(&KEY, "a");
        foreign.insert("e".to_owned(), string("L"));
        assert_eq!(Stored::read(&foreign), Err(StoreError::StoreFailed));
    }

    #[test]
    fn regions_are_merged_and_a_lift_removes_what_it_saw_and_nothing_later() {
        let mut all = Together::default();
        assert_eq!(all.in_force(5), None);
        all.0.insert("a".to_owned(), stored(1, Ending::Before(7), None));
        all.0.insert("b".to_owned(), stored(2, Ending::Dead, Some(10)));
        let now = all.in_force(5).unwrap();
        assert_eq!((now.ending, now.expires), (Ending::Dead, None));
        assert_eq!(all.in_force(10).unwrap().ending, Ending::Before(7), "what has expired does not count");
        // Region a lifts both.
        let mut lift = stored(3, Ending::Dead, None);
        (lift.entry, lift.lifted) = (None, BTreeMap::from([("b".to_owned(), vec![2; 8])]));
        all.0.insert("a".to_owned(), lift);
        assert_eq!(all.in_force(5), None);
        all.0.insert("b".to_owned(), stored(4, Ending::Before(1), None));
        assert_eq!(all.in_force(5).unwrap().ending, Ending::Before(1), "revoked again");
    }
}
