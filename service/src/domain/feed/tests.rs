use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32};

use store::memory::{Contents, MemoryStore};
use store::{Ends, Place, Revocation, RevocationStore, ShardNews, StoreId};
use wire::RevocationKey;
use wire::feed::{Cursor, Membership, News, Trouble};

use super::*;

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(20);

struct Store {
    contents: Contents,
    store: Arc<MemoryStore>,
}

impl Store {
    fn new() -> Self {
        let contents = Contents::default();
        contents.create(StoreId::new([1; 16]));
        let store = Arc::new(MemoryStore::open(&contents, Duration::ZERO));
        Self { contents, store }
    }

    fn feed(&self) -> Arc<Feed> {
        let config = Config { round: SOON, max_followers: 10, serves_regions: false };
        let store = Arc::new(MemoryStore::open(&self.contents, Duration::ZERO));
        Feed::new(store, config, Metrics::default())
    }

    async fn revoke(&self, keys: impl IntoIterator<Item = RevocationKey>) {
        let revocation = |key| Revocation { key, ends: Ends::ForGood, sealed: vec![], ttl: Some(LONG) };
        self.store.revoke(keys.into_iter().map(revocation).collect()).await.unwrap();
    }
}

fn key(number: u64) -> RevocationKey {
    // As good as random, as an HMAC is.
    RevocationKey((u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
}

/// As a filter follows.
#[derive(Default)]
struct Follower {
    cursor: Cursor,
    pieces: Vec<Membership>,
    incoming: Vec<Membership>,
    keys: HashSet<RevocationKey>,
    complete: Option<Instant>,
    snapshots: usize,
}

impl Follower {
    fn may_contain(&self, key: &RevocationKey) -> bool {
        self.keys.contains(key) || self.pieces.iter().any(|piece| piece.may_contain(key))
    }

    /// True: everything is here, as of `complete`.
    async fn poll(&mut self, feed: &Arc<Feed>, wait: Duration) -> Result<bool, Trouble> {
        let sent = Instant::now();
        let (cursor, news) = feed.poll(&self.cursor, wait, Instant::now()).await?;
        self.cursor = cursor;
        match news {
            News::Keys { complete_millis, more, keys } => {
                self.keys.extend(keys);
                if more {
                    return Ok(false);
                }
                let millis = Duration::from_millis(complete_millis.unsigned_abs().into());
                self.complete = if complete_millis < 0 { sent.checked_sub(millis) } else { Some(sent + millis) };
                Ok(true)
            }
            News::Piece { piece, pieces, membership } => {
                if piece == 0 {
                    self.incoming.clear();
                    self.snapshots += 1;
                }
                assert_eq!(self.incoming.len(), usize::from(piece), "pieces come in order");
                self.incoming.push(membership);
                if piece + 1 == pieces {
                    self.pieces = std::mem::take(&mut self.incoming);
                    self.keys.clear();
                    self.complete = None;
                }
                Ok(false)
            }
        }
    }

    async fn catch_up(&mut self, feed: &Arc<Feed>) {
        for _ in 0..200 {
            if self.poll(feed, Duration::ZERO).await.unwrap() {
                return;
            }
        }
        panic!("it never has everything");
    }
}

#[tokio::test]
async fn a_follower_gets_a_snapshot_and_then_what_is_new() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let feed = store.feed();
    store.revoke([key(1)]).await;
    assert_eq!(follower.poll(&feed, Duration::ZERO).await, Err(Trouble::Incomplete), "nothing was read yet");
    let before = Instant::now();
    feed.round(before).await.unwrap();
    follower.catch_up(&feed).await;
    assert!(follower.may_contain(&key(1)) && !follower.may_contain(&key(2)));
    assert!(follower.complete.unwrap() <= before, "it does not claim more than the round began with");
    store.revoke([key(2)]).await;
    let before = Instant::now();
    feed.round(before).await.unwrap();
    follower.catch_up(&feed).await;
    assert!(follower.may_contain(&key(2)) && follower.snapshots == 1);
    let complete = follower.complete.unwrap();
    assert!(complete <= before && before - complete < Duration::from_millis(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_poll_ends_with_the_next_revocation_or_with_a_newer_proof() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let feed = store.feed();
    let (_end, on_end) = watch::channel(false);
    feed.start(&on_end);
    let mut other = Follower::default();
    assert!(!follower.poll(&feed, LONG).await.unwrap(), "it waits until the store was read");
    follower.catch_up(&feed).await;
    other.poll(&feed, LONG).await.unwrap();
    other.catch_up(&feed).await;
    let polling = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move {
            let began = Instant::now();
            follower.poll(&feed, Duration::from_secs(10)).await.unwrap();
            (began.elapsed(), follower)
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.revoke([key(1)]).await;
    let (took, follower) = polling.await.unwrap();
    assert!(follower.may_contain(&key(1)) && took < Duration::from_secs(5), "{took:?}");
    other.catch_up(&feed).await;
    let began = Instant::now();
    assert!(other.poll(&feed, Duration::from_millis(300)).await.unwrap());
    assert!(began.elapsed() >= Duration::from_millis(300));
    let complete = other.complete.unwrap();
    assert!(complete > began + Duration::from_millis(100), "taken as late as possible: {:?}", complete - began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_this_instance_is_read_at_once() {
    let store = Store::new();
    let config = Config { round: Duration::from_secs(1), max_followers: 10, serves_regions: false };
    let feed = Feed::new(store.store.clone(), config, Metrics::default());
    let (_end, on_end) = watch::channel(false);
    feed.start(&on_end);
    let mut follower = Follower::default();
    follower.poll(&feed, LONG).await.unwrap();
    follower.catch_up(&feed).await;
    let polling = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move {
            follower.poll(&feed, LONG).await.unwrap();
            assert!(follower.may_contain(&key(1)));
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    store.revoke([key(1)]).await;
    feed.nudge().written();
    polling.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cursor_is_understood_by_another_instance() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let (one, other) = (store.feed(), store.feed());
    let rounds = async || {
        one.round(Instant::now()).await.unwrap();
        other.round(Instant::now()).await.unwrap();
    };
    rounds().await;
    follower.catch_up(&one).await;
    for number in 0..50 {
        store.revoke([key(number)]).await;
        rounds().await;
        follower.catch_up(if number % 2 == 0 { &other } else { &one }).await;
        assert!(follower.may_contain(&key(number)));
    }
    assert_eq!(follower.snapshots, 1);
    // One that starts later reads the last entries of the log too.
    let third = store.feed();
    third.round(Instant::now()).await.unwrap();
    follower.catch_up(&third).await;
    assert_eq!(follower.snapshots, 1);
    // One that is behind for long cannot tell.
    store.revoke([key(100)]).await;
    one.round(Instant::now()).await.unwrap();
    follower.catch_up(&one).await;
    assert_eq!(follower.poll(&other, Duration::ZERO).await, Ok(false));
    assert_eq!(follower.snapshots, 2);
}

#[tokio::test]
async fn followers_that_begin_together_get_one_snapshot_in_pieces_through_any_instance() {
    let store = Store::new();
    let (one, other) = (store.feed(), store.feed());
    store.revoke((0..60_000).map(key)).await;
    one.round(Instant::now()).await.unwrap();
    other.round(Instant::now()).await.unwrap();
    let mut followers: Vec<_> = (0..5).map(|_| Follower::default()).collect();
    for follower in &mut followers {
        assert_eq!(follower.poll(&one, Duration::ZERO).await, Ok(false));
        store.revoke([key(70_000)]).await;
        other.round(Instant::now()).await.unwrap();
        assert_eq!(follower.poll(&other, Duration::ZERO).await, Ok(false));
        one.round(Instant::now()).await.unwrap();
        follower.catch_up(&one).await;
        assert_eq!((follower.snapshots, follower.pieces.len()), (1, 2));
        assert!((0..60_000).chain([70_000]).all(|number| follower.may_contain(&key(number))));
        let others = (100_000..200_000).filter(|number| follower.may_contain(&key(*number))).count();
        assert!(others < 20, "{others} of 100,000 others");
    }
    let kept = one.snapshots.lock().await.find(|_| true).unwrap();
    assert_eq!(Arc::strong_count(&kept), 2, "it is kept");
}

#[tokio::test]
async fn a_lost_log_makes_the_picture_incomplete_until_it_was_read_anew() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let feed = store.feed();
    store.revoke([key(1)]).await;
    feed.round(Instant::now()).await.unwrap();
    follower.catch_up(&feed).await;
    store.contents.drop_log();
    store.revoke([key(2)]).await;
    feed.round(Instant::now()).await.unwrap();
    assert_eq!(follower.poll(&feed, Duration::ZERO).await, Err(Trouble::Incomplete));
    feed.round(Instant::now()).await.unwrap();
    follower.catch_up(&feed).await;
    assert!(follower.may_contain(&key(1)) && follower.may_contain(&key(2)));
    assert_eq!(follower.snapshots, 1, "a small shard is sent as keys");
}

/// A store that takes a while to read a shard anew, and may lose its log each time or fail.
#[derive(Debug)]
struct Troubled {
    store: MemoryStore,
    contents: Contents,
    loses_log: bool,
    fails: AtomicBool,
    read_anew: AtomicU32,
}

impl Troubled {
    fn new(contents: &Contents, loses_log: bool) -> Arc<Self> {
        let (store, contents) = (MemoryStore::open(contents, Duration::ZERO), contents.clone());
        Arc::new(Self { store, contents, loses_log, fails: AtomicBool::new(false), read_anew: AtomicU32::new(0) })
    }
}

#[async_trait::async_trait]
impl RevocationLog for Troubled {
    fn shards(&self) -> usize {
        1
    }

    fn shard_of(&self, key: &RevocationKey) -> usize {
        self.store.shard_of(key)
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::StoreSlow);
        }
        let news = self.store.follow(places).await;
        if places == [None] {
            self.read_anew.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SOON).await;
            if self.loses_log {
                self.contents.drop_log();
            }
        }
        news
    }
}

#[tokio::test]
async fn a_log_that_is_lost_again_and_again_is_not_read_anew_all_the_time() {
    let log = Troubled::new(&Store::new().contents, true);
    let feed =
        Feed::new(log.clone(), Config { round: SOON, max_followers: 10, serves_regions: false }, Metrics::default());
    let (_end, on_end) = watch::channel(false);
    feed.start(&on_end);
    let began = Instant::now();
    while began.elapsed() < SOON * 50 {
        let _ = Follower::default().poll(&feed, SOON).await;
    }
    let most = began.elapsed().as_millis() / (SOON * 10).as_millis() + 1;
    let times = log.read_anew.load(Ordering::Relaxed);
    assert!(times >= 2 && u128::from(times) <= most, "{times} of {most}");
}

#[tokio::test]
async fn an_instance_that_fails_has_no_old_snapshot_for_a_follower_that_knows_more() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let (one, log) = (store.feed(), Troubled::new(&store.contents, false));
    let other =
        Feed::new(log.clone(), Config { round: SOON, max_followers: 10, serves_regions: false }, Metrics::default());
    one.round(Instant::now()).await.unwrap();
    other.round(Instant::now()).await.unwrap();
    store.revoke([key(1)]).await;
    one.round(Instant::now()).await.unwrap();
    follower.catch_up(&one).await;
    log.fails.store(true, Ordering::Relaxed);
    other.round(Instant::now()).await.unwrap_err();
    let trouble = Trouble::Store(StoreError::StoreSlow);
    assert_eq!(follower.poll(&other, Duration::ZERO).await, Err(trouble));
    log.fails.store(false, Ordering::Relaxed);
    other.round(Instant::now()).await.unwrap();
    follower.catch_up(&other).await;
    assert_eq!(follower.snapshots, 1);
}

#[tokio::test]
async fn a_held_poll_is_told_at_once_that_the_store_was_replaced() {
    let (store, mut follower) = (Store::new(), Follower::default());
    let feed = store.feed();
    feed.round(Instant::now()).await.unwrap();
    follower.catch_up(&feed).await;
    let held = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { follower.poll(&feed, LONG).await }
    });
    tokio::time::sleep(SOON).await;
    store.contents.lose();
    store.contents.create(StoreId::new([2; 16]));
    feed.round(Instant::now()).await.unwrap_err();
    let changed = Trouble::Store(StoreError::StoreChanged);
    assert_eq!(held.await.unwrap(), Err(changed));
    assert_eq!(Follower::default().poll(&feed, Duration::ZERO).await, Err(changed));
}

