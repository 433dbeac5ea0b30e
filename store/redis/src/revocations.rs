//! Revocations on Redis: read from the server that holds the bucket's lease, written to every server that must have
//! them.
use async_trait::async_trait;
use redis::Cmd;
use std::time::Duration;

use store::{
    Ending, Lifted, ListError, MergedRevocation, Page, Revocation, RevocationStore, StoreError, StoreId,
    StoredRevocation, WriteError, Written,
};
use wire::{Answer, RevocationKey};

use crate::RedisStore;
use crate::contents::{FOR_EVER, Name};
use crate::entry::MAX_BEFORE;
use crate::log;
use crate::mirror::Change;
use crate::redis_store::finish;

#[async_trait]
impl RevocationStore for RedisStore {
    fn id(&self) -> Option<StoreId> {
        self.reader.identity.id()
    }

    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let answers = self.reader.check(keys).await?;
        self.lag.tell(keys, &answers);
        Ok(answers)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.reader.health()
    }

    fn epoch(&self) -> u64 {
        self.reader.topology.routes().epoch
    }

    async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        self.reader.show(key).await
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        self.reader.list(cursor, limit).await
    }

    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let written = self.revoke_everywhere(revocations).await;
        written.inspect_err(|error| self.reader.observer.revocation_failed(error))
    }

    async fn show_all(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        self.reader.stored(keys).await
    }

    async fn merge(&self, entries: Vec<MergedRevocation>, slack: Duration) -> Result<u64, WriteError> {
        if entries.is_empty() {
            return Ok(0);
        }
        let names: Vec<_> = entries.iter().map(|entry| Name::of_revocation(entry.key)).collect();
        let commands = names.iter().zip(&entries).map(|(name, entry)| (name.bucket, merge(name, entry, slack)));
        let mirrored = self.mirrored(&names);
        let written = self.merge_writer.run_all(commands.collect()).await;
        let (written, _) = finish(mirrored, written, Change::Other)
            .await
            .inspect_err(|error| self.reader.observer.revocation_failed(error))?;
        self.check_durable(&names)?;
        let count = |reply| redis::from_redis_value::<u64>(reply).unwrap_or(0);
        Ok(written.replies.into_iter().map(count).sum())
    }

    async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Lifted, WriteError> {
        let names: Vec<_> = keys.iter().map(|key| Name::of_revocation(*key)).collect();
        let lifts = keys.iter().map(|key| log::lift(*key)).collect();
        let lifted = self.writer.lift(keys).await?;
        let mut durability = lifted.durability;
        if let Some(mirror) = &self.mirror {
            durability = durability.and(mirror.remove(&names, lifts).await?);
        }
        self.check_durable(&names)?;
        Ok(Lifted { removed: lifted.removed, durability })
    }

    fn told_revoked(&self, keys: &[RevocationKey]) {
        self.lag.tell_ended(keys.iter().copied());
    }
}

fn merge(name: &Name, entry: &MergedRevocation, slack: Duration) -> Cmd {
    let mut value = match entry.ending {
        Ending::Dead => b"D;".to_vec(),
        Ending::Before(before) => format!("B{};", before.min(MAX_BEFORE)).into_bytes(),
    };
    value.extend_from_slice(&entry.sealed);
    // Less than a millisecond would be no expiry.
    let millis = |ttl: Duration| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1);
    let slack = u64::try_from(slack.as_millis()).unwrap_or(u64::MAX);
    name.merge_revocation(value, entry.ttl.map_or(FOR_EVER, millis), slack)
}

impl RedisStore {
    async fn revoke_everywhere(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let names: Vec<_> = revocations.iter().map(|revocation| Name::of_revocation(revocation.key)).collect();
        let mirrored = self.mirrored(&names);
        let written = self.writer.revoke(revocations).await;
        let least: Vec<_> = written.iter().flat_map(|written| &written.in_force).map(|entry| entry.ending).collect();
        let (written, mirrored) = finish(mirrored, written, Change::Revoked(&least)).await?;
        self.check_durable(&names)?;
        Ok(Written { in_force: written.in_force, durability: written.durability.and(mirrored) })
    }
}
