//! Revocations in the file.
use std::time::{Duration, Instant};

use async_trait::async_trait;
use store::{
    Change, Durability, Ending, Ends, InForce, Lifted, ListError, MergedRevocation, Page, Revocation, RevocationStore,
    StoreError, StoreId, StoredRevocation, WriteError, Written,
};
use wire::{Answer, RevocationKey};

use crate::embedded_store::EmbeddedStore;
use crate::engine::{LONG_READ, SHORT_READ};
use crate::log;
use crate::revocation::{Entry, expiry};
use crate::tables::{ENTRIES, Kind, Tables, Use, is_live, not_ours};

/// What a commit confirms.
const ON_DISK: Durability = Durability { on_disk: true, replicas: 0 };

#[async_trait]
impl RevocationStore for EmbeddedStore {
    fn id(&self) -> Option<StoreId> {
        Some(self.engine.id)
    }

    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let began = Instant::now();
        let asked = keys.to_vec();
        let answers = self.engine.ask(SHORT_READ, move |reading| {
            let entries = reading.table(ENTRIES)?;
            let answer = |key: &RevocationKey| {
                let found = entries.get(&Kind::Revocation.of(&key.0)[..])?;
                match found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now)) {
                    None => Ok(Answer::Live),
                    Some(value) => Entry::decode(value).map(|entry| entry.ending.into()).ok_or_else(not_ours),
                }
            };
            asked.iter().map(answer).collect::<Result<Vec<_>, redb::Error>>()
        });
        let answers = answers.await;
        self.observer.read(began.elapsed());
        let answers = answers?;
        self.lag.answered(keys, &answers).into_iter().for_each(|lag| self.observer.revocation_lag(lag));
        Ok(answers)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.engine.health()
    }

    async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        let show = move |reading: &crate::engine::Reading| {
            let found = reading.table(ENTRIES)?.get(&Kind::Revocation.of(&key.0)[..])?;
            let value = found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now));
            Ok(value.map(|value| stored(key, value, reading.now)))
        };
        self.engine.ask(SHORT_READ, show).await
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(cursor.parse::<RevocationKey>().map_err(|()| ListError::InvalidCursor)?),
        };
        let list = move |reading: &crate::engine::Reading| {
            let entries = reading.table(ENTRIES)?;
            let from = Kind::Revocation.of(after.as_ref().map_or(&[], |key| &key.0[..]));
            let mut revocations = Vec::new();
            for found in entries.range::<&[u8]>(&from[..]..)? {
                let (entry, value) = found?;
                let Some((tag, key)) = entry.value().split_first() else { continue };
                if *tag != Kind::Revocation.tag() || revocations.len() >= limit {
                    break;
                }
                let key = RevocationKey(key.try_into().map_err(|_| not_ours())?);
                if Some(key) != after && is_live(value.value(), reading.now) {
                    revocations.push(stored(key, value.value(), reading.now));
                }
            }
            Ok(revocations)
        };
        let revocations = self.engine.ask(LONG_READ, list).await?;
        let cursor = revocations.last().filter(|_| revocations.len() >= limit).map(|last| last.key.to_string());
        Ok(Page { revocations, cursor })
    }

    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let tolerance = self.future_iat_tolerance_seconds;
        let keys: Vec<_> = revocations.iter().map(|revocation| revocation.key).collect();
        let written = self.writer.write(move |tables| {
            let bytes = revocations.iter().map(|revocation| 128 + revocation.sealed.len()).sum();
            if let Err(full) = tables.has_room(Use::Revocations, revocations.len(), bytes) {
                return Ok(Err(full));
            }
            let all = revocations.into_iter().map(|revocation| revoke(tables, revocation, tolerance));
            all.collect::<Result<Vec<_>, _>>().map(Ok)
        });
        match written.await {
            Ok(written) => {
                let new = keys.into_iter().zip(&written).filter(|(_, (_, is_new))| *is_new).map(|(key, _)| key);
                self.lag.revoked(new);
                Ok(Written { in_force: written.into_iter().map(|(entry, _)| entry).collect(), durability: ON_DISK })
            }
            Err(error) => {
                self.observer.revocation_failed(&error);
                Err(error)
            }
        }
    }

    async fn show_all(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        let keys = keys.to_vec();
        let show = move |reading: &crate::engine::Reading| {
            let entries = reading.table(ENTRIES)?;
            let mut all = Vec::new();
            for key in keys {
                let found = entries.get(&Kind::Revocation.of(&key.0)[..])?;
                let value = found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now));
                all.extend(value.map(|value| stored(key, value, reading.now)));
            }
            Ok(all)
        };
        self.engine.ask(LONG_READ, show).await
    }

    async fn merge(&self, entries: Vec<MergedRevocation>, slack: Duration) -> Result<u64, WriteError> {
        let merged = self.writer.write(move |tables| {
            let bytes = entries.iter().map(|entry| 128 + entry.sealed.len()).sum();
            if let Err(full) = tables.has_room(Use::Revocations, entries.len(), bytes) {
                return Ok(Err(full));
            }
            let mut written = 0;
            for entry in entries {
                written += u64::from(merge(tables, entry, slack)?);
            }
            Ok(Ok(written))
        });
        merged.await.inspect_err(|error| self.observer.revocation_failed(error))
    }

    async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Lifted, WriteError> {
        let lift = move |tables: &mut Tables<'_>| {
            let mut removed = 0;
            for key in keys {
                if tables.remove(&Kind::Revocation.of(&key.0))? {
                    log::append(tables, Change::Lifted { key })?;
                    removed += 1;
                }
            }
            Ok(Ok(removed))
        };
        let removed = self.writer.write(lift).await?;
        Ok(Lifted { removed, durability: ON_DISK })
    }

    fn told_revoked(&self, keys: &[RevocationKey]) {
        self.lag.told(keys.iter()).into_iter().for_each(|lag| self.observer.revocation_lag(lag));
    }
}

