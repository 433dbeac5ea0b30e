//! The log: what a follower must see, in which order, and when it must read anew.
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use wire::RevocationKey;

use super::{Fixture, LONG, SHORT, after_short};
use crate::{Change, Ends, LogEntry, Place, Revocation, RevocationLog, ShardNews, StoreError, Stores};

/// More entries than any log keeps of one shard.
const MORE_THAN_KEPT: u16 = 1500;

/// Spread over all shards of a store that uses the first byte.
fn key(number: u16) -> RevocationKey {
    let [high, low] = number.to_be_bytes();
    in_shard(low, high)
}

fn in_shard(first: u8, number: u8) -> RevocationKey {
    let mut key = [0x3c; 16];
    (key[0], key[1]) = (first, number);
    RevocationKey(key)
}

fn revocation(key: RevocationKey, ttl: Option<Duration>) -> Revocation {
    Revocation { key, ends: Ends::ForGood, sealed: b"note".to_vec(), ttl }
}

async fn revoke(stores: &Stores, key: RevocationKey) {
    stores.revocations.revoke(vec![revocation(key, Some(LONG))]).await.unwrap();
}

/// A reader as the service has one.
struct Follower {
    log: std::sync::Arc<dyn RevocationLog>,
    places: Vec<Option<Place>>,
    keys: BTreeSet<RevocationKey>,
    entries: Vec<LogEntry>,
    gaps: usize,
}

impl Follower {
    fn new(stores: &Stores) -> Self {
        let log = stores.log.clone();
        let places = vec![None; log.shards()];
        Self { log, places, keys: BTreeSet::new(), entries: Vec::new(), gaps: 0 }
    }

    /// Follows until no shard has a gap.
    async fn round(&mut self) -> Result<(), StoreError> {
        for _ in 0..10 {
            if self.step().await? {
                return Ok(());
            }
        }
        panic!("there is always a gap");
    }

    /// Whether no shard had a gap.
    async fn step(&mut self) -> Result<bool, StoreError> {
        let news = self.log.follow(&self.places).await?;
        assert_eq!(news.len(), self.places.len());
        let mut is_whole = true;
        for (shard, news) in news.into_iter().enumerate() {
            match news {
                ShardNews::Nothing => {}
                ShardNews::Entries(entries) => {
                    assert!(!entries.is_empty());
                    for entry in entries {
                        self.apply(shard, entry);
                    }
                }
                ShardNews::Gap => {
                    self.places[shard] = None;
                    self.gaps += 1;
                    is_whole = false;
                }
                ShardNews::Whole { revocations, place, recent } => {
                    assert!(self.places[shard].is_none(), "it was not asked for");
                    self.keys.retain(|key| self.log.shard_of(key) != shard);
                    self.keys.extend(revocations.iter().map(|(key, _)| *key));
                    assert!(revocations.iter().all(|(key, _)| self.log.shard_of(key) == shard));
                    assert_eq!(recent.last().map(|entry| entry.place), Some(place), "the last entry is the place");
                    self.places[shard] = Some(place);
                }
            }
        }
        Ok(is_whole)
    }

    fn apply(&mut self, shard: usize, entry: LogEntry) {
        let last = self.places[shard].expect("entries follow a place");
        assert_eq!(entry.place.sequence, last.sequence + 1, "no entry is left out");
        self.places[shard] = Some(entry.place);
        self.entries.push(entry);
        match entry.change {
            Change::Begun => {}
            Change::Revoked { key, .. } => {
                self.keys.insert(key);
            }
            Change::Lifted { key } => {
                self.keys.remove(&key);
            }
        }
    }

    async fn has(&mut self, key: RevocationKey) -> bool {
        self.round().await.unwrap();
        self.keys.contains(&key)
    }
}

pub async fn what_is_acknowledged_before_a_call_is_in_its_news(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    revoke(&one, key(1)).await;
    let mut follower = Follower::new(&other);
    assert!(follower.has(key(1)).await, "what was there before it began");
    for number in 2..300 {
        revoke(&one, key(number)).await;
        assert!(follower.step().await.unwrap());
        assert!(follower.keys.contains(&key(number)), "{number}");
    }
    let expected: BTreeSet<_> = (1..300).map(key).collect();
    assert_eq!(follower.keys, expected);
    assert_eq!(follower.gaps, 0);
    let places = follower.places.clone();
    follower.round().await.unwrap();
    assert_eq!(follower.places, places, "nothing new");
}

pub async fn entries_come_in_the_order_of_the_writes(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    let mut follower = Follower::new(&stores);
    follower.round().await.unwrap();
    for number in 0..100 {
        revoke(&stores, in_shard(7, number)).await;
    }
    follower.round().await.unwrap();
    let keys: Vec<_> = follower.entries.iter().filter_map(LogEntry::key).collect();
    assert_eq!(keys, (0..100).map(|number| in_shard(7, number)).collect::<Vec<_>>());
}

