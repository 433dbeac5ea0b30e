//! The feed over HTTP: what a follower gets, from one instance or several, while Redis works, loses its log or its data.
mod load;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use wire::check::{Needs, StoreError};
use wire::feed::{Cursor, Membership, News, Poll, Trouble};
use wire::{DerivedKeys, Kind, RevocationKey};

use crate::support::*;

/// Enough for a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// A held poll ends sooner than the client gives up.
const HELD: Duration = Duration::from_secs(8);

/// As a filter follows.
struct Follower {
    derived: DerivedKeys,
    cursor: Cursor,
    pieces: Vec<Membership>,
    incoming: Vec<Membership>,
    keys: HashSet<RevocationKey>,
    complete: Option<Instant>,
    snapshots: usize,
}

impl Follower {
    fn new(secret_byte: u8) -> Self {
        Self {
            derived: secret(secret_byte).derive(),
            cursor: Cursor::default(),
            pieces: Vec::new(),
            incoming: Vec::new(),
            keys: HashSet::new(),
            complete: None,
            snapshots: 0,
        }
    }

    fn may_contain(&self, key: &RevocationKey) -> bool {
        self.keys.contains(key) || self.pieces.iter().any(|piece| piece.may_contain(key))
    }

    /// True: everything is here, as of `complete`.
    fn poll(&mut self, service: &Running, wait: Duration) -> Result<bool, Trouble> {
        self.poll_with(service, wait, needs())
    }

    fn poll_with(&mut self, service: &Running, wait: Duration, needs: Needs) -> Result<bool, Trouble> {
        let poll = Poll::new(&self.derived, nonce(), needs, wait, &self.cursor);
        let sent = Instant::now();
        let (status, body) = service.post_bytes(wire::feed::PATH, poll.bytes());
        let reply = poll.read_reply(&self.derived, status, &body).expect("the reply must be authentic")?;
        assert_eq!(reply.keeps.token, DAY + 301);
        self.cursor = reply.cursor;
        match reply.news {
            News::Keys { complete_millis, more, keys } => {
                self.keys.extend(keys);
                let millis = Duration::from_millis(complete_millis.unsigned_abs().into());
                self.complete = if complete_millis < 0 { sent.checked_sub(millis) } else { Some(sent + millis) };
                Ok(!more)
            }
            News::Piece { piece, pieces, membership } => {
                if piece == 0 {
                    self.incoming.clear();
                    self.snapshots += 1;
                }
                self.incoming.push(membership);
                if piece + 1 == pieces {
                    self.pieces = std::mem::take(&mut self.incoming);
                    self.keys.clear();
                    self.complete = None;
                }
                Ok(false)
            }
        }
    }

    fn catch_up(&mut self, service: &Running) {
        eventually(SOON, || (self.poll(service, Duration::from_secs(1)) == Ok(true)).then_some(()));
    }
}

#[test]
fn a_held_poll_ends_with_a_revocation() {
    let (_redis, service) = started();
    service.revoke(Kind::User, "before");
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    assert!(follower.may_contain(&key(Kind::User, "before")) && !follower.may_contain(&key(Kind::User, "alice")));
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| {
            follower.poll(&service, HELD).unwrap();
            assert!(follower.may_contain(&key(Kind::User, "alice")));
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(300));
        service.revoke(Kind::User, "alice");
        let acknowledged = Instant::now();
        let told = polling.join().unwrap().saturating_duration_since(acknowledged);
        assert!(told < Duration::from_secs(1), "{told:?}");
    });
    let began = Instant::now();
    assert_eq!(follower.poll(&service, Duration::from_millis(500)), Ok(true));
    assert!(began.elapsed() >= Duration::from_millis(500), "there was nothing new");
    assert!(follower.complete.unwrap() > began, "the proof is newer than the poll");
}

#[test]
fn a_cursor_of_one_instance_is_understood_by_another() {
    let (redis, first) = started();
    let second = Running::start(options(&redis));
    let (mut follower, mut other) = (Follower::new(1), Follower::new(1));
    follower.catch_up(&first);
    other.catch_up(&second);
    for number in 0..10 {
        let id = format!("user-{number}");
        let (one, two) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
        one.revoke(Kind::User, &id);
        eventually(SOON, || {
            follower.poll(two, Duration::from_millis(200)).unwrap();
            follower.may_contain(&key(Kind::User, &id)).then_some(())
        });
    }
    assert_eq!(follower.snapshots, 1);
    // An instance that starts later understands it too.
    drop(first);
    let third = Running::start(options(&redis));
    follower.catch_up(&third);
    assert_eq!(follower.snapshots, 1);
}

