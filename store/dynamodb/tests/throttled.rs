//! A throttled table. In a process of its own: the SDK's budget for repeats is one for all clients of a process.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use store::{Ends, Observer, Revocation, StoreError, Stores};
use store_dynamodb::{Config, DynamoStore, create_store};
use support::follower::Follower;
use support::region::Region;
use tokio::time::sleep;
use wire::{Answer, RevocationKey};

#[derive(Debug, Default)]
struct Throttled(AtomicUsize);

impl Observer for Throttled {
    fn throttled(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn key(number: u8) -> RevocationKey {
    RevocationKey([number; 16])
}

async fn revoke(stores: &Stores, number: u8) -> bool {
    let ttl = Some(Duration::from_secs(86_400));
    let revocation = Revocation { key: key(number), ends: Ends::ForGood, sealed: vec![1; 200], ttl };
    stores.revocations.revoke(vec![revocation]).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_table_is_repeated_within_a_budget_and_then_no_answer() {
    let region = Region::alone().await;
    create_store(&region.table("")).await.unwrap();
    let observer = Arc::new(Throttled::default());
    let config = Config { table: region.table(""), store_id: None, create: false, future_iat_tolerance_seconds: 1 };
    let stores: Stores = Arc::new(DynamoStore::open(&config, observer.clone()).await.unwrap()).into();
    assert!(revoke(&stores, 0).await);
    // Every second request passes: the SDK repeats those that do not, for a while.
    region.state.throttle.store(2, Ordering::Relaxed);
    assert_eq!(stores.revocations.check(&[key(0)]).await, Ok(vec![Answer::Dead]));
    // None passes.
    region.state.throttle.store(usize::MAX, Ordering::Relaxed);
    region.used();
    let (mut checks, mut answered) = (0, 0);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        checks += 1;
        match stores.revocations.check(&[key(0)]).await {
            Err(StoreError::StoreSlow) => {}
            Ok(_) => answered += 1,
            other => panic!("{other:?}"),
        }
    }
    let refused = region.used().refused;
    assert!(observer.0.load(Ordering::SeqCst) >= refused);
    println!("{checks} checks of a throttled table made {refused} requests");
    assert!(answered <= 1, "the first request may pass: {answered}");
    assert!(checks > 20 && refused <= checks + 150, "repeats have a budget: {checks} checks, {refused} requests");
    assert!(!revoke(&stores, 1).await);
    assert!(stores.revocations.health().is_err());
    region.state.throttle.store(0, Ordering::Relaxed);
    let began = Instant::now();
    while stores.revocations.check(&[key(0)]).await.is_err() || stores.revocations.health().is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "checks do not recover");
        sleep(Duration::from_millis(50)).await;
    }
    while !revoke(&stores, 1).await {
        assert!(began.elapsed() < Duration::from_secs(10), "writes do not recover");
    }
    assert_eq!(stores.revocations.check(&[key(0), key(1)]).await, Ok(vec![Answer::Dead; 2]));
    let mut follower = Follower::new(&stores);
    while !follower.step().await.unwrap() {}
    assert!(follower.keys.contains(&key(0)) && follower.keys.contains(&key(1)));
}
