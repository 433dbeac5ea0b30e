//! The one thread that writes. Writes that arrive while it commits are committed together, by the next commit.
//!
//! A commit has two phases, each with an fsync. With one phase, redb would take a damaged last commit for an interrupted one
//! and go back to the commit before, which was acknowledged too (docs/decisions/0155).
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, Error};
use store::clock::unix_millis;
use store::{Observer, StoreError, WriteError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::file::{self, Opened};
use crate::tables::{Bounds, Tables};

/// The longest that a write may take.
pub const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Writes that wait. Further ones are refused.
const MAX_QUEUE: usize = 4096;
/// Writes in one commit.
const MAX_TOGETHER: usize = 1024;
/// How often it looks after the file while nothing is written.
const TICK: Duration = Duration::from_millis(500);
/// Expired entries that are removed with a commit, at least, and for each of its writes; and without other writes.
const PURGE_BESIDE: usize = 64;
const PURGE_FOR_EACH: usize = 4;
const PURGE_ALONE: usize = 2048;
/// Between attempts to open the file again after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// With less space on the disk nothing grows, so that no commit fails half way.
const MIN_FREE_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub struct Writer {
    /// `None`: about to end.
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// A change, and its caller who waits.
trait Job: Send {
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Error>;
    fn finish(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Task<W, T> {
    work: Option<W>,
    made: Option<Result<T, WriteError>>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<W, T> Job for Task<W, T>
where
    W: FnOnce(&mut Tables<'_>) -> Result<Result<T, WriteError>, Error> + Send,
    T: Send,
{
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        if let Some(work) = self.work.take() {
            self.made = Some(work(tables)?);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), WriteError>) {
        let made = self.made.unwrap_or(Err(WriteError::NotWritten(StoreError::StoreFailed)));
        // Its caller may be gone.
        let _ = self.reply.send(outcome.and(made));
    }
}

impl Writer {
    pub fn start(engine: Arc<Engine>, max_bytes: u64, observer: Arc<dyn Observer>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(MAX_QUEUE);
        let work = Work { engine, max_bytes, observer, retry: None, pause: FIRST_RETRY, may_purge: true };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || work.run(&jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Makes a change, and waits until it is on disk. `work` either makes all of it or nothing.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<Result<T, WriteError>, Error> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (reply, done) = oneshot::channel();
        let job = Box::new(Task { work: Some(work), made: None, reply });
        let queue = self.queue.as_ref().ok_or(WriteError::NotWritten(StoreError::StoreFailed))?;
        queue.try_send(job).map_err(|error| {
            WriteError::NotWritten(match error {
                TrySendError::Full(_) => StoreError::StoreSlow,
                TrySendError::Disconnected(_) => StoreError::StoreFailed,
            })
        })?;
        match timeout(WRITE_LIMIT, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(WriteError::Unknown(StoreError::StoreFailed)),
            Err(_) => Err(WriteError::Unknown(StoreError::StoreSlow)),
        }
    }
}

/// Waits until everything that was queued is written.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Work {
    engine: Arc<Engine>,
    max_bytes: u64,
    observer: Arc<dyn Observer>,
    /// When to open the file again.
    retry: Option<Instant>,
    pause: Duration,
    /// There may be expired entries.
    may_purge: bool,
}

impl Work {
    fn run(mut self, jobs: &Receiver<Box<dyn Job>>) {
        let mut looked_after = Instant::now();
        self.look_after();
        loop {
            match jobs.recv_timeout(TICK) {
                Ok(first) => {
                    let mut together = vec![first];
                    while together.len() < MAX_TOGETHER {
                        match jobs.try_recv() {
                            Ok(next) => together.push(next),
                            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                        }
                    }
                    // More than the writes can add: else what has expired would fill a store that is never idle.
                    let purge = PURGE_BESIDE.max(together.len().saturating_mul(PURGE_FOR_EACH));
                    self.commit(together, purge);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.may_purge {
                        self.commit(Vec::new(), PURGE_ALONE);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked_after.elapsed() >= TICK {
                looked_after = Instant::now();
                self.look_after();
            }
        }
    }

    fn look_after(&mut self) {
        if self.retry.is_some_and(|at| at <= Instant::now()) {
            self.open_again();
        }
        self.may_purge = self.engine.read(|reading| Ok(has_expired(reading))).unwrap_or(false);
        self.observer.ready(self.engine.health().is_ok());
        if let Ok(metadata) = std::fs::metadata(&self.engine.path) {
            self.observer.file_bytes(metadata.len());
        }
    }

    /// Commits all of `jobs`, or none.
    fn commit(&mut self, mut jobs: Vec<Box<dyn Job>>, purge: usize) {
        let began = Instant::now();
        let outcome = self.try_commit(&mut jobs, purge);
        self.observer.committed(jobs.len(), began.elapsed());
        for job in jobs {
            job.finish(outcome.clone());
        }
    }

    fn try_commit(&mut self, jobs: &mut [Box<dyn Job>], purge: usize) -> Result<(), WriteError> {
        self.engine.is_in_place().map_err(WriteError::NotWritten)?;
        let Some(database) = self.engine.database() else {
            return Err(WriteError::NotWritten(StoreError::StoreFailed));
        };
        let bounds = Bounds { max_bytes: self.max_bytes, is_disk_full: is_disk_full(&self.engine) };
        if bounds.is_disk_full {
            self.engine.tell("the disk is almost full: nothing is added to the store", &"too little free space");
        }
        // A panic in the engine counts as a failure of it.
        let written = catch_unwind(AssertUnwindSafe(|| write(&database, jobs, purge, bounds)));
        drop(database);
        let failed = match written {
            Ok(Ok(used)) => {
                self.observer.stored_bytes(used, self.max_bytes);
                // What was written into a file that nobody will open again is not acknowledged.
                return self.engine.is_in_place().map_err(WriteError::Unknown);
            }
            Ok(Err(Failed::Before(error))) => {
                self.engine.tell("cannot write to the store", &error);
                if !is_engine_failure(&error) {
                    return Err(WriteError::NotWritten(StoreError::StoreFailed));
                }
                WriteError::NotWritten(StoreError::StoreFailed)
            }
            Ok(Err(Failed::Commit(error))) => {
                self.engine.tell("cannot commit to the store", &error);
                WriteError::Unknown(StoreError::StoreFailed)
            }
            Err(_) => {
                self.engine.tell("cannot write to the store", &"the engine panicked");
                WriteError::Unknown(StoreError::StoreFailed)
            }
        };
        // The pages in memory may not be those on disk any more.
        self.engine.close();
        self.retry = Some(Instant::now() + self.pause);
        Err(failed)
    }

    /// Reads the whole file, as at the start.
    fn open_again(&mut self) {
        let opened = file::open(&self.engine.path);
        let is_open = match opened {
            Ok(Opened { database, id, place }) => self.engine.reopen(database, id, place),
            Err(error) => {
                self.engine.tell("cannot open the store again", &error);
                false
            }
        };
        if is_open {
            tracing::info!(file = %self.engine.path.display(), "the store is open again");
            (self.retry, self.pause) = (None, FIRST_RETRY);
        } else {
            self.pause = (self.pause * 2).min(LAST_RETRY);
            self.retry = Some(Instant::now() + self.pause);
        }
    }
}

enum Failed {
    /// Nothing was written.
    Before(Error),
    Commit(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed::Before(error.into())
    }
}

fn write(database: &Database, jobs: &mut [Box<dyn Job>], purge: usize, bounds: Bounds) -> Result<u64, Failed> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    let clock = unix_millis();
    let mut tables = Tables::open(&transaction, clock, bounds)?;
    for job in jobs {
        job.apply(&mut tables)?;
    }
    tables.purge(clock, purge)?;
    let used = tables.close()?;
    transaction.commit().map_err(|error| Failed::Commit(error.into()))?;
    Ok(used)
}

/// Whether the file must be opened again, rather than one value being wrong.
fn is_engine_failure(error: &Error) -> bool {
    matches!(
        error,
        Error::Io(_) | Error::PreviousIo | Error::DatabaseClosed | Error::LockPoisoned(_) | Error::Backend(_)
    )
}

fn has_expired(reading: &crate::engine::Reading) -> bool {
    let until = reading.now.saturating_sub(crate::tables::REMOVED_AFTER_MILLIS).to_be_bytes();
    reading
        .table(crate::tables::EXPIRIES)
        .is_ok_and(|expiries| expiries.range::<&[u8]>(..&until[..]).is_ok_and(|mut found| found.next().is_some()))
}

fn is_disk_full(engine: &Engine) -> bool {
    let folder = engine.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let free = rustix::fs::statvfs(folder.unwrap_or(std::path::Path::new(".")));
    // What cannot be told is not taken for full: a commit that fails is noticed.
    free.is_ok_and(|free| free.f_bavail.saturating_mul(free.f_frsize) < MIN_FREE_BYTES)
}