#[test]
fn a_bucket_that_loses_its_log_is_read_anew_without_a_restart() {
    let (redis, service) = started();
    service.revoke(Kind::User, "alice");
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    let alice = key(Kind::User, "alice");
    for names in [&["log"][..], &["head"], &["log", "head"]] {
        for name in names {
            redis.ask(&["DEL", &format!("portcullis:{{{:02x}}}:{name}", alice.0[0])]);
        }
        let (id, revoked) = (0..)
            .map(|number| format!("{names:?}-{number}"))
            .find_map(|id| {
                let revoked = key(Kind::User, &id);
                (revoked.0[0] == alice.0[0]).then_some((id, revoked))
            })
            .unwrap();
        service.revoke(Kind::User, &id);
        let acknowledged = Instant::now();
        eventually(SOON, || {
            let polled = follower.poll(&service, Duration::from_millis(500));
            assert!(matches!(polled, Ok(_) | Err(Trouble::Incomplete)), "{polled:?}");
            let complete = follower.complete.filter(|complete| *complete > acknowledged)?;
            assert!(follower.may_contain(&revoked), "complete {:?} after it", complete - acknowledged);
            Some(())
        });
        assert!(follower.may_contain(&alice));
    }
    assert_eq!(follower.snapshots, 1);
    let (_, metrics) = service.admin_text("GET", "/metrics", None, "");
    assert!(!metrics.contains("portcullis_feed_gaps_total 0\n"), "{metrics}");
}

#[test]
fn a_lift_leaves_with_the_next_snapshot() {
    let (_redis, service) = started();
    service.revoke(Kind::User, "alice");
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    service.admin("DELETE", &format!("/v1/revocations/{}", key(Kind::User, "alice")), "");
    assert!(follower.may_contain(&key(Kind::User, "alice")));
    std::thread::sleep(Duration::from_secs(6));
    let mut other = Follower::new(1);
    other.catch_up(&service);
    assert!(!other.may_contain(&key(Kind::User, "alice")));
}

#[test]
fn a_lost_store_is_not_followed() {
    let (redis, service) = started();
    service.revoke(Kind::User, "alice");
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    redis.ask(&["FLUSHALL"]);
    let changed = Err(Trouble::Store(StoreError::StoreChanged));
    eventually(SOON, || (follower.poll(&service, Duration::from_millis(100)) == changed).then_some(()));
    assert_eq!(Follower::new(1).poll(&service, Duration::ZERO), changed);
}

#[test]
fn a_stopped_redis_makes_the_proof_old_and_it_is_followed_again() {
    let (redis, service) = started();
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    redis.signal("STOP");
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    if follower.poll(&service, Duration::from_millis(100)) == Ok(true) {
        let age = began.checked_duration_since(follower.complete.unwrap());
        assert!(age.is_some_and(|age| age > Duration::from_millis(500)), "{age:?}");
    }
    std::thread::sleep(Duration::from_secs(6));
    let polled = follower.poll(&service, Duration::ZERO);
    assert!(matches!(polled, Err(Trouble::Store(_))), "too old to be of use: {polled:?}");
    redis.signal("CONT");
    service_revokes(&service, "alice");
    eventually(SOON, || {
        let _ = follower.poll(&service, Duration::from_millis(200));
        follower.may_contain(&key(Kind::User, "alice")).then_some(())
    });
    assert_eq!(follower.snapshots, 1);
}

fn service_revokes(service: &Running, id: &str) {
    eventually(SOON, || (service.admin("POST", "/v1/revocations", &asking(Kind::User, id)).0 == 201).then_some(()));
}

