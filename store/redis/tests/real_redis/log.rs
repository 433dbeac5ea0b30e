//! The log of revocations in Redis: pasts that differ, and names that other clients have changed.
use std::time::{Duration, Instant};

use ::store::{Place, ShardNews};
use store_redis::{Config, Mode, RedisOptions};
use wire::{Answer, Kind, RevocationKey};

use crate::support::*;

/// Ids of sessions whose keys are in one bucket.
fn in_one_bucket() -> impl Iterator<Item = String> {
    let first = key(Kind::Session, "0").0[0];
    (0..).map(|number: u32| number.to_string()).filter(move |id| key(Kind::Session, id).0[0] == first)
}

fn name(of: RevocationKey, rest: &str) -> String {
    format!("portcullis:{{{:02x}}}:{rest}", of.0[0])
}

fn places(news: &[ShardNews]) -> Vec<Option<Place>> {
    let place = |news: &ShardNews| match news {
        ShardNews::Whole { place, .. } => Some(*place),
        other => panic!("{other:?}"),
    };
    news.iter().map(place).collect()
}

fn has(news: &ShardNews, key: RevocationKey) -> bool {
    match news {
        ShardNews::Whole { revocations, .. } => revocations.iter().any(|(found, _)| *found == key),
        ShardNews::Entries(entries) => entries.iter().any(|entry| entry.key() == Some(key)),
        ShardNews::Nothing | ShardNews::Gap => false,
    }
}

#[test]
fn a_past_that_lost_an_entry_is_noticed_although_its_number_is_used_again() {
    let (redis, instance) = started();
    let ids: Vec<_> = in_one_bucket().take(3).collect();
    let of = key(Kind::Session, &ids[0]);
    let bucket = usize::from(of.0[0]);
    instance.revoke(Kind::Session, &ids[0]);
    let head = redis.ask(&["GET", &name(of, "head")]).lines().nth(1).unwrap().to_owned();
    instance.revoke(Kind::Session, &ids[1]);
    let read = instance.follow(&[None; 256]).unwrap();
    let seen = places(&read);
    // As after a failover to a server that does not have the last one.
    redis.ask(&["SET", &name(of, "head"), &head]);
    redis.ask(&["XDEL", &name(of, "log"), "2"]);
    redis.ask(&["DEL", &entry(key(Kind::Session, &ids[1]))]);
    assert_eq!(instance.follow(&seen).unwrap()[bucket], ShardNews::Gap, "fewer entries");
    instance.revoke(Kind::Session, &ids[2]);
    let news = instance.follow(&seen).unwrap();
    assert_eq!(news[bucket], ShardNews::Gap, "as many, and others");
    instance.revoke(Kind::Session, &ids[1]);
    let news = instance.follow(&seen).unwrap();
    assert_eq!(news[bucket], ShardNews::Gap, "more, and others");
    assert!(news.iter().enumerate().all(|(at, news)| at == bucket || *news == ShardNews::Nothing));
    let anew: Vec<_> = seen.iter().enumerate().map(|(at, place)| place.filter(|_| at != bucket)).collect();
    let news = instance.follow(&anew).unwrap();
    assert!(ids.iter().all(|id| has(&news[bucket], key(Kind::Session, id))));
}

#[test]
fn names_of_another_type_do_not_make_a_revocation_fail_and_are_noticed() {
    let (redis, instance) = started();
    let mut ids = in_one_bucket();
    let of = key(Kind::Session, "0");
    let bucket = usize::from(of.0[0]);
    instance.revoke(Kind::Session, &ids.next().unwrap());
    for broken in ["head", "log"] {
        let seen = places(&instance.follow(&[None; 256]).unwrap());
        redis.ask(&["DEL", &name(of, broken)]);
        redis.ask(&["SADD", &name(of, broken), "nonsense"]);
        let id = ids.next().unwrap();
        instance.revoke(Kind::Session, &id);
        assert_eq!(instance.follow(&seen).unwrap()[bucket], ShardNews::Gap, "{broken}");
        assert!(has(&instance.follow(&[None; 256]).unwrap()[bucket], key(Kind::Session, &id)));
        let seen = places(&instance.follow(&[None; 256]).unwrap());
        let id = ids.next().unwrap();
        instance.revoke(Kind::Session, &id);
        assert!(has(&instance.follow(&seen).unwrap()[bucket], key(Kind::Session, &id)), "it works again");
    }
}

