//! Revocations in Redis: which Redis, whether it may be trusted, what is read from and written to it.
mod connect;
mod create;
mod entry;
mod keeper;
mod lag;
mod once;
mod reader;
mod redis_options;
mod routes;
mod sentinels;
mod standing;
mod topology;
mod writer;

use std::sync::{Arc, OnceLock};

use redis::{Cmd, Value};
use wire::check::Trouble;
use wire::{Answer, RevocationKey};

pub use create::{CreateError, create_store};
pub use entry::{Bucket, StoreId, StoreIdError};
pub use once::Claim;
pub use reader::{Page, Stored};
pub use redis_options::{Mode, RedisOptions, RedisOptionsError};
pub use standing::Allow;
pub use writer::{Confirmed, Ends, Revocation, WriteError, Written};

use crate::Options;
use crate::metrics::Metrics;
use keeper::Orders;
use lag::Lag;
use reader::Reader;
use writer::Writer;

/// Reads and writes have connections of their own: a write waits for disks, a check must not wait for it.
#[derive(Debug)]
pub struct Store {
    reader: Reader,
    writer: Writer,
    lag: Lag,
}

/// The one store that we answer from, once we know which. Set once: another store is never taken for it.
#[derive(Debug, Clone, Default)]
pub struct Pin(Arc<OnceLock<StoreId>>);

impl Store {
    /// Returns once the first attempt to reach Redis has ended, well or not. Lives on by itself after that.
    ///
    /// # Errors
    /// See [`RedisOptionsError`].
    pub async fn open(options: Arc<Options>, metrics: Arc<Metrics>) -> Result<Self, RedisOptionsError> {
        let access = options.redis.access()?;
        if access.options.mode != Mode::Single && options.min_replicas == 0 {
            tracing::warn!("with --min-replicas 0 a failover may lose revocations that were acknowledged");
        }
        let pin = Pin::default();
        if let Some(id) = options.store_id {
            pin.set(id);
        }
        let orders = Orders {
            access: access.clone(),
            allow: options.allow(),
            limit: options.redis_timeout,
            pin: pin.clone(),
            create: options.create_store,
            metrics: Some(Arc::clone(&metrics)),
        };
        let kept = Arc::new(keeper::keep(orders).await);
        let reader = Reader { kept: Arc::clone(&kept), pin: pin.clone(), limit: options.redis_timeout, metrics };
        let lag = Lag::new(reader.clone(), !options.dangerously_allow_replica);
        let writer = Writer::new(access, kept, pin, options);
        Ok(Self { reader, writer, lag })
    }

    /// One answer for each key, in order, from one round trip that also proves which store gave them.
    ///
    /// # Errors
    /// Why nothing can be said of any of the keys.
    pub async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, Trouble> {
        let answers = self.reader.check(keys).await?;
        self.lag.tell(keys, &answers);
        Ok(answers)
    }

    /// What [`Store::check`] would say of `keys` is told to somebody who asked for something else.
    pub fn told_ended(&self, keys: impl Iterator<Item = RevocationKey>) {
        self.lag.tell_ended(keys);
    }

    /// What is known without asking Redis.
    ///
    /// # Errors
    /// As for [`Store::check`].
    pub fn standing(&self) -> Result<(), Trouble> {
        self.reader.standing()
    }

    /// # Errors
    /// As for [`Store::check`].
    pub async fn show(&self, key: RevocationKey) -> Result<Option<Stored>, Trouble> {
        self.reader.show(key).await
    }

    /// # Errors
    /// As for [`Store::check`].
    pub async fn list(&self, cursor: u64, limit: usize) -> Result<Page, Trouble> {
        self.reader.list(cursor, limit).await
    }

    /// Writes all of `revocations` and waits until they are as safe as the options ask.
    ///
    /// # Errors
    /// See [`WriteError`]: it tells apart what was not written and what was not confirmed.
    pub async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let buckets: Vec<_> = revocations.iter().map(|revocation| Bucket::of(revocation.key.0)).collect();
        let written = self.writer.revoke(revocations).await.and_then(|written| {
            self.confirm(&buckets)?;
            Ok(written)
        });
        written.inspect_err(|error| self.reader.metrics.revocation_failed(error))
    }

    /// Removes `keys`.
    ///
    /// # Errors
    /// As for [`Store::revoke`].
    pub async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Written, WriteError> {
        let buckets: Vec<_> = keys.iter().map(|key| Bucket::of(key.0)).collect();
        let written = self.writer.lift(keys).await?;
        self.confirm(&buckets)?;
        Ok(written)
    }

    /// Runs commands that only read, all of whose names are of `bucket`, on the server that has it now. One reply each;
    /// in the same round trip the server proved that it holds our store. While the bucket is on its way to another
    /// server of a Cluster there are no replies.
    ///
    /// One command that writes may come here too, if nothing depends on its surviving; after an error it may have been
    /// done.
    ///
    /// # Errors
    /// As for [`Store::check`]; a reply that is an error of Redis is [`Trouble::StoreFailed`].
    pub async fn read(&self, bucket: Bucket, asks: &[Cmd]) -> Result<Vec<Value>, Trouble> {
        self.reader.read(bucket, asks).await
    }

    /// Runs one command that writes, all of whose names are of `bucket` (a script, where it takes several steps), and
    /// waits until it is as safe as the options ask.
    ///
    /// # Errors
    /// As for [`Store::revoke`].
    pub async fn write(&self, bucket: Bucket, command: Cmd) -> Result<(Value, Confirmed), WriteError> {
        let written = self.writer.run(bucket, command).await?;
        self.confirm(&[bucket])?;
        Ok(written)
    }

    /// A write to a server that may forget is not acknowledged.
    fn confirm(&self, buckets: &[Bucket]) -> Result<(), WriteError> {
        match self.reader.may_forget(buckets) {
            true => Err(WriteError::Unconfirmed("the store may forget it (store_unsafe)".into())),
            false => Ok(()),
        }
    }
}

impl Pin {
    fn id(&self) -> Option<StoreId> {
        self.0.get().copied()
    }

    fn set(&self, id: StoreId) {
        // Only the first counts.
        let _ = self.0.set(id);
    }
}
