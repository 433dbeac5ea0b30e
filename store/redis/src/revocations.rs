//! Revocations on Redis: read from the server that holds the bucket's lease, written to every server that must have
//! them.
use async_trait::async_trait;
use store::{Lifted, ListError, Page, Revocation, RevocationStore, StoreError, StoredRevocation, WriteError, Written};
use wire::{Answer, RevocationKey};

use crate::RedisStore;
use crate::contents::Name;
use crate::log;
use crate::mirror::Change;
use crate::redis_store::finish;

#[async_trait]
impl RevocationStore for RedisStore {
    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let answers = self.reader.check(keys).await?;
        self.lag.tell(keys, &answers);
        Ok(answers)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.reader.health()
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
