//! The replay guard: one claim at a time, and none after the work is done.
use tokio::task::JoinSet;

use super::{Fixture, LONG, SHORT, after_short};
use crate::Claim;

const DIGEST: &str = "9kXb4m0vQbq3VYJp0r2t1bC7sV0p6o0m4l8n2h1g3fE";

pub async fn a_token_is_claimed_once(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.replay_guard, fixture.open().await.replay_guard);
    assert_eq!(one.claim(DIGEST, LONG).await, Ok(Claim::Claimed));
    assert_eq!(one.claim(DIGEST, LONG).await, Ok(Claim::Pending));
    assert_eq!(other.claim(DIGEST, LONG).await, Ok(Claim::Pending));
    assert_eq!(other.claim("another", LONG).await, Ok(Claim::Claimed));
}

pub async fn of_concurrent_claims_one_succeeds(fixture: &impl Fixture) {
    let guards = [fixture.open().await.replay_guard, fixture.open().await.replay_guard];
    for round in 0..4 {
        let mut claims = JoinSet::new();
        for number in 0..32 {
            let guard = guards[number % 2].clone();
            claims.spawn(async move { guard.claim(&format!("{DIGEST}{round}"), LONG).await.unwrap() });
        }
        let all = claims.join_all().await;
        assert_eq!(all.iter().filter(|claim| **claim == Claim::Claimed).count(), 1, "{all:?}");
        assert!(!all.contains(&Claim::Done), "{all:?}");
    }
}

pub async fn a_released_or_expired_claim_can_be_claimed_again(fixture: &impl Fixture) {
    let guard = fixture.open().await.replay_guard;
    assert_eq!(guard.claim(DIGEST, LONG).await, Ok(Claim::Claimed));
    guard.release(DIGEST).await.unwrap();
    assert_eq!(guard.claim(DIGEST, SHORT).await, Ok(Claim::Claimed));
    after_short().await;
    assert_eq!(guard.claim(DIGEST, LONG).await, Ok(Claim::Claimed));
}

pub async fn a_completed_token_is_done_for_its_time(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.replay_guard, fixture.open().await.replay_guard);
    assert_eq!(one.claim(DIGEST, SHORT).await, Ok(Claim::Claimed));
    one.complete(DIGEST, LONG).await.unwrap();
    assert_eq!(one.claim("short", LONG).await, Ok(Claim::Claimed));
    one.complete("short", SHORT).await.unwrap();
    assert_eq!(other.claim("short", LONG).await, Ok(Claim::Done));
    after_short().await;
    assert_eq!(other.claim(DIGEST, LONG).await, Ok(Claim::Done), "it outlives the claim");
    assert_eq!(other.claim("short", LONG).await, Ok(Claim::Claimed));
}
