//! The answers of the service while its Redis is lost or may evict, and what a revocation costs there. The store itself is
//! tested in store/redis/tests.
use std::time::{Duration, Instant};

use crate::support::*;
use wire::check::StoreError;
use wire::{Answer, Kind};

/// A recheck of the servers' health, its jitter, and room for a busy machine.
const NOTICED: Duration = Duration::from_secs(6);
/// How soon it must be back once Redis is.
const RECOVERED: Duration = Duration::from_secs(2);

#[test]
fn an_empty_redis_is_no_store_unless_told_to_make_one() {
    let redis = Redis::start();
    let service = Running::start(service::Options { create_store: false, ..options(&redis) });
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
    let (status, body) = service.get("/readyz");
    assert_eq!((status, body.contains("store_changed")), (503, true), "{body}");
    assert_eq!(service.get("/healthz").0, 200);
    // Another service makes it, and then both have it.
    let _other = Running::start(options(&redis));
    eventually(RECOVERED, || service.check(&[key(Kind::Session, "s")]).ok());
    assert_eq!(service.get("/readyz").0, 200);
}

#[test]
fn a_flushed_store_is_not_nobody_revoked_and_is_not_made_again() {
    let (redis, service) = started();
    service.revoke(Kind::Session, "s");
    redis.ask(&["FLUSHALL"]);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(redis.ask(&["GET", "portcullis:{00}:sentinel"]), "$-1\r\n");
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s"));
    assert_eq!((status, problem["code"].as_str()), (503, Some("not_confirmed")), "{problem}");
    // What was made anew is another store, and only a restart takes it.
    let other = Running::start(options(&redis));
    assert!(other.check(&[key(Kind::Session, "x")]).is_ok());
    assert_eq!(service.check(&[key(Kind::Session, "x")]), Err(StoreError::StoreChanged));
}

#[test]
fn an_eviction_policy_set_while_running_makes_the_store_unsafe() {
    let (redis, service) = started();
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let keys = [key(Kind::Session, "s")];
    eventually(NOTICED, || (service.check(&keys) == Err(StoreError::StoreUnsafe)).then_some(()));
    assert_eq!(service.get("/readyz").0, 503);
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s"));
    assert_eq!((status, problem["written"].as_str()), (503, Some("yes")), "{problem}");
    let told = Running::start(service::Options { dangerously_allow_eviction: true, ..options(&redis) });
    assert_eq!(told.check(&keys), Ok(vec![Answer::Dead]));
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually(NOTICED, || service.check(&keys).ok());
}

/// docs/operations.md, "Regions".
#[test]
fn a_revocation_holds_in_the_regions_that_were_told_and_may_be_repeated() {
    let ((here, home), (there, away)) = (started(), started());
    let (user, session) = (key(Kind::User, "alice"), key(Kind::Session, "s"));
    let first = home.revoke(Kind::User, "alice")["before"].as_u64().unwrap();
    home.revoke(Kind::Session, "s");
    assert_eq!(away.check(&[user, session]), Ok(vec![Answer::Live, Answer::Live]), "stores are not joined");
    // Until all have acknowledged, everything is said again: what is there is not weakened.
    let again = [&home, &away].map(|region| {
        region.revoke(Kind::Session, "s");
        region.revoke(Kind::User, "alice")["before"].as_u64().unwrap()
    });
    assert!(again.iter().all(|before| *before >= first), "{again:?}");
    for (region, before) in [&home, &away].into_iter().zip(again) {
        assert_eq!(region.check(&[user, session]), Ok(vec![Answer::Before(before), Answer::Dead]));
    }
    // Two stores are two ids: neither is taken for the other.
    let sentinel = |redis: &Redis| redis.ask(&["GET", "portcullis:{00}:sentinel"]);
    assert_ne!(sentinel(&here), sentinel(&there));
}

/// docs/operations.md, "Capacity", and benches/src/capacity/measured.rs.
#[test]
fn a_revocation_takes_the_memory_that_capacity_is_planned_with() {
    const COUNT: u64 = 8_000;
    const PLANNED: u64 = 410;
    const PLANNED_LOG: u64 = 150;
    let (redis, service) = started();
    let used = || {
        let memory = redis.ask(&["INFO", "memory"]);
        memory.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse::<u64>().ok()).unwrap()
    };
    let before = used();
    let lines = (0..COUNT).map(|number| {
        serde_json::json!({
            "kind": "session", "issuer": ISSUER, "id": format!("session-{number:08}-of-usual-length"), "reason": "left",
        })
    });
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    let (status, answers) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), &lines.join("\n"));
    assert!(status == 200 && answers.contains(&format!("\"written\":{COUNT}")), "{status}");
    let delete = |pattern: &str| {
        let text = "for _, name in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', name) end";
        redis.ask(&["EVAL", text, "0", pattern]);
    };
    // The marks of lag.rs are gone after ten seconds.
    delete("portcullis:{*}:m:*");
    let with_log = used();
    // The feed's log has about the last 1,024 changes of a bucket, whatever the number of revocations.
    delete("portcullis:{*}:log");
    delete("portcullis:{*}:head");
    let without = used();
    let (each, of_log) = ((without - before) / COUNT, (with_log - without) / COUNT);
    println!("{each} B, and {of_log} B of the log");
    assert!(each.abs_diff(PLANNED) <= PLANNED / 5, "{each} B for each");
    assert!(of_log <= PLANNED_LOG * 6 / 5, "{of_log} B of the log for each");
}
