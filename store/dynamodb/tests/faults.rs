//! A server that is killed or frozen: nothing is answered that may be wrong, nothing acknowledged is lost, and the store
//! recovers by itself.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::time::{Duration, Instant};

use store::{Ends, Revocation, StoreError, Stores};
use store_dynamodb::create_store;
use support::follower::Follower;
use support::{Server, open};
use tokio::time::sleep;
use wire::{Answer, RevocationKey};

/// A check ends in 1 s; the machine may be busy.
const SOON: Duration = Duration::from_millis(1800);

fn key(number: u16) -> RevocationKey {
    let [high, low] = number.to_be_bytes();
    let mut key = [0x11; 16];
    (key[0], key[1], key[2]) = (low.wrapping_mul(37), high, low);
    RevocationKey(key)
}

async fn revoke(stores: &Stores, number: u16) -> bool {
    let ttl = Some(Duration::from_secs(86_400));
    let revocation = Revocation { key: key(number), ends: Ends::ForGood, sealed: vec![1; 200], ttl };
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
