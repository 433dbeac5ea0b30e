//! The feed: this instance's copy of all revocations, kept by following the store's log, and what followers get of it.
//!
//! Nothing is read from the store until a follower polls, and nothing is kept when none has polled for a while.
mod changes;
mod cursor;
mod follow;
mod history;
mod live;
mod metrics;
mod picture;
mod poll;
mod snapshot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::{RevocationLog, StoreError};
use tokio::sync::{Notify, Semaphore, watch};

pub use changes::{Changes, KeyPage};
pub use metrics::{Metrics, PollResult};
use picture::Picture;
pub use poll::{MAX_WAIT, millis};
use snapshot::Snapshots;

#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// From the beginning of a round to the next one.
    pub round: Duration,
    /// Polls that are served at the same time. 0: no feed is offered to filters.
    pub max_followers: usize,
    /// Whether other regions may follow.
    pub serves_regions: bool,
}

#[derive(Debug)]
pub struct Feed {
    log: Arc<dyn RevocationLog>,
    config: Config,
    state: Mutex<State>,
    /// Held while a snapshot is made, so that one is made at a time.
    snapshots: tokio::sync::Mutex<Snapshots>,
    followers: Semaphore,
    /// Counts what waiting polls look at again.
    changes: watch::Sender<u64>,
    /// Asks for a round now.
    wake: Notify,
    is_followed: AtomicBool,
    is_stopping: AtomicBool,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    picture: Picture,
    /// Why the last round failed.
    error: Option<StoreError>,
    last_poll: Option<Instant>,
}

/// Tells the feed that this instance has written revocations.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Option<Arc<Feed>>);

impl Feed {
    pub fn new(log: Arc<dyn RevocationLog>, config: Config, metrics: Metrics) -> Arc<Self> {
        let picture = Picture::new(log.shards(), Instant::now());
        Arc::new(Self {
            log,
            config,
            state: Mutex::new(State { picture, error: None, last_poll: None }),
            snapshots: tokio::sync::Mutex::default(),
            followers: Semaphore::new(config.max_followers),
            changes: watch::Sender::new(0),
            wake: Notify::new(),
            is_followed: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            metrics,
        })
    }

    /// Follows the store until `on_end` says so.
    pub fn start(self: &Arc<Self>, on_end: &watch::Receiver<bool>) {
        if self.config.max_followers > 0 || self.config.serves_regions {
            tokio::spawn(Arc::clone(self).run(on_end.clone()));
        }
    }

    /// Answers every poll now, and those that come.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.announce();
    }

    pub fn nudge(self: &Arc<Self>) -> Nudge {
        Nudge(Some(Arc::clone(self)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Nudge {
    /// Some were written: the next round begins now.
    pub fn written(&self) {
        if let Some(feed) = &self.0
            && feed.is_followed.load(Ordering::Relaxed)
        {
            feed.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
