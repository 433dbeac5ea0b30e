//! What the service says while its Redis is well, lost, swapped, slow, stopped or full of nonsense.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;
use wire::check::StoreError;
use wire::{Answer, Kind};

/// A recheck of the store's standing, its jitter, and room for a busy machine.
const NOTICED: Duration = Duration::from_secs(6);
/// How soon it must be back once Redis is.
const RECOVERED: Duration = Duration::from_secs(2);

#[test]
fn answers_live_dead_and_before_in_the_order_asked() {
    let (_redis, service) = started();
    service.revoke(Kind::Session, "s");
    let before = service.revoke(Kind::User, "alice")["before"].as_u64().unwrap();
    let keys = [key(Kind::Session, "t"), key(Kind::Session, "s"), key(Kind::User, "alice"), key(Kind::User, "bob")];
    assert_eq!(service.check(&keys), Ok(vec![Answer::Live, Answer::Dead, Answer::Before(before), Answer::Live]));
}

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
fn a_pinned_service_takes_no_other_store() {
    let (redis, _service) = started();
    let id = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let pinned = Running::start(service::Options { create_store: false, store_id: Some(id), ..options(&redis) });
    assert_eq!(pinned.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
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

#[test]
fn a_replica_is_not_used() {
    let (redis, service) = started();
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually(NOTICED, || (service.check(&[key(Kind::Session, "s")]) == Err(StoreError::StoreUnsafe)).then_some(()));
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually(NOTICED, || service.check(&[key(Kind::Session, "s")]).ok());
}

#[test]
fn a_killed_redis_is_refused_and_back_with_everything_after_its_restart() {
    let (mut redis, service) = started();
    service.revoke(Kind::Session, "s");
    redis.kill();
    let keys = [key(Kind::Session, "s")];
    for _ in 0..5 {
        assert_eq!(service.check(&keys), Err(StoreError::StoreRefused));
    }
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "t"));
    assert_eq!((status, problem["code"].as_str()), (503, Some("store_refused")), "{problem}");
    redis.restart();
    let answers = eventually(RECOVERED, || service.check(&keys).ok());
    assert_eq!(answers, [Answer::Dead]);
    service.revoke(Kind::Session, "t");
}

#[test]
fn a_service_starts_before_its_redis_and_finds_it() {
    let mut redis = Redis::start();
    redis.kill();
    let service = Running::start(options(&redis));
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreRefused));
    redis.restart();
    eventually(RECOVERED, || service.check(&[key(Kind::Session, "s")]).ok());
}

#[test]
fn a_stopped_redis_is_slow_within_the_limit_and_no_late_reply_reaches_another_question() {
    let (redis, service) = started();
    service.revoke(Kind::Session, "dead");
    let before = service.revoke(Kind::User, "alice")["before"].as_u64().unwrap();
    redis.signal("STOP");
    let stopped = Instant::now();
    std::thread::scope(|scope| {
        for name in ["dead", "live"].into_iter().cycle().take(16) {
            let service = &service;
            scope.spawn(move || {
                while stopped.elapsed() < Duration::from_secs(1) {
                    let asked = Instant::now();
                    assert_eq!(service.check(&[key(Kind::Session, name)]), Err(StoreError::StoreSlow));
                    assert!(asked.elapsed() < Duration::from_millis(500), "took {:?}", asked.elapsed());
                }
            });
        }
    });
    redis.signal("CONT");
    eventually(RECOVERED, || service.check(&[key(Kind::Session, "live")]).ok());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(service.check(&[key(Kind::Session, "live")]), Ok(vec![Answer::Live]));
                    assert_eq!(service.check(&[key(Kind::Session, "dead")]), Ok(vec![Answer::Dead]));
                    assert_eq!(service.check(&[key(Kind::User, "alice")]), Ok(vec![Answer::Before(before)]));
                }
            });
        }
    });
}

#[test]
fn a_short_stop_leaves_no_late_reply_either() {
    let (redis, service) = started();
    service.revoke(Kind::Session, "dead");
    for _ in 0..5 {
        redis.signal("STOP");
        assert_eq!(service.check(&[key(Kind::Session, "dead")]), Err(StoreError::StoreSlow));
        redis.signal("CONT");
        let live = eventually(RECOVERED, || service.check(&[key(Kind::Session, "live")]).ok());
        assert_eq!(live, [Answer::Live]);
    }
}

