//! Two regions of a global table with eventual consistency, with replication that is late, out of order and cut off: no
//! acknowledged revocation is lost, and what was lifted does not come back.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use store::{AuditBounds, AuditFrom, Ends, NewSession, Revocation, SessionName, StoreError, Stores, Unobserved};
use store_dynamodb::{Config, CreateError, DynamoStore, TableName, create_store};
use support::follower::Follower;
use support::region::Region;
use support::replication::GlobalTable;
use support::{open, random};
use tokio::time::sleep;
use wire::{Answer, RevocationKey};

const LONG: Duration = Duration::from_secs(86_400);
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

fn settings(home: &str, regions: &[&str]) -> String {
    format!("&region={home}&mode=eventual&regions={}", regions.join(","))
}

struct Two {
    table: GlobalTable,
    one: Stores,
    other: Stores,
}

impl Two {
    async fn start(max_delay: Duration) -> Self {
        let table = GlobalTable::start(2, max_delay).await;
        create_store(&table.regions[0].table(&settings("eu-west-1", &REGIONS))).await.unwrap();
        table.settled().await;
        let (one, other) = (Self::open(&table, 0).await, Self::open(&table, 1).await);
        Self { table, one, other }
    }

    async fn open(table: &GlobalTable, index: usize) -> Stores {
        open(table.regions[index].table(&settings(REGIONS[index], &REGIONS))).await
    }

    /// Until both regions have everything of each other: items first, then what each log takes over.
    async fn settle(&self) {
        self.table.settled().await;
        for stores in [&self.one, &self.other] {
            whole(&mut Follower::new(stores)).await;
        }
        self.table.settled().await;
    }
}

