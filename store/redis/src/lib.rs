//! The store on Redis: which Redis, whether it may be trusted, what is read from and written to it.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![forbid(unsafe_code)]

mod also;
mod audit;
mod config;
mod connect;
mod contents;
mod create;
mod entry;
mod issuers;
mod keeper;
mod lag;
mod migrate;
mod reader;
mod redis_options;
mod replay_guard;
mod revocations;
mod routes;
mod sentinels;
mod sessions;
mod standing;
mod topology;
mod transfer;
mod writer;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, Value};
use store::{AuditBounds, Durability, Observer, StoreError, StoreId, WriteError};

pub use config::{Config, MirrorConfig};
use contents::Name;
pub use create::{CreateError, create_store, prepare_store};
use entry::{Bucket, Sentinel};
pub use migrate::{MigrateError, Migration, Progress, Report, Tally, migrate};
pub use redis_options::{Mode, RedisOptions, RedisOptionsError};
pub use standing::Allow;

use also::{Also, Just, Owed};
use keeper::{Orders, Role};
use lag::Lag;
use reader::Reader;
use redis_options::Access;
use transfer::Transfer;
use writer::{Terms, Writer};

/// Reads and writes have connections of their own: a write waits for disks, a check must not wait for it.
#[derive(Debug)]
pub struct RedisStore {
    reader: Arc<Reader>,
    writer: Writer,
    /// For what may be lost: it waits for no disk, and no revocation waits for it.
    light: Arc<Writer>,
    lag: Lag,
    /// Where every write goes too.
    also: Option<Arc<Also>>,
    /// Audit entries that this instance appended.
    appended: AtomicU32,
}

/// Of the stream in the other store. More than in ours, which is trimmed by age as well: nothing is trimmed there first.
const AUDIT_ENTRIES: usize = AuditBounds::MAX_ENTRIES + AuditBounds::MAX_ENTRIES / 10;

/// The one store that we answer from, once we know which. Set once: another store is never taken for it.
#[derive(Debug, Clone, Default)]
pub struct Pin {
    id: Arc<OnceLock<StoreId>>,
    /// It may still be filled: it is written to and not answered from.
    filling: bool,
}

impl RedisStore {
    /// Returns once the first attempt to reach Redis has ended, well or not. Lives on by itself after that.
    ///
    /// # Errors
    /// See [`RedisOptionsError`].
    pub async fn open(config: &Config, observer: Arc<dyn Observer>) -> Result<Self, RedisOptionsError> {
        let access = config.redis.access()?;
        if access.options.mode != Mode::Single && config.min_replicas == 0 {
            tracing::warn!("with --min-replicas 0 a failover may lose revocations that were acknowledged");
        }
        let pin = Pin::default();
        if let Some(id) = config.store_id {
            pin.set(id);
        }
        let reader = Arc::new(kept(config, &access, &pin, Role::Ours, &observer).await);
        let also = Self::open_also(config, &reader, observer).await?;
        let terms = Terms::from(config);
        let light = Arc::new(Writer::new(access.clone(), Arc::clone(&reader.kept), pin.clone(), terms.of_no_matter()));
        let lag = Lag::new(Arc::clone(&reader), Arc::clone(&light), !config.allow.replica);
        let writer = Writer::new(access, Arc::clone(&reader.kept), pin, terms);
        Ok(Self { reader, writer, light, lag, also, appended: AtomicU32::new(0) })
    }

    async fn open_also(
        config: &Config,
        reader: &Arc<Reader>,
        observer: Arc<dyn Observer>,
    ) -> Result<Option<Arc<Also>>, RedisOptionsError> {
        let Some(mirror) = &config.mirror else { return Ok(None) };
        let access = mirror.redis.access()?;
        let pin = Pin::for_writing();
        if let Some(id) = mirror.store_id {
            pin.set(id);
        }
        let there = kept(config, &access, &pin, Role::Also, &observer).await;
        let terms = Terms { min_replicas: mirror.min_replicas, ..Terms::from(config) };
        let to = Writer::new(access, Arc::clone(&there.kept), pin.clone(), terms);
        let transfer = Transfer { from: Arc::clone(reader), to, there, audit_entries: AUDIT_ENTRIES };
        Ok(Some(Also::new(transfer, reader.pin.clone(), pin, observer)))
    }

    /// Waits until the other store lacks nothing that this instance knows of, for `limit` at the most. How many names it
    /// lacks.
    pub async fn settle(&self, limit: Duration) -> usize {
        match &self.also {
            Some(also) => also.settle(limit).await,
            None => 0,
        }
    }