#[test]
fn both_secrets_follow_while_they_rotate_and_others_do_not() {
    let redis = Redis::start();
    let service = Running::start(service::Options { secret_files: secret_files(&redis, &[2, 1]), ..options(&redis) });
    service.revoke(Kind::User, "alice");
    for byte in [1, 2] {
        let mut follower = Follower::new(byte);
        follower.catch_up(&service);
        let alice = secret(byte).derive().revocation_key(Kind::User, ISSUER, b"alice");
        assert!(follower.may_contain(&alice), "secret {byte}");
    }
    let poll = Poll::new(&secret(3).derive(), nonce(), needs(), Duration::ZERO, &Cursor::default());
    assert_eq!(service.post_bytes(wire::feed::PATH, poll.bytes()).0, 401);
    assert_eq!(service.post_bytes(wire::feed::PATH, b"no poll").0, 400);
}

#[test]
fn a_follower_is_refused_as_a_check_is() {
    let (_redis, service) = started();
    let mut follower = Follower::new(1);
    let store = |error| Err(Trouble::Store(error));
    let tolerant = Needs { future_iat_tolerance_seconds: 2, ..needs() };
    assert_eq!(follower.poll_with(&service, Duration::ZERO, tolerant), store(StoreError::ToleranceTooShort));
    let ahead = Needs { now_seconds: now() + 10, ..needs() };
    assert_eq!(follower.poll_with(&service, Duration::ZERO, ahead), store(StoreError::ClockBehind));
}

#[test]
fn followers_are_bounded_and_a_stop_does_not_wait_for_them() {
    let redis = Redis::start();
    let mut service = Running::start(options_with(&redis, &["--max-followers", "1"]));
    let mut follower = Follower::new(1);
    follower.catch_up(&service);
    let poll = Poll::new(&follower.derived, nonce(), needs(), HELD, &follower.cursor);
    let url = format!("http://{}{}", service.at.listen, wire::feed::PATH);
    let held = std::thread::spawn(move || ureq::post(url).send(poll.bytes()).unwrap().status().as_u16());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(Follower::new(1).poll(&service, Duration::ZERO), Err(Trouble::TooManyFollowers));
    let (_, metrics) = service.admin_text("GET", "/metrics", None, "");
    assert!(metrics.contains("portcullis_feed_followers 1\n"), "{metrics}");
    let began = Instant::now();
    service.stop();
    assert_eq!(held.join().unwrap(), 200);
    drop(service);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let service = Running::start(options_with(&redis, &["--max-followers", "0"]));
    assert_eq!(Follower::new(1).poll(&service, HELD), Err(Trouble::Disabled));
}

/// The promise, against a real Redis and three instances: what was acknowledged before the moment of a proof is in the
/// picture, while revocations are made and logs are lost.
#[test]
fn a_proof_covers_what_was_acknowledged_before_it() {
    let redis = Redis::start();
    let services: Vec<_> = (0..3).map(|_| Running::start(options(&redis))).collect();
    let ends = Instant::now() + Duration::from_secs(6);
    let acknowledged = std::sync::Mutex::new(Vec::<(RevocationKey, Instant)>::new());
    std::thread::scope(|scope| {
        for (writer, service) in services.iter().enumerate() {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                for number in 0.. {
                    if Instant::now() > ends {
                        return;
                    }
                    let id = format!("{writer}-{number}");
                    service.revoke(Kind::User, &id);
                    acknowledged.lock().unwrap().push((key(Kind::User, &id), Instant::now()));
                }
            });
        }
        scope.spawn(|| {
            let mut bucket = 0;
            while Instant::now() < ends {
                std::thread::sleep(Duration::from_millis(300));
                bucket = (bucket + 37) % 256;
                redis.ask(&["DEL", &format!("portcullis:{{{bucket:02x}}}:log")]);
            }
        });
        for number in 0..4 {
            let (services, acknowledged) = (&services, &acknowledged);
            scope.spawn(move || {
                let mut follower = Follower::new(1);
                let mut proofs = 0;
                for turn in 0.. {
                    if Instant::now() > ends {
                        break;
                    }
                    let service = &services[(number + turn / 5) % 3];
                    if follower.poll(service, Duration::from_millis(50)) != Ok(true) {
                        continue;
                    }
                    let complete = follower.complete.unwrap();
                    let known = acknowledged.lock().unwrap().clone();
                    for (key, at) in known.iter().filter(|(_, at)| *at < complete) {
                        assert!(follower.may_contain(key), "{:?} before", complete - *at);
                    }
                    proofs += 1;
                }
                assert!(proofs > 5, "{proofs}");
            });
        }
    });
    assert!(acknowledged.lock().unwrap().len() > 100);
}