#[test]
fn a_user_without_the_right_to_streams_revokes_as_before() {
    let (redis, instance) = started();
    drop(instance);
    let rights = "+info +role +get +set +mget +del +pttl +time +scan +eval +wait +waitaof +ping +config|get";
    let base = ["ACL", "SETUSER", "narrow", "on", ">password", "~portcullis:*", "-@all"];
    let user: Vec<_> = base.into_iter().chain(rights.split(' ')).collect();
    if redis.ask(&user) != "+OK\r\n" {
        // Older servers do not have WAITAOF.
        let older: Vec<_> = user.into_iter().filter(|right| *right != "+waitaof").collect();
        assert_eq!(redis.ask(&older), "+OK\r\n");
    }
    let url = format!("redis://narrow:password@127.0.0.1:{}", redis.port);
    let narrow = Instance::start(&Config { redis: RedisOptions::single(&url), create: false, ..config(&redis) });
    narrow.revoke(Kind::Session, "s");
    assert_eq!(narrow.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Dead]));
    assert!(redis.ask(&["GET", &name(key(Kind::Session, "s"), "head")]).contains("1:"));
}

#[test]
fn a_redis_without_memory_refuses_a_revocation_as_a_whole_and_keeps_its_log() {
    let (redis, instance) = started();
    instance.revoke(Kind::Session, "0");
    let of = key(Kind::Session, "0");
    let seen = places(&instance.follow(&[None; 256]).unwrap());
    let (log, head) = (name(of, "log"), name(of, "head"));
    let before = [redis.ask(&["XRANGE", &log, "-", "+"]), redis.ask(&["GET", &head])];
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let id = in_one_bucket().nth(1).unwrap();
    assert!(instance.try_revoke(Kind::Session, &id).is_err());
    assert_eq!([redis.ask(&["XRANGE", &log, "-", "+"]), redis.ask(&["GET", &head])], before);
    assert_eq!(redis.ask(&["GET", &entry(key(Kind::Session, &id))]), "$-1\r\n");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    instance.revoke(Kind::Session, &id);
    assert!(has(&instance.follow(&seen).unwrap()[usize::from(of.0[0])], key(Kind::Session, &id)), "without a gap");
}

/// Until a change of slots is known to the instance.
const KNOWN: Duration = Duration::from_secs(5);

#[test]
fn a_bucket_is_followed_while_its_slot_migrates_and_read_anew_only_after_that() {
    let [one, other] = Redis::start_cluster_of_two();
    let options = RedisOptions { mode: Mode::Cluster, ..RedisOptions::single(&one.url()) };
    let instance = Instance::start(&Config { redis: options, ..config(&one) });
    // A bucket of the first server.
    let slot_of = |key| one.ask(&["CLUSTER", "KEYSLOT", &name(key, "head")])[1..].trim().parse::<u32>().unwrap();
    let mut ids = (0_u32..).map(|number| number.to_string());
    let first = ids.find(|id| slot_of(key(Kind::Session, id)) < 8192).unwrap();
    let of = key(Kind::Session, &first);
    let (bucket, slot) = (usize::from(of.0[0]), slot_of(of).to_string());
    let mut ids = ids.filter(|id| key(Kind::Session, id).0[0] == of.0[0]);
    eventually(KNOWN, || instance.try_revoke(Kind::Session, &first).ok());
    let seen = places(&instance.follow(&[None; 256]).unwrap());
    // The mark of lag.rs would stay in the slot until it expires.
    one.ask(&["DEL", &name(of, &format!("m:{of}"))]);
    let myid = |redis: &Redis| redis.ask(&["CLUSTER", "MYID"]).lines().nth(1).unwrap().to_owned();
    let (here, there) = (myid(&one), myid(&other));
    assert_eq!(other.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &here]), "+OK\r\n");
    assert_eq!(one.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &there]), "+OK\r\n");
    let port = other.port.to_string();
    let migrate = |name: &str| assert_eq!(one.ask(&["MIGRATE", "127.0.0.1", &port, name, "0", "1000"]), "+OK\r\n");
    let anew: Vec<_> = seen.iter().enumerate().map(|(at, place)| place.filter(|_| at != bucket)).collect();
    for moved in ["head", "log", "sentinel"] {
        migrate(&name(of, moved));
        assert_eq!(instance.follow(&seen).unwrap()[bucket], ShardNews::Nothing, "after {moved}");
        assert!(instance.follow(&anew).is_err(), "some names are elsewhere");
        // It is not written half here and half there.
        assert!(instance.try_revoke(Kind::Session, &first).is_err(), "after {moved}");
    }
    migrate(&entry(of));
    for redis in [&other, &one] {
        assert_eq!(redis.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &there]), "+OK\r\n");
    }
    let id = ids.next().unwrap();
    eventually(KNOWN, || instance.try_revoke(Kind::Session, &id).ok());
    let written = Instant::now();
    let news = eventually(KNOWN, || instance.follow(&seen).ok());
    assert!(has(&news[bucket], key(Kind::Session, &id)), "{:?} after the write", written.elapsed());
    assert!(matches!(news[bucket], ShardNews::Entries(_)), "the log came along");
    let news = eventually(KNOWN, || instance.follow(&anew).ok());
    assert!(has(&news[bucket], of) && has(&news[bucket], key(Kind::Session, &id)));
}