#[test]
fn a_value_that_we_did_not_write_is_never_taken_for_live() {
    let (redis, service) = started();
    let named = key(Kind::Session, "s");
    for garbage in ["", "L", "D", "B;", "B12", "Bx;", "1", "B99999999999999999;"] {
        redis.ask(&["SET", &entry(named), garbage]);
        assert_eq!(service.check(&[key(Kind::Session, "t"), named]), Err(StoreError::StoreFailed), "{garbage}");
        let (status, shown) = service.admin("GET", &format!("/v1/revocations/{named}"), "");
        assert_eq!((status, shown["answer"].as_str()), (200, Some("unreadable")), "{shown}");
    }
    // Revoking mends it.
    service.revoke(Kind::Session, "s");
    assert_eq!(service.check(&[named]), Ok(vec![Answer::Dead]));
}

#[test]
fn a_redis_that_answers_with_errors_has_failed() {
    let (redis, service) = started();
    redis.ask(&["ACL", "SETUSER", "default", "-mget"]);
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreFailed));
    redis.ask(&["ACL", "SETUSER", "default", "+mget"]);
    assert!(service.check(&[key(Kind::Session, "s")]).is_ok());
}

/// What listens on Redis's port and is none.
fn impostor(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match answer {
                Some(b"") => {}
                Some(answer) => {
                    let mut question = [0; 512];
                    while let Ok(read @ 1..) = stream.read(&mut question) {
                        let asked = question[..read].iter().filter(|byte| **byte == b'*').count();
                        if stream.write_all(&answer.repeat(asked)).is_err() {
                            break;
                        }
                    }
                }
                None => kept.push(stream),
            }
        }
    });
    format!("redis://127.0.0.1:{port}")
}

#[test]
fn an_impostor_is_refused_slow_or_failed_and_never_live() {
    let redis = Redis::start();
    for (answer, trouble) in [
        (None, StoreError::StoreSlow),
        (Some(&b""[..]), StoreError::StoreRefused),
        (Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), StoreError::StoreFailed),
        (Some(b"-LOADING Redis is loading the dataset in memory\r\n"), StoreError::StoreFailed),
        (Some(b"+OK\r\n"), StoreError::StoreFailed),
    ] {
        let service = Running::start(options_with(&redis, &["--redis", &impostor(answer)]));
        assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(trouble), "{answer:?}");
    }
}

/// What the name of a primary is to clients: it leads to whichever server it is told to, and old connections stay.
struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Forwarder {
    fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = Arc::clone(&target);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst))) else { continue };
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port, target }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

#[test]
fn after_a_failover_reads_and_writes_go_to_the_new_primary() {
    let (old, new) = (Redis::start(), Redis::start());
    let name = Forwarder::to(old.port);
    let service = Running::start(options_with(&old, &["--redis", &name.url()]));
    service.revoke(Kind::Session, "s");
    new.ask(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]);
    eventually(Duration::from_secs(10), || {
        new.ask(&["GET", "portcullis:{00}:sentinel"]).starts_with("$32").then_some(())
    });
    // The failover: the replica is promoted, the old primary follows it, and the name leads to the new one.
    new.ask(&["REPLICAOF", "NO", "ONE"]);
    old.ask(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]);
    name.target.store(new.port, Ordering::SeqCst);
    // The first write meets the old primary, is refused, and is said not to be written; the next goes to the new one, and
    // is acknowledged once reads go there too.
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "t"));
    assert_eq!((status, problem["written"].as_str()), (503, Some("no")), "{problem}");
    let revoked = |id| service.admin("POST", "/v1/revocations", &asking(Kind::Session, id)).0 == 201;
    eventually(NOTICED, || revoked("t").then_some(()));
    assert!(new.ask(&["GET", &entry(key(Kind::Session, "t"))]).starts_with("$"));
    let dead = [key(Kind::Session, "s"), key(Kind::Session, "t")];
    // Reads too: what is revoked on the new primary alone is seen.
    old.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually(NOTICED, || revoked("u").then_some(()));
    eventually(NOTICED, || (service.check(&[key(Kind::Session, "u")]) == Ok(vec![Answer::Dead])).then_some(()));
    assert_eq!(service.check(&dead), Ok(vec![Answer::Dead; 2]));
}

