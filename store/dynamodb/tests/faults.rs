//! A server that is killed or frozen, replies that are lost, and a clock that is off: nothing is answered that may be wrong,
//! nothing acknowledged is lost, and the store recovers by itself.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::{Claim, Ends, NewSession, Revocation, Rotated, Rotation, SessionName, StoreError, Stores};
use store_dynamodb::create_store;
use support::follower::Follower;
use support::region::Region;
use support::{Server, open};
use tokio::time::sleep;
use wire::{Answer, RevocationKey};

const LONG: Duration = Duration::from_secs(86_400);
/// A check ends in 1 s; the machine may be busy.
const SOON: Duration = Duration::from_millis(1800);

fn key(number: u16) -> RevocationKey {
    let [high, low] = number.to_be_bytes();
    let mut key = [0x11; 16];
    (key[0], key[1], key[2]) = (low.wrapping_mul(37), high, low);
    RevocationKey(key)
}

async fn revoke(stores: &Stores, number: u16) -> bool {
    let revocation = Revocation { key: key(number), ends: Ends::ForGood, sealed: vec![1; 200], ttl: Some(LONG) };
    stores.revocations.revoke(vec![revocation]).await.is_ok()
}

/// How long until checks are answered again.
async fn recovers(stores: &Stores) -> Duration {
    let began = Instant::now();
    while stores.revocations.check(&[key(0)]).await.is_err() || stores.revocations.health().is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not recover");
        sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

/// Writes one revocation after another. The acknowledged ones.
async fn write(stores: Stores, numbers: std::ops::Range<u16>) -> Vec<u16> {
    let mut acknowledged = Vec::new();
    for number in numbers {
        if revoke(&stores, number).await {
            acknowledged.push(number);
        }
    }
    acknowledged
}

async fn has_all(stores: &Stores, numbers: &[u16]) {
    let keys: Vec<_> = numbers.iter().copied().map(key).collect();
    let answers = stores.revocations.check(&keys).await.unwrap();
    let lost: Vec<_> = numbers.iter().zip(answers).filter(|(_, answer)| *answer != Answer::Dead).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let mut follower = Follower::new(stores);
    while !follower.step().await.unwrap() {}
    assert!(keys.iter().all(|key| follower.keys.contains(key)), "the log lacks some");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_no_answer_and_loses_nothing_acknowledged() {
    let folder = std::env::temp_dir().join(format!("portcullis-dynamodb-{}", support::random()));
    let path = folder.to_str().unwrap().to_owned();
    let mut server = Server::start_in(Some(&path), 0).await;
    create_store(&server.table("")).await.unwrap();
    let stores = open(server.table("")).await;
    let mut acknowledged = Vec::new();
    for round in 0..3_u16 {
        let writes = tokio::spawn(write(stores.clone(), round * 1000..round * 1000 + 40));
        sleep(Duration::from_millis(300)).await;
        server.kill();
        let began = Instant::now();
        let answer = stores.revocations.check(&[key(0)]).await;
        assert!(
            matches!(answer, Err(StoreError::StoreRefused | StoreError::StoreSlow | StoreError::StoreFailed)),
            "{answer:?}"
        );
        assert!(began.elapsed() < SOON && stores.revocations.health().is_err());
        assert!(Follower::new(&stores).step().await.is_err());
        server = Server::start_in(Some(&path), server.port).await;
        recovers(&stores).await;
        acknowledged.extend(writes.await.unwrap());
        has_all(&stores, &acknowledged).await;
    }
    println!("{} acknowledged revocations, 3 kills, 0 lost", acknowledged.len());
    assert!(acknowledged.len() > 3);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_no_answer_in_bounded_time() {
    let server = Server::start().await;
    create_store(&server.table("")).await.unwrap();
    let stores = open(server.table("")).await;
    assert!(revoke(&stores, 0).await);
    server.signal("STOP");
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(stores.revocations.check(&[key(0)]).await, Err(StoreError::StoreSlow));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    let began = Instant::now();
    assert!(!revoke(&stores, 1).await);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!(stores.revocations.health(), Err(StoreError::StoreSlow));
    server.signal("CONT");
    let took = recovers(&stores).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(revoke(&stores, 1).await);
    has_all(&stores, &[0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_a_minute_off_closes_the_store() {
    let region = Region::alone().await;
    create_store(&region.table("")).await.unwrap();
    let stores = open(region.table("")).await;
    for (ahead, error) in [(120, StoreError::ClockBehind), (-120, StoreError::StoreFailed)] {
        assert!(revoke(&stores, 0).await);
        region.state.date_ahead_seconds.store(ahead, Ordering::Relaxed);
        assert_eq!(stores.revocations.check(&[key(0)]).await, Err(error));
        assert_eq!(stores.revocations.health(), Err(error));
        assert!(!revoke(&stores, 1).await);
        region.state.date_ahead_seconds.store(30, Ordering::Relaxed);
        assert_eq!(stores.revocations.check(&[key(0), key(1)]).await, Ok(vec![Answer::Dead, Answer::Live]));
        assert_eq!(stores.revocations.health(), Ok(()));
    }
}

async fn one_store() -> (Region, Stores) {
    let region = Region::alone().await;
    create_store(&region.table("")).await.unwrap();
    let stores = open(region.table("")).await;
    (region, stores)
}

impl Region {
    /// Loses the reply of the next write to a partition that begins with this, during `work`.
    async fn losing<T>(&self, start: &'static str, work: impl Future<Output = T>) -> T {
        *self.state.lost.lock().unwrap() = Some(start);
        let done = work.await;
        assert_eq!(self.state.lost.lock().unwrap().take(), None, "no reply was lost");
        done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_item_is_recognised_as_ours() {
    let (region, stores) = one_store().await;
    let sightings = &stores.sightings;
    let (one, other) = (b"one".to_vec(), b"other".to_vec());
    assert!(region.losing("g#", sightings.replace_sightings(key(0), None, one.clone(), LONG)).await.unwrap());
    assert!(region.losing("g#", sightings.replace_sightings(key(0), Some(&one), other.clone(), LONG)).await.unwrap());
    assert!(!sightings.replace_sightings(key(0), Some(&one), one.clone(), LONG).await.unwrap());
    assert_eq!(sightings.sightings(key(0)).await.unwrap(), Some(other));

    let guard = &stores.replay_guard;
    assert_eq!(region.losing("m#", guard.claim("digest", LONG)).await, Ok(Claim::Claimed));
    assert_eq!(guard.claim("digest", LONG).await, Ok(Claim::Pending));

    let name = SessionName([7; 16]);
    let session = || NewSession {
        sealed: b"data".to_vec(),
        access: Vec::new(),
        refresh: Some([1; 32]),
        lifetime: LONG,
        idle: Some(LONG),
    };
    assert!(region.losing("s#", stores.sessions.create(name, session())).await.unwrap());
    assert!(!stores.sessions.create(name, session()).await.unwrap());
    let rotation =
        |presented, new| Rotation { presented, new, access: Vec::new(), max_access_bytes: 100, grace: Duration::ZERO };
    let rotated = region.losing("s#", stores.sessions.rotate(name, rotation([1; 32], [2; 32]))).await;
    assert_eq!(rotated, Ok(Rotated::Done));
    let rotated = stores.sessions.rotate(name, rotation([2; 32], [3; 32])).await;
    assert_eq!(rotated, Ok(Rotated::Done), "the honest client goes on");
    let rotated = region.losing("s#", stores.sessions.rotate(name, rotation([1; 32], [4; 32]))).await;
    assert_eq!(rotated, Ok(Rotated::Reused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_and_a_lift_are_recognised_as_ours() {
    let (region, stores) = one_store().await;
    let mut follower = Follower::new(&stores);
    while !follower.step().await.unwrap() {}
    assert!(region.losing("r#", revoke(&stores, 0)).await);
    assert_eq!(stores.revocations.check(&[key(0)]).await, Ok(vec![Answer::Dead]));
    while !follower.step().await.unwrap() {}
    assert!(follower.keys.contains(&key(0)));
    let lifted = region.losing("r#", stores.revocations.lift(vec![key(0)])).await.unwrap();
    assert_eq!(lifted.removed, 1);
    assert_eq!(stores.revocations.check(&[key(0)]).await, Ok(vec![Answer::Live]));
    assert_eq!(stores.revocations.lift(vec![key(0)]).await.unwrap().removed, 0);
    assert!(region.losing("h#", revoke(&stores, 0)).await);
    assert_eq!(stores.revocations.check(&[key(0)]).await, Ok(vec![Answer::Dead]));
}

/// As the environment and a profile may name it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_in_clear_text_to_another_host() {
    let region = Region::alone().await;
    create_store(&region.table("")).await.unwrap();
    let mut table = region.table("");
    // Nothing listens there: a connection would be refused.
    table.endpoint = Some(format!("http://127.0.0.2:{}", region.port));
    let stores = open(table).await;
    assert_eq!(stores.revocations.check(&[key(0)]).await, Err(StoreError::StoreFailed));
}