/// What is in force then, and whether nothing was before.
fn revoke(tables: &mut Tables<'_>, revocation: Revocation, tolerance: u64) -> Result<(InForce, bool), redb::Error> {
    let Revocation { key, ends, sealed, ttl } = revocation;
    let seconds = tables.now / 1000;
    // One more than now, since iat loses its fraction. A token that an issuer with a fast clock signs now is revoked too.
    let before = |then: u64| Ending::Before(then.saturating_add(1).saturating_add(tolerance));
    let ending = match ends {
        Ends::ForGood => Ending::Dead,
        Ends::IssuedUntilNow => before(seconds),
        Ends::IssuedUntil(then) => before(then.min(seconds)),
    };
    let name = Kind::Revocation.of(&key.0);
    let new = Entry { expires: expiry(tables.now, ttl), ending, sealed };
    let old = tables.get(&name)?;
    let is_new = old.is_none();
    let entry = match old {
        None => new,
        Some(old) => Entry::decode(&old).ok_or_else(not_ours)?.merge(new),
    };
    tables.put(&name, &entry.encode())?;
    let in_force = entry.in_force(tables.now);
    log::append(tables, Change::Revoked { key, expires_in: in_force.expires_in })?;
    Ok((in_force, is_new))
}

/// Whether it was written.
fn merge(tables: &mut Tables<'_>, merged: MergedRevocation, slack: Duration) -> Result<bool, redb::Error> {
    let MergedRevocation { key, ending, sealed, ttl } = merged;
    let name = Kind::Revocation.of(&key.0);
    let new = Entry { expires: expiry(tables.now, ttl), ending, sealed };
    let entry = match tables.get(&name)? {
        None => new,
        Some(old) => {
            let old = Entry::decode(&old).ok_or_else(not_ours)?;
            if old.covers(&new, slack) {
                return Ok(false);
            }
            // Of two that are equally strong, the note of the one that is here stays.
            new.merge(old)
        }
    };
    tables.put(&name, &entry.encode())?;
    log::append(tables, Change::Revoked { key, expires_in: entry.in_force(tables.now).expires_in })?;
    Ok(true)
}

fn stored(key: RevocationKey, value: &[u8], now: u64) -> StoredRevocation {
    match Entry::decode(value) {
        Some(entry) => entry.stored(key, now),
        None => StoredRevocation { key, answer: None, sealed: Vec::new(), expires_in: None },
    }
}
