//! Revocations in the table.
use std::time::{Duration, Instant};

use async_trait::async_trait;
use store::clock::unix_millis;
use store::{
    Durability, Lifted, ListError, MergedRevocation, Page, Revocation, RevocationStore, StoreError, StoreId,
    StoredRevocation, WriteError, Written,
};
use wire::{Answer, RevocationKey};

use crate::dynamo_store::DynamoStore;
use crate::entry::{Entry, Together, left};
use crate::item::{self, Hex};
use crate::table::Range;
use crate::writer::{Change, Outcome};

/// What DynamoDB promises of a write that it has answered.
const ON_DISK: Durability = Durability { on_disk: true, replicas: 0 };
/// Entries of other stores that are written together: revocations come in between.
const MERGED_TOGETHER: usize = 256;
/// Items of a page of the list; a key has one for each region.
const MIN_PAGE_ITEMS: usize = 64;

#[async_trait]
impl RevocationStore for DynamoStore {
    fn id(&self) -> Option<StoreId> {
        self.table.id()
    }

    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let began = Instant::now();
        let found = self.table.together(keys.iter()).await;
        self.observer.read(began.elapsed());
        let (found, now) = (found?, unix_millis());
        let answer = |key| found.get(key).and_then(|all: &Together| all.in_force(now));
        let answers: Vec<_> =
            keys.iter().map(|key| answer(key).map_or(Answer::Live, |entry| entry.ending.into())).collect();
        self.lag.answered(keys, &answers).into_iter().for_each(|lag| self.observer.revocation_lag(lag));
        Ok(answers)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.table.health()
    }

    async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        Ok(self.show_all(&[key]).await?.pop())
    }

    async fn show_all(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        let (found, now) = (self.table.together(keys.iter()).await?, unix_millis());
        Ok(found.iter().filter_map(|(key, all)| Some(shown(*key, all.in_force(now)?, now))).collect())
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let mut after = match cursor {
            None => None,
            Some(cursor) => Some(cursor.parse::<RevocationKey>().map_err(|()| ListError::InvalidCursor)?),
        };
        let first = after.map_or(0, |RevocationKey([first, ..])| first);
        let mut revocations = Vec::new();
        for bucket in first..=u8::MAX {
            loop {
                // After every item of the key: `~` sorts after the letters of regions.
                let from = after.take().map_or_else(String::new, |key| format!("{}#~", Hex(&key.0)));
                let from = if from.is_empty() { "0".to_owned() } else { from };
                let most = limit.max(MIN_PAGE_ITEMS);
                let range = Range { from, to: "~".to_owned(), limit: most, newest_first: false };
                let found = self.table.range_unproved(&item::bucket(bucket), range).await?;
                let mut all = Together::read(&found)?;
                let is_whole = found.len() < most;
                if !is_whole {
                    // The last key may have more items.
                    if all.len() > 1 {
                        all.pop_last();
                    }
                    after = all.last_key_value().map(|(key, _)| *key);
                }
                let now = unix_millis();
                for (key, all) in all {
                    if revocations.len() >= limit {
                        break;
                    }
                    revocations.extend(all.in_force(now).map(|entry| shown(key, entry, now)));
                }
                if is_whole || revocations.len() >= limit {
                    break;
                }
            }
            if revocations.len() >= limit {
                break;
            }
        }
        self.table.read(Vec::new()).await?;
        let cursor = revocations.last().filter(|_| revocations.len() >= limit).map(|last| last.key.to_string());
        Ok(Page { revocations, cursor })
    }

    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let keys: Vec<_> = revocations.iter().map(|revocation| revocation.key).collect();
        let written = self.writer.write(revocations.into_iter().map(Change::Revoke).collect()).await;
        let outcomes = written.inspect_err(|error| self.observer.revocation_failed(error))?;
        let is_new = |outcome: &Outcome| matches!(outcome, Outcome::InForce(_, true));
        let new = keys.into_iter().zip(&outcomes).filter(|(_, outcome)| is_new(outcome)).map(|(key, _)| key);
        self.lag.revoked(new);
        let in_force = outcomes.into_iter().filter_map(|outcome| match outcome {
            Outcome::InForce(in_force, _) => Some(in_force),
            Outcome::Changed(_) => None,
        });
        Ok(Written { in_force: in_force.collect(), durability: ON_DISK })
    }

    async fn merge(&self, entries: Vec<MergedRevocation>, slack: Duration) -> Result<u64, WriteError> {
        let mut written = 0;
        for entries in entries.chunks(MERGED_TOGETHER) {
            let changes = entries.iter().map(|entry| Change::Merge(entry.clone(), slack)).collect();
            let outcomes =
                self.writer.write(changes).await.inspect_err(|error| self.observer.revocation_failed(error))?;
            written += changed(&outcomes);
        }
        Ok(written)
    }

    async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Lifted, WriteError> {
        let outcomes = self.writer.write(keys.into_iter().map(Change::Lift).collect()).await?;
        Ok(Lifted { removed: changed(&outcomes), durability: ON_DISK })
    }

    fn told_revoked(&self, keys: &[RevocationKey]) {
        self.lag.told(keys.iter()).into_iter().for_each(|lag| self.observer.revocation_lag(lag));
    }
}

fn changed(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|outcome| u64::from(*outcome == Outcome::Changed(true))).sum()
}

fn shown(key: RevocationKey, entry: Entry, now: u64) -> StoredRevocation {
    let answer = Some(entry.ending.into());
    StoredRevocation { key, answer, sealed: entry.sealed, expires_in: left(entry.expires, now) }
}
