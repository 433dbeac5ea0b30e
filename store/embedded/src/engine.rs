//! The open file: reads with proof, on threads that may block. The writer closes and opens it again after a failure.
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::{Database, Error, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, TableDefinition, Value};
use store::clock::unix_millis;
use store::throttle::Throttle;
use store::{StoreError, StoreId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::tables::META;

/// The longest that a read of single entries may take.
pub const SHORT_READ: Duration = Duration::from_secs(1);
/// The longest that a read of many may take.
pub const LONG_READ: Duration = Duration::from_secs(10);
/// Reads at the same time. Each has a thread.
const MAX_READS: usize = 64;

#[derive(Debug)]
pub struct Engine {
    pub path: PathBuf,
    pub id: StoreId,
    place: FilePlace,
    /// `None`: closed after a failure.
    database: RwLock<Option<Arc<Database>>>,
    reads: Arc<Semaphore>,
    failures: Throttle,
}

/// Tells one file from another under the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePlace {
    device: u64,
    inode: u64,
}

/// One view of the file, which does not change.
pub struct Reading {
    transaction: ReadTransaction,
    pub now: u64,
}

impl Reading {
    pub fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, Error> {
        Ok(self.transaction.open_table(table)?)
    }
}

impl FilePlace {
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Engine {
    pub fn new(path: PathBuf, id: StoreId, place: FilePlace, database: Database) -> Self {
        let database = RwLock::new(Some(Arc::new(database)));
        Self { path, id, place, database, reads: Arc::new(Semaphore::new(MAX_READS)), failures: Throttle::default() }
    }

    /// Runs `read` on a thread of its own.
    ///
    /// # Errors
    /// The file is not the store that was opened, or cannot be read in time.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        read: impl FnOnce(&Reading) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let engine = Arc::clone(self);
        let reading = async {
            let place = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| StoreError::StoreFailed)?;
            let read = tokio::task::spawn_blocking(move || {
                let _place = place;
                engine.read(read)
            });
            // It panicked.
            read.await.unwrap_or(Err(StoreError::StoreFailed))
        };
        timeout(limit, reading).await.unwrap_or(Err(StoreError::StoreSlow))
    }

    /// As [`Engine::ask`], on this thread.
    pub fn read<T>(&self, read: impl FnOnce(&Reading) -> Result<T, Error>) -> Result<T, StoreError> {
        let database = self.database().ok_or(StoreError::StoreFailed)?;
        let done = (|| {
            let reading = Reading { transaction: database.begin_read()?, now: unix_millis() };
            let id = reading.table(META)?.get("id")?.map(|id| id.value().to_vec());
            if id.as_deref() != Some(self.id.to_string().as_bytes()) {
                return Ok(None);
            }
            read(&reading).map(Some)
        })();
        // Last, so that an earlier loss is noticed.
        self.is_in_place()?;
        match done {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err(StoreError::StoreChanged),
            Err(error) => {
                self.tell("cannot read the store", &error);
                Err(StoreError::StoreFailed)
            }
        }
    }

    /// Whether the path still leads to the file that is open.
    pub fn is_in_place(&self) -> Result<(), StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if FilePlace::of(&metadata) == self.place => Ok(()),
            Ok(_) => Err(StoreError::StoreChanged),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::StoreChanged),
            Err(_) => Err(StoreError::StoreFailed),
        }
    }

    pub fn health(&self) -> Result<(), StoreError> {
        self.is_in_place()?;
        if self.database().is_some() { Ok(()) } else { Err(StoreError::StoreFailed) }
    }

    pub fn database(&self) -> Option<Arc<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a failure. Reads in progress go on.
    pub fn close(&self) {
        self.database.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether `database`, which was opened again, is this store.
    pub fn reopen(&self, database: Database, id: StoreId, place: FilePlace) -> bool {
        let is_ours = id == self.id && place == self.place;
        if is_ours {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        }
        is_ours
    }

    pub fn tell(&self, what: &'static str, error: &dyn std::fmt::Display) {
        if let Some(left_out) = self.failures.pass(std::time::Instant::now()) {
            tracing::error!(file = %self.path.display(), %error, left_out, "{what}");
        }
    }
}