#[tokio::test]
async fn followers_are_bounded_and_a_stop_ends_their_polls() {
    let store = Store::new();
    let feed = store.feed();
    feed.round(Instant::now()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut follower = Follower::default();
        follower.catch_up(&feed).await;
        let feed = Arc::clone(&feed);
        held.push(tokio::spawn(async move { follower.poll(&feed, LONG).await }));
    }
    tokio::time::sleep(SOON).await;
    let mut one_more = Follower::default();
    assert_eq!(one_more.poll(&feed, Duration::ZERO).await, Err(Trouble::TooManyFollowers));
    // A poll whose sender is gone gives its place back.
    held.pop().unwrap().abort();
    tokio::time::sleep(SOON).await;
    one_more.catch_up(&feed).await;
    feed.stop();
    for held in held {
        assert_eq!(held.await.unwrap(), Ok(true));
    }
}

#[tokio::test]
async fn a_feed_that_is_turned_off_says_so() {
    let store = Store::new();
    let config = Config { round: SOON, max_followers: 0, serves_regions: false };
    let feed = Feed::new(store.store.clone(), config, Metrics::default());
    assert_eq!(Follower::default().poll(&feed, LONG).await, Err(Trouble::Disabled));
}

/// A small generator, so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// The promise: everything that was acknowledged before the moment of a proof is in the picture.
#[tokio::test]
async fn whatever_happens_a_proof_covers_what_was_acknowledged_before_it() {
    // At once: they mostly wait for rounds.
    let mut histories: tokio::task::JoinSet<()> = (0..25).map(history).collect();
    while let Some(ended) = histories.join_next().await {
        ended.unwrap();
    }
}

