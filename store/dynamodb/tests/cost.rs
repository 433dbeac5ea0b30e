//! Capacity units, as the server counts them, hold to what docs/dynamodb.md says.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::time::Duration;

use store::{Ends, Revocation};
use store_dynamodb::create_store;
use support::follower::Follower;
use support::open;
use support::region::Region;
use wire::RevocationKey;

fn revocation(number: u8) -> Revocation {
    let mut key = [0x11; 16];
    (key[0], key[1]) = (number.wrapping_mul(37), number);
    Revocation {
        key: RevocationKey(key),
        ends: Ends::ForGood,
        sealed: vec![1; 200],
        ttl: Some(Duration::from_secs(86_400)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cost_is_as_documented() {
    let region = Region::alone().await;
    create_store(&region.table("")).await.unwrap();
    let stores = open(region.table("")).await;
    let mut follower = Follower::new(&stores);
    follower.step().await.unwrap();
    region.used();
    let mut units = Vec::new();
    let mut report = |what: &str| {
        let used = region.used();
        println!("{what}: {} read, {} write units, {:?}", used.read_units, used.write_units, used.calls);
        units.push((used.read_units, used.write_units));
    };
    // The probe of the store's health comes in between, every 2 s, with one read unit.
    stores.revocations.revoke(vec![revocation(1)]).await.unwrap();
    report("a revocation");
    stores.revocations.revoke((100..200).map(revocation).collect()).await.unwrap();
    report("100 revocations together");
    stores.revocations.check(&[1, 2, 3, 4, 5, 6].map(|number| revocation(number).key)).await.unwrap();
    report("a check of 6 keys");
    follower.step().await.unwrap();
    report("a poll with news");
    follower.step().await.unwrap();
    report("a poll without news");
    Follower::new(&stores).step().await.unwrap();
    report("all shards anew, 101 revocations");
    stores.revocations.lift(vec![revocation(1).key]).await.unwrap();
    report("a lift");
    let name = store::SessionName([1; 16]);
    let long = Duration::from_secs(86_400);
    let session = store::NewSession {
        sealed: vec![1; 600],
        access: vec![1; 100],
        refresh: Some([1; 32]),
        lifetime: long,
        idle: Some(long),
    };
    stores.sessions.create(name, session).await.unwrap();
    report("a session's creation");
    stores.sessions.read(name).await.unwrap();
    report("a session's reading");
    stores.sessions.touch(name, Duration::from_millis(1)).await.unwrap();
    report("a session's use");
    stores.sessions.end(name, "logout").await.unwrap();
    report("a session's end");
    let bounds = store::AuditBounds { max_age: long, max_entries: 1000 };
    stores.audit.append(vec![1; 300], bounds).await.unwrap();
    report("an audit entry");
    let most = |index: usize, read: f64, write: f64| {
        let (reads, writes) = units[index];
        assert!(reads <= read && writes <= write, "{index}: {reads} read, {writes} write units");
    };
    most(0, 4.0, 5.0);
    most(2, 8.0, 0.0);
    most(4, 10.0, 0.0);
}
