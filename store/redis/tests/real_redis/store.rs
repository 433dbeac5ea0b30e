//! What the store answers while its Redis works, is lost, swapped, slow, stopped or full of nonsense.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ::store::{StoreError, WriteError};
use store_redis::{Allow, Config, CreateError, RedisOptions, create_store};
use wire::{Answer, Kind};

use crate::support::*;

/// A recheck of the servers' health, its jitter, and room for a busy machine.
const NOTICED: Duration = Duration::from_secs(6);
/// How soon it must be back once Redis is.
const RECOVERED: Duration = Duration::from_secs(2);

#[test]
fn a_pinned_instance_takes_no_other_store() {
    let (redis, _instance) = started();
    let id = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let pinned = Instance::start(&Config { create: false, store_id: Some(id), ..config(&redis) });
    assert_eq!(pinned.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
}

#[test]
fn a_replica_is_not_used() {
    let (redis, instance) = started();
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually(NOTICED, || (instance.check(&[key(Kind::Session, "s")]) == Err(StoreError::StoreUnsafe)).then_some(()));
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually(NOTICED, || instance.check(&[key(Kind::Session, "s")]).ok());
}

#[test]
fn a_killed_redis_is_refused_and_back_with_everything_after_its_restart() {
    let (mut redis, instance) = started();
    instance.revoke(Kind::Session, "s");
    let epoch = instance.epoch();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(instance.epoch(), epoch, "nothing happened in several rounds");
    redis.kill();
    let keys = [key(Kind::Session, "s")];
    for _ in 0..5 {
        assert_eq!(instance.check(&keys), Err(StoreError::StoreRefused));
    }
    let error = instance.try_revoke(Kind::Session, "t").unwrap_err();
    assert_eq!(error.store_error(), StoreError::StoreRefused);
    redis.restart();
    let answers = eventually(RECOVERED, || instance.check(&keys).ok());
    assert_eq!(answers, [Answer::Dead]);
    assert!(instance.epoch() > epoch, "it has come back, perhaps with less");
    instance.revoke(Kind::Session, "t");
}

#[test]
fn a_instance_starts_before_its_redis_and_finds_it() {
    let mut redis = Redis::start();
    redis.kill();
    let instance = Instance::start(&config(&redis));
    assert_eq!(instance.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreRefused));
    redis.restart();
    eventually(RECOVERED, || instance.check(&[key(Kind::Session, "s")]).ok());
}

#[test]
fn a_stopped_redis_is_slow_within_the_limit_and_no_late_reply_reaches_another_question() {
    let (redis, instance) = started();
    instance.revoke(Kind::Session, "dead");
    let before = instance.revoke_until_now(Kind::User, "alice");
    redis.signal("STOP");
    let stopped = Instant::now();
    std::thread::scope(|scope| {
        for name in ["dead", "live"].into_iter().cycle().take(16) {
            let instance = &instance;
            scope.spawn(move || {
                while stopped.elapsed() < Duration::from_secs(1) {
                    let asked = Instant::now();
                    assert_eq!(instance.check(&[key(Kind::Session, name)]), Err(StoreError::StoreSlow));
                    assert!(asked.elapsed() < Duration::from_millis(500), "took {:?}", asked.elapsed());
                }
            });
        }
    });
    redis.signal("CONT");
    eventually(RECOVERED, || instance.check(&[key(Kind::Session, "live")]).ok());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(instance.check(&[key(Kind::Session, "live")]), Ok(vec![Answer::Live]));
                    assert_eq!(instance.check(&[key(Kind::Session, "dead")]), Ok(vec![Answer::Dead]));
                    assert_eq!(instance.check(&[key(Kind::User, "alice")]), Ok(vec![Answer::Before(before)]));
                }
            });
        }
    });
}

#[test]
fn a_short_stop_leaves_no_late_reply_either() {
    let (redis, instance) = started();
    instance.revoke(Kind::Session, "dead");
    for _ in 0..5 {
        redis.signal("STOP");
        assert_eq!(instance.check(&[key(Kind::Session, "dead")]), Err(StoreError::StoreSlow));
        redis.signal("CONT");
        let live = eventually(RECOVERED, || instance.check(&[key(Kind::Session, "live")]).ok());
        assert_eq!(live, [Answer::Live]);
    }
}

#[test]
fn a_value_that_we_did_not_write_is_never_taken_for_live() {
    let (redis, instance) = started();
    let named = key(Kind::Session, "s");
    for garbage in ["", "L", "D", "B;", "B12", "Bx;", "1", "B99999999999999999;"] {
        redis.ask(&["SET", &entry(named), garbage]);
        assert_eq!(instance.check(&[key(Kind::Session, "t"), named]), Err(StoreError::StoreFailed), "{garbage}");
        assert_eq!(instance.show(named).unwrap().answer, None, "{garbage}");
    }
    // Revoking mends it.
    instance.revoke(Kind::Session, "s");
    assert_eq!(instance.check(&[named]), Ok(vec![Answer::Dead]));
}