async fn history(seed: u64) {
    let mut random = Random(seed);
    let store = Store::new();
    let feeds: Vec<_> = (0..3).map(|_| store.feed()).collect();
    let mut followers: Vec<_> = (0..3).map(|_| Follower::default()).collect();
    let mut acknowledged: HashMap<RevocationKey, Instant> = HashMap::new();
    let mut proofs = 0;
    for step in 0..400 {
        let feed = &feeds[random.below(3) as usize];
        match random.below(100) {
            0..35 => {
                let count = if random.below(40) == 0 { 1500 } else { 1 + random.below(3) };
                let keys: Vec<_> = (0..count).map(|_| key(random.below(5000))).collect();
                store.revoke(keys.iter().copied()).await;
                let now = Instant::now();
                acknowledged.extend(keys.into_iter().map(|key| (key, now)));
            }
            35..38 => {
                let key = key(random.below(5000));
                if acknowledged.remove(&key).is_some() {
                    store.store.lift(vec![key]).await.unwrap();
                }
            }
            38..40 => store.contents.drop_log(),
            40..65 => drop(feed.round(Instant::now()).await.unwrap()),
            _ => {
                let follower = &mut followers[random.below(3) as usize];
                if follower.poll(feed, Duration::ZERO).await == Ok(true) {
                    proofs += 1;
                    let complete = follower.complete.unwrap();
                    for (key, at) in acknowledged.iter().filter(|(_, at)| **at < complete) {
                        assert!(follower.may_contain(key), "seed {seed}, step {step}: {:?} before", complete - *at);
                    }
                }
            }
        }
    }
    assert!(proofs > 10, "seed {seed}: {proofs}");
}