    /// Runs commands that only read, all of whose names are of `bucket`, on the server that has it now. One reply each;
    /// in the same round trip the server proved that it holds our store. While the bucket is on its way to another
    /// server of a Cluster there are no replies.
    ///
    /// None that writes may come here: Redis can hold up writes, in a failover that is asked for say, and every check behind one
    /// on its connection would wait with it.
    ///
    /// # Errors
    /// As for [`RedisStore::check`]; a reply that is an error of Redis is [`StoreError::StoreFailed`].
    async fn read(&self, bucket: Bucket, asks: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.reader.read(bucket, asks).await
    }

    /// Runs one command that adds to or changes what lies under `name` and nothing else (a script, where it takes several
    /// steps), and waits until it is as safe as the options ask, here and in the other store.
    ///
    /// # Errors
    /// As for [`RedisStore::revoke`].
    async fn write(&self, name: &Name, command: Cmd) -> Result<Value, WriteError> {
        let names = std::slice::from_ref(name);
        let owed = self.owed(names);
        let written = self.writer.run(name.bucket, command).await;
        // What Redis says to XADD.
        let id = match &written {
            Ok((id, _)) if *name == Name::of_audit() => redis::from_redis_value::<String>(id.clone()).ok(),
            _ => None,
        };
        let just = id.as_deref().map_or(Just::Changed, Just::Added);
        let ((reply, _), _) = bring(owed, written, just).await?;
        self.confirm(names)?;
        Ok(reply)
    }

    /// As [`RedisStore::write`], for a command that takes something away: run on the other store as it is.
    ///
    /// # Errors
    /// As for [`RedisStore::revoke`].
    async fn remove(&self, name: &Name, command: Cmd) -> Result<Value, WriteError> {
        let names = std::slice::from_ref(name);
        let (reply, _) = self.writer.run(name.bucket, command.clone()).await?;
        if let Some(also) = &self.also {
            also.remove(names, vec![command]).await?;
        }
        self.confirm(names)?;
        Ok(reply)
    }

    /// What is about to be written, if there is another store.
    fn owed<'a>(&'a self, names: &'a [Name]) -> Option<Owed<'a>> {
        self.also.as_deref().map(|also| Owed::new(also, names))
    }

    /// A write to a server that may forget is not acknowledged.
    fn confirm(&self, names: &[Name]) -> Result<(), WriteError> {
        let buckets: Vec<_> = names.iter().map(|name| name.bucket).collect();
        match self.reader.may_forget(&buckets) {
            true => Err(WriteError::Unconfirmed("the store may forget it (store_unsafe)".into())),
            false => Ok(()),
        }
    }
}

/// Returns once the first attempt to reach the servers has ended; who reads from them, as long as it lives.
async fn kept(config: &Config, access: &Access, pin: &Pin, role: Role, observer: &Arc<dyn Observer>) -> Reader {
    let limit = config.redis_timeout;
    let orders = Orders {
        access: access.clone(),
        allow: config.allow,
        limit,
        pin: pin.clone(),
        // The other store is made by who moves ours there.
        create: config.create && role == Role::Ours,
        role,
        observer: Arc::clone(observer),
    };
    let kept = Arc::new(keeper::keep(orders).await);
    Reader { kept, pin: pin.clone(), limit, observer: Arc::clone(observer) }
}

/// What was written, or may have been, goes to the other store too.
async fn bring<T>(
    owed: Option<Owed<'_>>,
    written: Result<T, WriteError>,
    just: Just<'_>,
) -> Result<(T, Option<Durability>), WriteError> {
    match (owed, written) {
        (None, written) => written.map(|written| (written, None)),
        (Some(owed), Ok(written)) => Ok((written, owed.pay(just).await?)),
        (Some(owed), Err(error)) => {
            owed.refuse(&error);
            Err(error)
        }
    }
}

impl Pin {
    /// Of a store that is only written to.
    fn for_writing() -> Self {
        Self { filling: true, ..Self::default() }
    }

    fn id(&self) -> Option<StoreId> {
        self.id.get().copied()
    }

    fn set(&self, id: StoreId) {
        // Only the first counts.
        let _ = self.id.set(id);
    }

    /// The store that a sentinel proves, if it may be used as we use it.
    fn usable(&self, sentinel: Sentinel) -> Option<StoreId> {
        match sentinel {
            Sentinel::Whole(id) => Some(id),
            Sentinel::Filling(id) if self.filling => Some(id),
            Sentinel::Missing | Sentinel::New(_) | Sentinel::Filling(_) | Sentinel::Strange => None,
        }
    }

    /// Whether it is the sentinel of our store.
    fn takes(&self, sentinel: Sentinel) -> bool {
        self.usable(sentinel).is_some_and(|id| self.id() == Some(id))
    }
}
