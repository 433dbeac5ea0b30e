//! The parts of the store share this: reads, writes, and writes that go to the mirror too.
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use redis::{Cmd, Value};
use store::{Durability, Observer, StoreError, WriteError};

use crate::config::Config;
use crate::contents::Name;
use crate::entry::Bucket;
use crate::identity::StoreIdentity;
use crate::lag::Lag;
use crate::mirror::{Change, Mirror, MirrorWrite};
use crate::options::{Access, Mode, RedisOptionsError};
use crate::reader::Reader;
use crate::source::Source;
use crate::topology::{self, MonitorConfig, Role};
use crate::transfer::{MAX_MIRRORED_AUDIT_ENTRIES, Transfer};
use crate::writer::{WriteTerms, Writer};

/// Reads and writes have connections of their own: a write waits for disks, and a check must not wait for a write.
#[derive(Debug)]
pub struct RedisStore {
    pub(crate) reader: Arc<Reader>,
    pub(crate) writer: Writer,
    /// For revocations of other regions, so that ours do not queue up behind them. It connects when it is used.
    pub(crate) merge_writer: Writer,
    /// For writes that may be lost. It waits for no disk, and no revocation waits for it.
    pub(crate) quick_writer: Arc<Writer>,
    pub(crate) lag: Lag,
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// Audit entries that this instance appended.
    pub(crate) appended: AtomicU32,
}

impl RedisStore {
    /// Returns when the first attempt to reach Redis is over, whether it succeeded or not. Further attempts follow in the
    /// background until the store is dropped.
    ///
    /// # Errors
    /// See [`RedisOptionsError`].
    pub async fn open(config: &Config, observer: Arc<dyn Observer>) -> Result<Self, RedisOptionsError> {
        let access = config.redis.access()?;
        if access.options.mode != Mode::Single && config.min_replicas == 0 {
            tracing::warn!("with --min-replicas 0 a failover may lose revocations that were acknowledged");
        }
        let identity = StoreIdentity::default();
        if let Some(id) = config.store_id {
            identity.set(id);
        }
        let reader = Arc::new(open_reader(config, &access, &identity, Role::Primary, &observer).await);
        let mirror = open_mirror(config, &reader, observer).await?;
        let terms = WriteTerms::from(config);
        let writer = |terms| Writer::new(access.clone(), Arc::clone(&reader.topology), identity.clone(), terms);
        let quick_writer = Arc::new(writer(terms.fire_and_forget()));
        let merge_writer = writer(terms);
        let writer = writer(terms);
        let lag = Lag::new(Arc::clone(&reader), Arc::clone(&quick_writer), !config.allow.replica);
        Ok(Self { reader, writer, merge_writer, quick_writer, lag, mirror, appended: AtomicU32::new(0) })
    }

    /// Waits for at most `limit` until the mirror lacks none of this instance's writes. Returns how many names it still
    /// lacks.
    pub async fn settle(&self, limit: Duration) -> usize {
        match &self.mirror {
            Some(mirror) => mirror.settle(limit).await,
            None => 0,
        }
    }

    /// As [`Reader::read`].
    pub(crate) async fn read(&self, bucket: Bucket, asks: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.reader.read(bucket, asks).await
    }

    /// Runs one command that changes only the entry under `name`. Waits until the change is as durable as configured,
    /// in this store and in the mirror.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub(crate) async fn write(&self, name: &Name, command: Cmd) -> Result<Value, WriteError> {
        let names = std::slice::from_ref(name);
        let mirrored = self.mirrored(names);
        let written = self.writer.run(name.bucket, command).await;
        // XADD replies with the id of the entry.
        let id = match &written {
            Ok((id, _)) if *name == Name::of_audit() => redis::from_redis_value::<String>(id.clone()).ok(),
            _ => None,
        };
        let change = id.as_deref().map_or(Change::Other, Change::Appended);
        let ((reply, _), _) = finish(mirrored, written, change).await?;
        self.check_durable(names)?;
        Ok(reply)
    }

    /// Like [`RedisStore::write`], for a command that removes something. The mirror runs the same command.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub(crate) async fn remove(&self, name: &Name, command: Cmd) -> Result<Value, WriteError> {
        let names = std::slice::from_ref(name);
        let (reply, _) = self.writer.run(name.bucket, command.clone()).await?;
        if let Some(mirror) = &self.mirror {
            mirror.remove(names, vec![command]).await?;
        }
        self.check_durable(names)?;
        Ok(reply)
    }

    /// A write that is about to begin, if there is a mirror.
    pub(crate) fn mirrored<'a>(&'a self, names: &'a [Name]) -> Option<MirrorWrite<'a>> {
        self.mirror.as_deref().map(|mirror| MirrorWrite::new(mirror, names))
    }

    /// A write to a server that may evict, or that is a replica by now, is not acknowledged.
    pub(crate) fn check_durable(&self, names: &[Name]) -> Result<(), WriteError> {
        let buckets: Vec<_> = names.iter().map(|name| name.bucket).collect();
        match self.reader.may_forget(&buckets) {
            true => Err(WriteError::Unconfirmed("the store may lose it (store_unsafe)".into())),
            false => Ok(()),
        }
    }
}

/// Copies to the mirror every write that was made or may have been made.
pub async fn finish<T>(
    mirrored: Option<MirrorWrite<'_>>,
    written: Result<T, WriteError>,
    change: Change<'_>,
) -> Result<(T, Option<Durability>), WriteError> {
    match (mirrored, written) {
        (None, written) => written.map(|written| (written, None)),
        (Some(mirrored), Ok(written)) => Ok((written, mirrored.copy(change).await?)),
        (Some(mirrored), Err(error)) => {
            mirrored.abandon(&error);
            Err(error)
        }
    }
}

async fn open_mirror(
    config: &Config,
    reader: &Arc<Reader>,
    observer: Arc<dyn Observer>,
) -> Result<Option<Arc<Mirror>>, RedisOptionsError> {
    let Some(mirror) = &config.mirror else { return Ok(None) };
    let access = mirror.redis.access()?;
    let identity = StoreIdentity::for_writing();
    if let Some(id) = mirror.store_id {
        identity.set(id);
    }
    let there = open_reader(config, &access, &identity, Role::Mirror, &observer).await;
    let terms = WriteTerms { min_replicas: mirror.min_replicas, ..WriteTerms::from(config) };
    let to = Writer::new(access, Arc::clone(&there.topology), identity.clone(), terms);
    let transfer =
        Transfer { from: Source::Redis(Arc::clone(reader)), to, there, audit_entries: MAX_MIRRORED_AUDIT_ENTRIES };
    Ok(Some(Mirror::new(transfer, reader.identity.clone(), identity, observer)))
}

/// Returns when the first attempt to reach the servers is over.
async fn open_reader(
    config: &Config,
    access: &Access,
    identity: &StoreIdentity,
    role: Role,
    observer: &Arc<dyn Observer>,
) -> Reader {
    let limit = config.redis_timeout;
    let monitor = MonitorConfig {
        access: access.clone(),
        allow: config.allow,
        limit,
        identity: identity.clone(),
        // A mirror is prepared by `portcullis migrate`.
        create: config.create && role == Role::Primary,
        role,
        observer: Arc::clone(observer),
    };
    let topology = Arc::new(topology::start(monitor).await);
    Reader { topology, identity: identity.clone(), limit, observer: Arc::clone(observer) }
}