pub async fn a_repeated_revocation_and_a_lift_are_entries_too(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    let mut follower = Follower::new(&stores);
    follower.round().await.unwrap();
    let short = Duration::from_secs(60);
    for ttl in [Some(short), Some(LONG), Some(short), None] {
        stores.revocations.revoke(vec![revocation(key(1), ttl)]).await.unwrap();
    }
    stores.revocations.lift(vec![key(1)]).await.unwrap();
    follower.round().await.unwrap();
    let left: Vec<_> = follower.entries.iter().map(|entry| entry.change).collect();
    let [one, two, three, four, five] = left[..] else { panic!("{left:?}") };
    let expires = |change| match change {
        Change::Revoked { key: revoked, expires_in } if revoked == key(1) => expires_in,
        other => panic!("{other:?}"),
    };
    assert!(expires(one).unwrap() <= short);
    assert!(expires(two).unwrap() > short * 2);
    assert!(expires(three).unwrap() > short * 2, "it lives as long as the longest write asked for");
    assert_eq!(expires(four), None);
    assert_eq!(five, Change::Lifted { key: key(1) });
    assert!(!follower.keys.contains(&key(1)));
    revoke(&stores, key(1)).await;
    assert!(follower.has(key(1)).await, "revoked again after the lift");
}

pub async fn what_has_expired_or_was_lifted_is_not_read_anew(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    for (number, ttl) in [(1, Some(SHORT)), (2, Some(LONG)), (3, Some(LONG)), (4, None)] {
        stores.revocations.revoke(vec![revocation(key(number), ttl)]).await.unwrap();
    }
    stores.revocations.lift(vec![key(3)]).await.unwrap();
    after_short().await;
    let news = stores.log.follow(&vec![None; stores.log.shards()]).await.unwrap();
    let mut all: Vec<_> = news
        .into_iter()
        .flat_map(|news| match news {
            ShardNews::Whole { revocations, .. } => revocations,
            other => panic!("{other:?}"),
        })
        .collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    let [(two, left), (four, None)] = all[..] else { panic!("{all:?}") };
    assert_eq!((two, four), (key(2), key(4)));
    assert!(left.unwrap() > LONG / 2 && left.unwrap() <= LONG);
}

pub async fn a_follower_that_is_far_behind_reads_anew(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    let (mut late, mut fresh) = (Follower::new(&stores), Follower::new(&stores));
    late.round().await.unwrap();
    let numbered = (0..MORE_THAN_KEPT).map(|number| {
        let [high, low] = number.to_be_bytes();
        let mut key = in_shard(9, low);
        key.0[2] = high;
        key
    });
    let all: Vec<_> = numbered.collect();
    for some in all.chunks(500) {
        stores.revocations.revoke(some.iter().map(|key| revocation(*key, Some(LONG))).collect()).await.unwrap();
    }
    late.round().await.unwrap();
    assert_eq!(late.gaps, 1, "the log does not grow without bound");
    fresh.round().await.unwrap();
    let expected: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(late.keys, expected);
    assert_eq!(fresh.keys, expected);
    assert_eq!(late.places, fresh.places);
}

pub async fn a_place_of_another_history_is_a_gap(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    revoke(&stores, in_shard(5, 1)).await;
    let mut follower = Follower::new(&stores);
    follower.round().await.unwrap();
    revoke(&stores, in_shard(5, 2)).await;
    let shard = stores.log.shard_of(&in_shard(5, 1));
    let place = follower.places[shard].unwrap();
    let [first, rest @ ..] = place.chain;
    let [a, b, c, d, e, f, g] = rest;
    let others = [
        Place { chain: [!first, a, b, c, d, e, f, g], ..place },
        Place { sequence: place.sequence + 1, ..place },
        Place { sequence: place.sequence + 100, ..place },
        Place { sequence: 0, ..place },
    ];
    for other in others {
        let mut places = follower.places.clone();
        places[shard] = Some(other);
        let news = stores.log.follow(&places).await.unwrap();
        assert_eq!(news[shard], ShardNews::Gap, "{other:?}");
    }
    assert!(follower.has(in_shard(5, 2)).await);
    assert_eq!(follower.gaps, 0);
}

pub async fn a_lost_store_is_not_followed(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    revoke(&stores, key(1)).await;
    let mut follower = Follower::new(&stores);
    follower.round().await.unwrap();
    fixture.lose().await;
    assert_eq!(follower.round().await, Err(StoreError::StoreChanged));
    assert_eq!(Follower::new(&stores).round().await, Err(StoreError::StoreChanged));
    let after = fixture.open().await;
    assert_eq!(Follower::new(&after).round().await, Err(StoreError::StoreChanged));
}

pub async fn concurrent_writers_are_all_followed(fixture: &impl Fixture) {
    let mut writes = JoinSet::new();
    let stores = fixture.open().await;
    let mut follower = Follower::new(&stores);
    follower.round().await.unwrap();
    for instance in 0..2_u8 {
        let stores = fixture.open().await;
        for task in 0..4_u8 {
            let stores = stores.clone();
            writes.spawn(async move {
                for number in 0..50_u8 {
                    let mut key = in_shard(number, instance);
                    key.0[2] = task;
                    revoke(&stores, key).await;
                }
            });
        }
    }
    while writes.try_join_next().is_none_or(|done| {
        done.unwrap();
        !writes.is_empty()
    }) {
        follower.round().await.unwrap();
    }
    follower.round().await.unwrap();
    assert_eq!((follower.keys.len(), follower.entries.len(), follower.gaps), (400, 400, 0));
}

pub async fn shards_are_in_the_order_of_keys(fixture: &impl Fixture) {
    let log = fixture.open().await.log;
    let shards: Vec<_> = (0..=u16::MAX)
        .step_by(50)
        .map(|number| {
            let mut key = [0xa7; 16];
            (key[0], key[1]) = (number.to_be_bytes()[0], number.to_be_bytes()[1]);
            log.shard_of(&RevocationKey(key))
        })
        .collect();
    assert!(shards.is_sorted() && shards.iter().all(|shard| *shard < log.shards()));
}