#[test]
fn a_redis_that_answers_with_errors_has_failed() {
    let (redis, instance) = started();
    redis.ask(&["ACL", "SETUSER", "default", "-mget"]);
    assert_eq!(instance.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreFailed));
    redis.ask(&["ACL", "SETUSER", "default", "+mget"]);
    assert!(instance.check(&[key(Kind::Session, "s")]).is_ok());
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
        let instance = Instance::start(&Config { redis: RedisOptions::single(&impostor(answer)), ..config(&redis) });
        assert_eq!(instance.check(&[key(Kind::Session, "s")]), Err(trouble), "{answer:?}");
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
    let instance = Instance::start(&Config { redis: RedisOptions::single(&name.url()), ..config(&old) });
    instance.revoke(Kind::Session, "s");
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
    assert!(matches!(instance.try_revoke(Kind::Session, "t"), Err(WriteError::NotWritten(_))));
    let revoked = |id| instance.try_revoke(Kind::Session, id).is_ok();
    eventually(NOTICED, || revoked("t").then_some(()));
    assert!(new.ask(&["GET", &entry(key(Kind::Session, "t"))]).starts_with("$"));
    let dead = [key(Kind::Session, "s"), key(Kind::Session, "t")];
    // Reads too: what is revoked on the new primary alone is seen.
    old.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually(NOTICED, || revoked("u").then_some(()));
    eventually(NOTICED, || (instance.check(&[key(Kind::Session, "u")]) == Ok(vec![Answer::Dead])).then_some(()));
    assert_eq!(instance.check(&dead), Ok(vec![Answer::Dead; 2]));
}

#[test]
fn a_connection_that_leads_to_another_store_is_left_after_a_while() {
    let (ours, other) = (Redis::start(), Redis::start());
    let _first = Instance::start(&config(&ours));
    let name = Forwarder::to(ours.port);
    let instance =
        Instance::start(&Config { redis: RedisOptions::single(&name.url()), create: false, ..config(&ours) });
    assert!(instance.check(&[key(Kind::Session, "s")]).is_ok());
    // As when a name leads astray for a moment: the sentinel of what it led to never becomes ours.
    let sentinel = ours.ask(&["GET", "portcullis:{00}:sentinel"]);
    let id = sentinel.lines().nth(1).unwrap().to_owned();
    let copy = "for i = 0, 255 do redis.call('SET', string.format('portcullis:{%02x}:sentinel', i), ARGV[1]) end";
    other.ask(&["EVAL", copy, "0", &id]);
    ours.ask(&["DEL", "portcullis:{00}:sentinel"]);
    eventually(NOTICED, || (instance.check(&[key(Kind::Session, "s")]) == Err(StoreError::StoreChanged)).then_some(()));
    name.target.store(other.port, Ordering::SeqCst);
    eventually(Duration::from_secs(12), || instance.check(&[key(Kind::Session, "s")]).ok());
}

// A login while the write waits must not outlive "log out everywhere".
#[test]
fn before_is_that_of_the_writing_and_not_of_the_asking() {
    let (redis, instance) = started();
    instance.revoke(Kind::User, "warm");
    redis.signal("STOP");
    let (asked, written, before) = std::thread::scope(|scope| {
        let asked = now();
        let revoking = scope.spawn(|| instance.revoke_until_now(Kind::User, "alice"));
        std::thread::sleep(Duration::from_millis(1500));
        let written = now();
        redis.signal("CONT");
        (asked, written, revoking.join().unwrap())
    });
    assert!(written > asked && before >= written + 2, "asked {asked}, written {written}, before {before}");
    assert_eq!(
        instance.check(&[key(Kind::User, "warm"), key(Kind::User, "alice")]).unwrap()[1],
        Answer::Before(before)
    );
}

#[test]
fn a_store_is_made_once_and_never_in_place_of_another() {
    let redis = Redis::start();
    let create = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(create_store(
            &RedisOptions::single(&redis.url()),
            Duration::from_secs(2),
            Allow::default(),
            None,
        ))
    };
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(matches!(create(), Err(CreateError::Unhealthy(_))));
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let id = create().unwrap();
    match create() {
        Err(CreateError::Exists(found)) => assert_eq!(found, id.to_string()),
        other => panic!("{other:?}"),
    }
    let instance = Instance::start(&Config { create: false, store_id: Some(id), ..config(&redis) });
    assert!(instance.check(&[key(Kind::Session, "s")]).is_ok());
    // Lost and made anew, it is another: who knew the old one answers nothing from it.
    redis.ask(&["FLUSHALL"]);
    assert_ne!(create().unwrap(), id);
    assert_eq!(instance.check(&[key(Kind::Session, "s")]), Err(StoreError::StoreChanged));
}

// As in a failover that somebody asked for. What is read goes on then, and what times revocations must not stop it.
#[test]
fn checks_of_ended_keys_are_answered_while_redis_takes_no_writes() {
    let (redis, instance) = started();
    instance.revoke(Kind::Session, "s");
    redis.ask(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let answers = instance.check(&[key(Kind::Session, "s"), key(Kind::Session, "other")]);
        assert_eq!(answers, Ok(vec![Answer::Dead, Answer::Live]), "after {:?}", begun.elapsed());
    }
}
