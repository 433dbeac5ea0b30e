//! The tables of the file, and changes to them within one transaction.
//!
//! ```text
//! meta      form, id, bytes, time       the version of this form; the store's id; the size of the contents; the last write
//! entries   r <key>                     a revocation (revocation.rs)
//!           s <name>                    a session (session.rs)
//!           u <subject> <sid>           a session of a subject
//!           j <digest>                  the mark of a token that may be used once
//!           w <session>                 from where a session was used
//! expiries  <expiry> <entry>            for each entry that expires, to find those that have
//! heads     <shard>                     the place after the last entry of the shard's log
//! log       <shard> <sequence>          a change to a revocation (log.rs)
//! audit     <milliseconds> <number>     an entry of the audit log
//! issuers   <kinds> <issuer>            when it was last announced
//! ```
//! Every value in `entries` begins with its expiry in Unix milliseconds (8 bytes; all ones: never). An expired entry counts as
//! absent. It is removed some time later: a clock that was ahead for a moment does not remove what is still needed.
use redb::{Error, ReadableTable, Table, TableDefinition, WriteTransaction};
use store::{StoreError, StoreId, WriteError};

use crate::codec::Decoder;
use crate::revocation::NEVER;

pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");
pub const EXPIRIES: TableDefinition<&[u8], ()> = TableDefinition::new("expiries");
pub const HEADS: TableDefinition<u8, (u64, u64)> = TableDefinition::new("heads");
pub const LOG: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("log");
pub const AUDIT: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("audit");
pub const ISSUERS: TableDefinition<&[u8], u64> = TableDefinition::new("issuers");

pub const FORM: u64 = 1;
/// How long an expired entry stays in the file.
pub const REMOVED_AFTER_MILLIS: u64 = 10 * 60 * 1000;
/// The share of the room that only revocations and the claims that lead to them may use: a store full of sessions can still
/// revoke them.
const RESERVED_SHARE: u64 = 10;
/// What an entry takes beside its name and its value, about.
const OVERHEAD: u64 = 64;

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Revocation,
    Session,
    Subject,
    Mark,
    Sightings,
}

impl Kind {
    pub const fn tag(self) -> u8 {
        match self {
            Kind::Revocation => b'r',
            Kind::Session => b's',
            Kind::Subject => b'u',
            Kind::Mark => b'j',
            Kind::Sightings => b'w',
        }
    }

    /// The name of an entry.
    pub fn of(self, name: &[u8]) -> Vec<u8> {
        let mut entry = Vec::with_capacity(1 + name.len());
        entry.push(self.tag());
        entry.extend_from_slice(name);
        entry
    }
}

/// What may grow up to which part of the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Revocations,
    Others,
}

/// The bounds of one transaction.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub max_bytes: u64,
    /// Nothing may grow.
    pub is_disk_full: bool,
}

/// All tables, opened to be changed.
pub struct Tables<'txn> {
    meta: Table<'txn, &'static str, &'static [u8]>,
    entries: Table<'txn, &'static [u8], &'static [u8]>,
    expiries: Table<'txn, &'static [u8], ()>,
    pub heads: Table<'txn, u8, (u64, u64)>,
    pub log: Table<'txn, (u8, u64), &'static [u8]>,
    pub audit: Table<'txn, (u64, u64), &'static [u8]>,
    pub issuers: Table<'txn, &'static [u8], u64>,
    bounds: Bounds,
    bytes: u64,
    /// Unix milliseconds. It never goes back, also when the clock does: what is written now must not expire, or end logins, by
    /// an earlier time than what was written before.
    pub now: u64,
}

impl<'txn> Tables<'txn> {
    pub fn open(transaction: &'txn WriteTransaction, now: u64, bounds: Bounds) -> Result<Self, Error> {
        let meta = transaction.open_table(META)?;
        let bytes = number(meta.get("bytes")?.map(|value| value.value().to_vec()).as_deref())?;
        let last = number(meta.get("time")?.map(|value| value.value().to_vec()).as_deref())?;
        Ok(Self {
            meta,
            entries: transaction.open_table(ENTRIES)?,
            expiries: transaction.open_table(EXPIRIES)?,
            heads: transaction.open_table(HEADS)?,
            log: transaction.open_table(LOG)?,
            audit: transaction.open_table(AUDIT)?,
            issuers: transaction.open_table(ISSUERS)?,
            bounds,
            bytes,
            now: now.max(last),
        })
    }

    /// Writes what every store has. Only for a new file.
    pub fn begin(&mut self, id: StoreId) -> Result<(), Error> {
        self.meta.insert("form", &FORM.to_be_bytes()[..])?;
        self.meta.insert("id", id.to_string().as_bytes())?;
        Ok(())
    }

    /// Must be the last change of a transaction.
    pub fn close(mut self) -> Result<u64, Error> {
        self.meta.insert("bytes", &self.bytes.to_be_bytes()[..])?;
        self.meta.insert("time", &self.now.to_be_bytes()[..])?;
        Ok(self.bytes)
    }

    /// # Errors
    /// There is no room for `more` bytes in `entries` more values.
    pub fn has_room(&self, usage: Use, entries: usize, more: usize) -> Result<(), WriteError> {
        let most = match usage {
            Use::Revocations => self.bounds.max_bytes,
            Use::Others => self.bounds.max_bytes - self.bounds.max_bytes / RESERVED_SHARE,
        };
        let more = (entries as u64).saturating_mul(OVERHEAD * 2).saturating_add(more as u64);
        match !self.bounds.is_disk_full && self.bytes.saturating_add(more) <= most {
            true => Ok(()),
            false => Err(WriteError::NotWritten(StoreError::StoreFailed)),
        }
    }

