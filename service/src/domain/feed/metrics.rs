//! What is measured of the feed.
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use wire::feed::Trouble;

use crate::base::metrics::{Counters, Gauge};

type FloatGauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

#[derive(Debug, Clone)]
pub struct Metrics {
    polls: Counters,
    troubles: Counters,
    rounds: Counters,
    gaps: Counter,
    snapshots: Counter,
    snapshot_bytes: Gauge,
    followers: Gauge,
    keys: Gauge,
    bytes: Gauge,
    complete: FloatGauge,
}

/// A poll that is being answered.
pub struct Follower(Gauge);

/// How a poll ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollResult {
    Keys,
    /// There was nothing new.
    Nothing,
    Piece,
    /// Made with another secret, or malformed.
    Refused,
    Trouble,
}

impl PollResult {
    const ALL: [PollResult; 5] =
        [PollResult::Keys, PollResult::Nothing, PollResult::Piece, PollResult::Refused, PollResult::Trouble];

    fn name(self) -> &'static str {
        match self {
            PollResult::Keys => "keys",
            PollResult::Nothing => "nothing",
            PollResult::Piece => "piece",
            PollResult::Refused => "refused",
            PollResult::Trouble => "trouble",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            polls: Counters::new("result", PollResult::ALL.map(PollResult::name)),
            troubles: Counters::new("trouble", Trouble::ALL.map(Trouble::name)),
            rounds: Counters::new("result", ["done", "failed"]),
            gaps: Counter::default(),
            snapshots: Counter::default(),
            snapshot_bytes: Gauge::default(),
            followers: Gauge::default(),
            keys: Gauge::default(),
            bytes: Gauge::default(),
            complete: FloatGauge::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.polls.register(registry, "feed_polls", "Polls of followers by result");
        self.troubles.register(registry, "feed_troubles", "Polls that could not be answered, by reason");
        self.rounds.register(registry, "feed_rounds", "Reads of what is new in the store, by result");
        let help = "Shards that had to be read anew, because their log did not lead on";
        registry.register("feed_gaps", help, self.gaps.clone());
        registry.register("feed_snapshots", "Snapshots made", self.snapshots.clone());
        registry.register("feed_snapshot_bytes", "Size of the last snapshot", self.snapshot_bytes.clone());
        registry.register("feed_followers", "Polls in progress", self.followers.clone());
        registry.register("feed_keys", "Revocations in memory for the feed", self.keys.clone());
        registry.register("feed_bytes", "About what they take of memory", self.bytes.clone());
        let help = "When the feed was complete last, in Unix seconds; 0: it is not";
        registry.register("feed_complete_timestamp_seconds", help, self.complete.clone());
    }

    pub fn polled(&self, result: PollResult) {
        self.polls.count(result.name());
    }

    pub fn failed(&self, trouble: Trouble) {
        self.polls.count(PollResult::Trouble.name());
        self.troubles.count(trouble.name());
    }

    pub(super) fn follower(&self) -> Follower {
        self.followers.inc();
        Follower(self.followers.clone())
    }

    pub(super) fn round<E>(&self, gaps: Result<usize, E>, complete: Option<Instant>, keys: usize) {
        self.rounds.count(if gaps.is_ok() { "done" } else { "failed" });
        self.gaps.inc_by(gaps.unwrap_or(0) as u64);
        self.keys.set(keys as u64);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = |complete: Instant| now.saturating_sub(complete.elapsed()).as_secs_f64();
        self.complete.set(complete.map_or(0.0, seconds));
    }

    pub(super) fn bytes(&self, bytes: usize) {
        self.bytes.set(bytes as u64);
    }

    pub(super) fn snapshot(&self, bytes: usize) {
        self.snapshots.inc();
        self.snapshot_bytes.set(bytes as u64);
    }

    pub(super) fn forgotten(&self) {
        self.keys.set(0);
        self.bytes.set(0);
        self.complete.set(0.0);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.dec();
    }
}