#[test]
fn a_connection_that_leads_to_another_store_is_left_after_a_while() {
    let (ours, other) = (Redis::start(), Redis::start());
    let _first = Running::start(options(&ours));
    let name = Forwarder::to(ours.port);
    let service =
        Running::start(service::Options { create_store: false, ..options_with(&ours, &["--redis", &name.url()]) });
    assert!(service.check(&[key(Kind::Session, "s")]).is_ok());
    // As when a name leads astray for a moment: the sentinel of what it led to never becomes ours.
    let sentinel = ours.ask(&["GET", "portcullis:{00}:sentinel"]);
    let id = sentinel.lines().nth(1).unwrap().to_owned();
    let copy = "for i = 0, 255 do redis.call('SET', string.format('portcullis:{%02x}:sentinel', i), ARGV[1]) end";
    other.ask(&["EVAL", copy, "0", &id]);
    ours.ask(&["DEL", "portcullis:{00}:sentinel"]);
    eventually(NOTICED, || (service.check(&[key(Kind::Session, "s")]) == Err(StoreError::StoreChanged)).then_some(()));
    name.target.store(other.port, Ordering::SeqCst);
    eventually(Duration::from_secs(12), || service.check(&[key(Kind::Session, "s")]).ok());
}

// A login while the write waits must not outlive "log out everywhere".
#[test]
fn before_is_that_of_the_writing_and_not_of_the_asking() {
    let (redis, service) = started();
    service.revoke(Kind::User, "warm");
    redis.signal("STOP");
    let (asked, written, shown) = std::thread::scope(|scope| {
        let asked = now();
        let revoking = scope.spawn(|| service.revoke(Kind::User, "alice"));
        std::thread::sleep(Duration::from_millis(1500));
        let written = now();
        redis.signal("CONT");
        (asked, written, revoking.join().unwrap())
    });
    let before = shown["before"].as_u64().unwrap();
    assert!(written > asked && before >= written + 2, "asked {asked}, written {written}, before {before}");
    assert_eq!(service.check(&[key(Kind::User, "warm"), key(Kind::User, "alice")]).unwrap()[1], Answer::Before(before));
}

#[test]
fn a_store_is_made_once_and_never_in_place_of_another() {
    let redis = Redis::start();
    let create = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(service::create_store(
            &service::RedisOptions::single(&redis.url()),
            Duration::from_secs(2),
            service::Allow::default(),
            None,
        ))
    };
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(matches!(create(), Err(service::CreateError::Unhealthy(_))));
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let id = create().unwrap();
    match create() {
        Err(service::CreateError::Exists(found)) => assert_eq!(found, id.to_string()),
        other => panic!("{other:?}"),
    }
    let service = Running::start(service::Options { create_store: false, store_id: Some(id), ..options(&redis) });
    assert!(service.check(&[key(Kind::Session, "s")]).is_ok());
    // Lost and made anew, it is another: who knew the old one answers nothing from it.
    redis.ask(&["FLUSHALL"]);
    assert_ne!(create().unwrap(), id);
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
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
    // The marks of lag.rs are gone after ten seconds.
    let marks = "for _, name in ipairs(redis.call('KEYS', 'portcullis:{*}:m:*')) do redis.call('DEL', name) end";
    redis.ask(&["EVAL", marks, "0"]);
    let each = (used() - before) / COUNT;
    println!("{each} B");
    assert!(each.abs_diff(PLANNED) <= PLANNED / 5, "{each} B for each");
}

// As in a failover that somebody asked for. What is read goes on then, and what times revocations must not stop it.
#[test]
fn checks_of_ended_keys_are_answered_while_redis_takes_no_writes() {
    let (redis, service) = started();
    service.revoke(Kind::Session, "s");
    redis.ask(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let answers = service.check(&[key(Kind::Session, "s"), key(Kind::Session, "other")]);
        assert_eq!(answers, Ok(vec![Answer::Dead, Answer::Live]), "after {:?}", begun.elapsed());
    }
}