/// Follows until the reader has everything. On a busy machine a round may take too long.
async fn whole(follower: &mut Follower) {
    for _ in 0..50 {
        if follower.step().await == Ok(true) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not follow");
}

fn key(number: u16) -> RevocationKey {
    let [high, low] = number.to_be_bytes();
    let mut key = [0x5a; 16];
    (key[0], key[1]) = (low.wrapping_mul(37), high);
    key[2] = low;
    RevocationKey(key)
}

fn revocation(key: RevocationKey, ends: Ends) -> Revocation {
    Revocation { key, ends, sealed: b"note".to_vec(), ttl: Some(LONG) }
}

async fn revoke(stores: &Stores, keys: impl IntoIterator<Item = u16>) {
    let all = keys.into_iter().map(|number| revocation(key(number), Ends::ForGood)).collect();
    stores.revocations.revoke(all).await.unwrap();
}

async fn lift(stores: &Stores, keys: impl IntoIterator<Item = u16>) -> u64 {
    stores.revocations.lift(keys.into_iter().map(key).collect()).await.unwrap().removed
}

/// Which of the keys are revoked.
async fn revoked(stores: &Stores, keys: impl IntoIterator<Item = u16>) -> Vec<u16> {
    let numbers: Vec<_> = keys.into_iter().collect();
    let keys: Vec<_> = numbers.iter().copied().map(key).collect();
    let answers = stores.revocations.check(&keys).await.unwrap();
    numbers.into_iter().zip(answers).filter(|(_, answer)| *answer != Answer::Live).map(|(number, _)| number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_wins_over_a_lift_that_did_not_see_it_and_a_lift_lasts() {
    let two = Two::start(Duration::from_millis(200)).await;
    revoke(&two.one, 0..40).await;
    two.settle().await;
    assert_eq!(revoked(&two.other, 0..40).await, (0..40).collect::<Vec<_>>());
    two.table.cut(true);
    // Revoked again, and lifted later where that is not known.
    revoke(&two.one, 10..20).await;
    assert_eq!(lift(&two.other, 0..20).await, 20, "what another region has revoked can be lifted");
    // Revoked and lifted, each where the other one is not known.
    revoke(&two.one, 50..60).await;
    assert_eq!(lift(&two.other, 50..60).await, 0);
    // Lifted and revoked again in one region.
    assert_eq!(lift(&two.other, 30..40).await, 10);
    revoke(&two.other, 35..40).await;
    assert_eq!(revoked(&two.one, 0..60).await, (0..40).chain(50..60).collect::<Vec<_>>(), "nothing arrives");
    two.table.cut(false);
    two.settle().await;
    let expected: Vec<_> = (10..30).chain(35..40).chain(50..60).collect();
    for stores in [&two.one, &two.other] {
        assert_eq!(revoked(stores, 0..60).await, expected);
        let mut follower = Follower::new(stores);
        assert!(follower.step().await.unwrap());
        assert_eq!(follower.keys, expected.iter().copied().map(key).collect::<BTreeSet<_>>());
    }
    // A weaker revocation is not merged with what was lifted elsewhere.
    revoke(&two.one, [70]).await;
    two.settle().await;
    lift(&two.other, [70]).await;
    two.settle().await;
    two.one.revocations.revoke(vec![revocation(key(70), Ends::IssuedUntil(5))]).await.unwrap();
    two.settle().await;
    for stores in [&two.one, &two.other] {
        assert_eq!(stores.revocations.check(&[key(70)]).await.unwrap(), [Answer::Before(7)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_reads_anew_before_an_item_has_arrived_learns_of_it_later() {
    let two = Two::start(Duration::ZERO).await;
    for (hold, numbers) in [("r#", 0..20), ("l#", 20..40), ("h#", 40..60)] {
        two.table.hold(Some(hold));
        for number in numbers.clone() {
            revoke(&two.one, [number]).await;
        }
        sleep(Duration::from_millis(500)).await;
        let mut follower = Follower::new(&two.other);
        assert!(follower.step().await.unwrap());
        let known = revoked(&two.other, numbers.clone()).await;
        assert_eq!(known.len(), if hold == "r#" { 0 } else { 20 }, "{hold}");
        two.table.hold(None);
        two.table.settled().await;
        assert!(follower.step().await.unwrap());
        let lacks: Vec<_> = (0..numbers.end).filter(|number| !follower.keys.contains(&key(*number))).collect();
        assert!(lacks.is_empty(), "{hold}: {lacks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_do_not_grow_by_each_other() {
    let two = Two::start(Duration::from_millis(20)).await;
    let (mut here, mut there) = (Follower::new(&two.one), Follower::new(&two.other));
    revoke(&two.one, 0..8).await;
    revoke(&two.other, 8..16).await;
    for _ in 0..10 {
        here.step().await.unwrap();
        there.step().await.unwrap();
        two.table.settled().await;
    }
    let expected: BTreeSet<_> = (0..16).map(key).collect();
    assert_eq!((&here.keys, &there.keys), (&expected, &expected));
    two.table.regions.iter().for_each(|region| drop(region.used()));
    for _ in 0..5 {
        here.step().await.unwrap();
        there.step().await.unwrap();
        two.table.settled().await;
    }
    for region in &two.table.regions {
        let used = region.used();
        assert_eq!(used.write_units, 0.0, "{used:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_one_region_ends_has_ended_in_all_whatever_another_one_writes() {
    let two = Two::start(Duration::from_millis(100)).await;
    let name = SessionName([7; 16]);
    let session = NewSession {
        sealed: b"data".to_vec(),
        access: Vec::new(),
        refresh: Some([1; 32]),
        lifetime: LONG,
        idle: Some(LONG),
    };
    assert!(two.one.sessions.create(name, session).await.unwrap());
    two.table.settled().await;
    two.table.cut(true);
    two.other.sessions.end(name, "logout").await.unwrap();
    sleep(Duration::from_millis(20)).await;
    two.one.sessions.touch(name, Duration::from_millis(1)).await.unwrap();
    two.table.cut(false);
    two.table.settled().await;
    for stores in [&two.one, &two.other] {
        let read = stores.sessions.read(name).await.unwrap().unwrap();
        assert_eq!(read.ended.as_deref(), Some("logout"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_audit_log_do_not_replace_each_other() {
    const EACH: usize = 40;
    let two = Two::start(Duration::from_millis(100)).await;
    let bounds = AuditBounds { max_age: LONG, max_entries: 1000 };
    two.table.cut(true);
    let append = |stores: Stores, byte: u8| async move {
        for number in 0..EACH {
            stores.audit.append(vec![byte, u8::try_from(number).unwrap()], bounds).await.unwrap();
        }
    };
    tokio::join!(append(two.one.clone(), 1), append(two.other.clone(), 2));
    two.table.cut(false);
    two.table.settled().await;
    for stores in [&two.one, &two.other] {
        let all = stores.audit.page(AuditFrom::Last, 1000, LONG).await.unwrap();
        assert_eq!(all.len(), 2 * EACH);
        assert!(all.is_sorted_by(|one, next| one.id < next.id));
    }
}

/// What happened to a key, by the clock of the test. `Err`: not acknowledged.
#[derive(Debug, Clone)]
struct Event {
    key: u16,
    what: What,
    from: Instant,
    to: Instant,
    is_acknowledged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Dead,
    Before,
    Lift,
}

/// Keys above are lifted as well as revoked.
const LIFTED_FROM: u16 = 150;
const KEYS: u16 = 200;

async fn work(stores: Stores, until: Instant, history: Arc<Mutex<Vec<Event>>>) {
    while Instant::now() < until {
        let number = u16::try_from(random() % u64::from(KEYS)).unwrap();
        let what = match random() % 4 {
            0 if number >= LIFTED_FROM => What::Lift,
            1 => What::Before,
            _ => What::Dead,
        };
        let from = Instant::now();
        let is_acknowledged = match what {
            What::Lift => stores.revocations.lift(vec![key(number)]).await.is_ok(),
            What::Before => {
                stores.revocations.revoke(vec![revocation(key(number), Ends::IssuedUntilNow)]).await.is_ok()
            }
            What::Dead => stores.revocations.revoke(vec![revocation(key(number), Ends::ForGood)]).await.is_ok(),
        };
        history.lock().unwrap().push(Event { key: number, what, from, to: Instant::now(), is_acknowledged });
        sleep(Duration::from_millis(random() % 60)).await;
    }
}

/// Follows all the time, and now and then from nothing. How many rounds were done.
async fn follow(stores: Stores, stop: Arc<AtomicBool>, restarts: bool) -> (Follower, usize) {
    let (mut follower, mut rounds) = (Follower::new(&stores), 0);
    while !stop.load(Ordering::SeqCst) {
        rounds += usize::from(follower.step().await.is_ok());
        if restarts && random().is_multiple_of(16) {
            follower = Follower::new(&stores);
        }
        sleep(Duration::from_millis(random() % 100)).await;
    }
    (follower, rounds)
}

/// `REGIONS_SECONDS` for each of the four phases, 4 unless set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_revocation_is_lost_and_all_regions_agree_in_the_end() {
    let seconds = std::env::var("REGIONS_SECONDS").map_or(4, |text| text.parse().unwrap());
    let phase = Duration::from_secs(seconds);
    let two = Two::start(Duration::from_millis(300)).await;
    let second = Two::open(&two.table, 0).await;
    let history = Arc::new(Mutex::new(Vec::new()));
    let until = Instant::now() + phase * 4;
    let mut workers = Vec::new();
    for stores in [&two.one, &second, &two.other, &two.other] {
        workers.push(tokio::spawn(work(stores.clone(), until, Arc::clone(&history))));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut followers = Vec::new();
    for (stores, restarts) in [(&two.one, false), (&second, true), (&two.other, false), (&two.other, true)] {
        followers.push((stores.clone(), tokio::spawn(follow(stores.clone(), Arc::clone(&stop), restarts))));
    }
    sleep(phase).await;
    two.table.cut(true);
    sleep(phase).await;
    two.table.cut(false);
    two.table.delay(Duration::from_secs(2));
    sleep(phase).await;
    two.table.delay(Duration::from_millis(100));
    for worker in workers {
        worker.await.unwrap();
    }
    let healed = Instant::now();
    two.settle().await;
    let settled = healed.elapsed();
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::SeqCst);
    let mut done = Vec::new();
    for (stores, task) in followers {
        done.push((stores, task.await.unwrap()));
    }

    let history = history.lock().unwrap().clone();
    let all: Vec<_> = (0..KEYS).map(key).collect();
    let here = two.one.revocations.check(&all).await.unwrap();
    assert_eq!(here, two.other.revocations.check(&all).await.unwrap(), "the regions differ");
    let (mut acknowledged, mut judged) = (0, 0);
    for event in history.iter().filter(|event| event.what != What::Lift && event.is_acknowledged) {
        acknowledged += 1;
        // A lift that ended before the revocation began cannot have taken it away.
        let may_be_lifted =
            history.iter().any(|other| other.key == event.key && other.what == What::Lift && other.to >= event.from);
        if may_be_lifted {
            continue;
        }
        judged += 1;
        let answer = here[usize::from(event.key)];
        match event.what {
            What::Dead => assert_eq!(answer, Answer::Dead, "lost: {event:?}"),
            _ => assert_ne!(answer, Answer::Live, "lost: {event:?}"),
        }
    }
    let in_force = here.iter().zip(&all).filter(|(answer, _)| **answer != Answer::Live).map(|(_, key)| *key);
    let in_force: BTreeSet<_> = in_force.collect();
    for (stores, (mut follower, rounds)) in done {
        whole(&mut follower).await;
        let lost: Vec<_> = in_force.difference(&follower.keys).collect();
        assert!(lost.is_empty(), "a follower lacks {lost:?}");
        let mut fresh = Follower::new(&stores);
        whole(&mut fresh).await;
        assert!(in_force.is_subset(&fresh.keys), "a new follower lacks some");
        assert!(rounds > 10, "it hardly followed: {rounds}");
    }
    println!(
        "{acknowledged} acknowledged revocations, {judged} judged, 0 lost; all there {settled:?} after the last write"
    );
    assert!(judged > 50, "{judged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_region_answers_nothing() {
    let table = GlobalTable::start(2, Duration::ZERO).await;
    table.cut(true);
    create_store(&table.regions[0].table(&settings("eu-west-1", &REGIONS))).await.unwrap();
    let other = Two::open(&table, 1).await;
    assert_eq!(other.revocations.check(&[key(1)]).await, Err(StoreError::StoreChanged));
    table.cut(false);
    table.settled().await;
    assert_eq!(other.revocations.check(&[key(1)]).await, Ok(vec![Answer::Live]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_opened_only_in_its_mode_and_with_all_its_regions() {
    const THREE: [&str; 3] = ["ap-south-1", "eu-west-1", "us-east-1"];
    let opened = |table: TableName| async move {
        let config = Config { table, store_id: None, create: false, future_iat_tolerance_seconds: 1 };
        DynamoStore::open(&config, Arc::new(Unobserved)).await.map(drop)
    };
    let region = Region::alone().await;
    let table = |settings: &str| region.table(settings);
    let (strong, two) = (table(""), table(&settings("eu-west-1", &REGIONS)));
    let (three, new) = (table(&settings("eu-west-1", &THREE)), table(&settings("ap-south-1", &THREE)));
    let id = create_store(&two).await.unwrap();
    assert_eq!(create_store(&two).await, Err(CreateError::Exists(id)));
    let error = opened(strong.clone()).await.unwrap_err();
    let names_both =
        "created for `mode=eventual&regions=eu-west-1,us-east-1`, and --store says `mode=strong&regions=eu-west-1`";
    assert!(error.to_string().contains(names_both), "{error}");
    assert_eq!(create_store(&strong).await, Err(error));
    assert_eq!(opened(two.clone()).await, Ok(()));
    // A region is added: first the others read it, then the table has it, then it is used.
    let running = open(two.clone()).await;
    assert_eq!(opened(three.clone()).await, Ok(()));
    assert!(matches!(opened(new.clone()).await, Err(CreateError::Mode { .. })));
    assert_eq!(create_store(&three).await, Ok(id));
    assert_eq!(create_store(&three).await, Err(CreateError::Exists(id)));
    assert_eq!((opened(three).await, opened(new).await), (Ok(()), Ok(())));
    assert_eq!(running.revocations.check(&[key(1)]).await, Err(StoreError::StoreChanged));
    assert!(matches!(opened(two.clone()).await, Err(CreateError::Mode { .. })));
    assert!(matches!(create_store(&two).await, Err(CreateError::Mode { .. })), "no region is taken away");
}