    /// Bytes that are not in `entries`.
    pub fn account(&mut self, added: usize, removed: usize) {
        let size = |bytes: usize| if bytes == 0 { 0 } else { bytes as u64 + OVERHEAD };
        self.bytes = self.bytes.saturating_add(size(added)).saturating_sub(size(removed));
    }

    /// The value of an entry that has not expired.
    pub fn get(&self, entry: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self.entries.get(entry)?;
        let found = found.as_ref().map(redb::AccessGuard::value);
        Ok(found.filter(|value| is_live(value, self.now)).map(<[u8]>::to_vec))
    }

    /// Entries that have not expired, by a prefix of their names.
    pub fn with_prefix(&self, prefix: &[u8]) -> Result<Vec<Row>, Error> {
        within(&self.entries, prefix, self.now)
    }

    pub fn put(&mut self, entry: &[u8], value: &[u8]) -> Result<(), Error> {
        self.remove(entry)?;
        self.entries.insert(entry, value)?;
        if let Some(key) = expiry_key(entry, value)? {
            self.expiries.insert(&key[..], ())?;
        }
        self.account(size(entry, value.len()), 0);
        Ok(())
    }

    /// Whether there was one that had not expired.
    pub fn remove(&mut self, entry: &[u8]) -> Result<bool, Error> {
        let Some(old) = self.entries.remove(entry)?.map(|value| value.value().to_vec()) else { return Ok(false) };
        if let Some(key) = expiry_key(entry, &old)? {
            self.expiries.remove(&key[..])?;
        }
        self.account(0, size(entry, old.len()));
        Ok(is_live(&old, self.now))
    }

    /// Removes entries that expired long ago by `clock`. Returns how many.
    pub fn purge(&mut self, clock: u64, most: usize) -> Result<usize, Error> {
        let until = clock.saturating_sub(REMOVED_AFTER_MILLIS).to_be_bytes();
        let mut old = Vec::new();
        for found in self.expiries.range::<&[u8]>(..&until[..])?.take(most) {
            old.push(found?.0.value().get(8..).unwrap_or_default().to_vec());
        }
        for entry in &old {
            self.remove(entry)?;
        }
        Ok(old.len())
    }
}

/// An entry's name and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Entries that have not expired, by a prefix of their names.
pub fn within(
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    now: u64,
) -> Result<Vec<Row>, Error> {
    let mut all = Vec::new();
    for found in entries.range::<&[u8]>(prefix..)? {
        let (entry, value) = found?;
        if !entry.value().starts_with(prefix) {
            break;
        }
        if is_live(value.value(), now) {
            all.push((entry.value().to_vec(), value.value().to_vec()));
        }
    }
    Ok(all)
}

/// Whether an entry has not expired. One without an expiry is not ours, and is not taken for absent.
pub fn is_live(value: &[u8], now: u64) -> bool {
    Decoder(value).number().is_none_or(|expires| expires == NEVER || expires > now)
}

pub fn not_ours() -> Error {
    Error::Corrupted("a value is not ours".to_owned())
}

fn size(entry: &[u8], value: usize) -> usize {
    2 * entry.len() + value
}

/// `None`: it does not expire.
fn expiry_key(entry: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    match Decoder(value).number().ok_or_else(not_ours)? {
        NEVER => Ok(None),
        expires => Ok(Some([&expires.to_be_bytes()[..], entry].concat())),
    }
}

/// 0 for a number that was never written.
fn number(value: Option<&[u8]>) -> Result<u64, Error> {
    match value {
        None => Ok(0),
        Some(value) => value.try_into().map(u64::from_be_bytes).map_err(|_| not_ours()),
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database};

    use super::*;
    use crate::codec::Encoder;

    const BOUNDS: Bounds = Bounds { max_bytes: 1 << 20, is_disk_full: false };

    fn changed<T>(database: &Database, now: u64, change: impl FnOnce(&mut Tables<'_>) -> T) -> T {
        let transaction = database.begin_write().unwrap();
        let mut tables = Tables::open(&transaction, now, BOUNDS).unwrap();
        let done = change(&mut tables);
        tables.close().unwrap();
        transaction.commit().unwrap();
        done
    }

    fn expiring(at: u64) -> Vec<u8> {
        Encoder::default().number(at).byte(1).end()
    }

    #[test]
    fn an_expired_entry_counts_as_absent_and_leaves_the_file_later() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        changed(&database, 1000, |tables| {
            tables.put(b"r1", &expiring(2000)).unwrap();
            tables.put(b"r2", &expiring(NEVER)).unwrap();
        });
        changed(&database, 2000, |tables| {
            assert_eq!(tables.get(b"r1").unwrap(), None);
            assert!(tables.get(b"r2").unwrap().is_some());
            assert_eq!(tables.purge(2000 + REMOVED_AFTER_MILLIS, 10).unwrap(), 0);
            let before = tables.bytes;
            assert_eq!(tables.purge(2001 + REMOVED_AFTER_MILLIS, 10).unwrap(), 1);
            assert!(tables.bytes < before);
            assert_eq!(tables.entries.iter().unwrap().count(), 1);
            assert!(tables.remove(b"r2").unwrap());
            assert_eq!(tables.bytes, 0, "what was added is taken away again");
        });
    }

    #[test]
    fn the_time_of_writes_does_not_go_back_with_the_clock() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        changed(&database, 5000, |tables| assert_eq!(tables.now, 5000));
        changed(&database, 3000, |tables| assert_eq!(tables.now, 5000));
        changed(&database, 6000, |tables| assert_eq!(tables.now, 6000));
    }
}
