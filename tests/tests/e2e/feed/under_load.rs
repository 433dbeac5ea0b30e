//! The promise, checked while everything fails that can: each acknowledged revocation and each admission is noted, and none
//! may come later than the lag allows.
use std::sync::Arc;

use self::followers::Followers;
use self::nemesis::Nemesis;
use self::record::Record;
use self::stack::{SECRETS, Stack};
use super::*;

mod followers;
mod nemesis;
mod record;
mod stack;

/// How long faults come. `FEED_SECONDS` changes it: `FEED_SECONDS=1800 make e2e TEST=feed::under_load`.
const SECONDS: u64 = 60;
const FOLLOWERS: usize = 200;

/// `FEED_SECONDS`, or this.
fn seconds(otherwise: u64) -> Duration {
    let given = std::env::var("FEED_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(otherwise))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_admission_comes_later_than_the_lag_whatever_fails() {
    let _turn = harness::under_load().await;
    let (stack, key) = Stack::start(Stack::options()).await;
    let record = Arc::new(Record::new(LAG, key));
    let followers = Followers::start(FOLLOWERS, LAG, stack.follower_link.address(), &SECRETS, &record);
    let envoys: Vec<_> = stack.envoys.iter().map(|(name, envoy)| (*name, envoy.address())).collect();
    let (admins, secret) = (stack.admins(), stack.services[0].options().admin_token.clone());
    let mut nemesis = Nemesis::new(stack, Arc::clone(&record), followers);
    nemesis.recover("the start").await;

    let mut tasks = Vec::new();
    for (name, envoy) in envoys {
        for _ in 0..3 {
            let record = Arc::clone(&record);
            tasks.push(tokio::spawn(async move { record.request(name, envoy, Duration::from_millis(10)).await }));
        }
    }
    let ending = Arc::clone(&record);
    tasks.push(tokio::spawn(async move { ending.end_sessions(&admins, &secret, Duration::from_millis(250)).await }));

    nemesis.run(Instant::now() + seconds(SECONDS)).await;
    record.end();
    for task in tasks {
        task.await.expect("no panic");
    }
    eprintln!("{}", nemesis.told());
    record.judge();
}
