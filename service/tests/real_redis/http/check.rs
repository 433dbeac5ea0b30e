//! Checks of filters, and what is measured of them.
use super::*;

#[test]
fn a_filter_is_told_how_long_revocations_are_kept() {
    let (_redis, service) = started();
    let named = NamedIssuer {
        issuer: "https://told.example".into(),
        needs: Retention { token: DAY, login: DAY },
        kinds: Kinds::ALL,
    };
    let keeps = service.announce(&[named]);
    assert_eq!(keeps, Retention { token: DAY + 301, login: 30 * DAY + 301 });
    let question = Question::new(&secret(1).derive(), [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let (status, body) = service.post_check(question.bytes());
    let reply = question.read_reply(&secret(1).derive(), status, &body).unwrap().unwrap();
    assert_eq!((reply.keeps, reply.answers), (keeps, vec![Answer::Live]));
}

#[test]
fn a_filter_with_a_longer_lead_or_a_faster_clock_is_told_so() {
    let (_redis, service) = started();
    let ours = secret(1).derive();
    let keys = [key(Kind::Session, "s")];
    let with = |needs| service.check_with(&ours, needs, &keys);
    assert_eq!(
        with(Needs { future_iat_tolerance_seconds: 2, ..needs() }),
        (503, Ok(Err(StoreError::ToleranceTooShort)))
    );
    assert_eq!(with(Needs { future_iat_tolerance_seconds: 0, ..needs() }), (200, Ok(Ok(vec![Answer::Live]))));
    assert_eq!(with(Needs { now_seconds: now() + 10, ..needs() }), (503, Ok(Err(StoreError::ClockBehind))));
    assert_eq!(with(Needs { now_seconds: now() - 60, ..needs() }), (200, Ok(Ok(vec![Answer::Live]))));
}

#[test]
fn both_secrets_see_a_revocation_while_they_rotate() {
    let redis = Redis::start();
    let service = Running::start(service::Options { secret_files: secret_files(&redis, &[2, 1]), ..options(&redis) });
    let shown = service.revoke(Kind::User, "alice");
    let before = Answer::Before(shown["before"].as_u64().unwrap());
    for byte in [1, 2] {
        let derived = secret(byte).derive();
        let named = derived.revocation_key(Kind::User, ISSUER, b"alice");
        assert_eq!(service.check_as(&derived, &[named]), (200, Ok(Ok(vec![before]))), "secret {byte}");
    }
    // Lifted under one name, it is lifted under both.
    let (status, lifted) = service.admin("DELETE", &format!("/v1/revocations/{}", key(Kind::User, "alice")), "");
    assert_eq!((status, lifted["lifted"].as_array().unwrap().len()), (200, 2), "{lifted}");
    for byte in [1, 2] {
        let derived = secret(byte).derive();
        let named = derived.revocation_key(Kind::User, ISSUER, b"alice");
        assert_eq!(service.check_as(&derived, &[named]), (200, Ok(Ok(vec![Answer::Live]))));
    }
}

#[test]
fn a_revocation_that_is_not_acknowledged_is_counted() {
    let (mut redis, service) = started();
    let failed = || {
        let (_, text) = service.admin_text("GET", "/metrics", None, "");
        let lines = text.lines().filter(|line| line.starts_with("portcullis_revocations_failed_total{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    service.revoke(Kind::User, "alice");
    assert_eq!(failed(), 0);
    redis.kill();
    assert_ne!(service.admin("POST", "/v1/revocations", &asking(Kind::User, "bob")).0, 201);
    assert_eq!(failed(), 1);
}

/// How many revocations this instance has timed, and how long they took together.
fn timed(service: &Running) -> (u64, f64) {
    let (_, text) = service.admin_text("GET", "/metrics", None, "");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
    };
    (value("portcullis_revocation_lag_seconds_count") as u64, value("portcullis_revocation_lag_seconds_sum"))
}

#[test]
fn a_revocation_is_timed_once_whichever_instance_made_it_or_tells_it() {
    let (redis, first) = started();
    let second = Running::start(options(&redis));
    let both = [&first, &second];
    let count = || both.iter().map(|service| timed(service).0).sum::<u64>();
    let (user, session) = (key(Kind::User, "alice"), key(Kind::Session, "s"));
    let began = Instant::now();
    first.revoke(Kind::User, "alice");
    first.revoke(Kind::Session, "s");
    // Neither those that live nor the writing are told of.
    assert_eq!(first.check(&[key(Kind::User, "bob")]), Ok(vec![Answer::Live]));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), 0);
    second.check(&[user, key(Kind::User, "bob"), session]).unwrap();
    eventually(Duration::from_secs(5), || (timed(&second).0 == 2).then_some(()));
    let seconds = timed(&second).1;
    assert!(seconds >= 0.6 && seconds <= 2.0 * began.elapsed().as_secs_f64(), "{seconds}");
    // To tell it again, here or there, or to end it again, is not a new one.
    first.revoke(Kind::Session, "s");
    for service in both {
        service.check(&[user, session]).unwrap();
    }
    first.revoke(Kind::Session, "last");
    first.check(&[key(Kind::Session, "last")]).unwrap();
    eventually(Duration::from_secs(5), || (count() == 3).then_some(()));
    assert_eq!((timed(&first).0, timed(&second).0), (1, 2));
    let marks = redis.ask(&["EVAL", "return #redis.call('KEYS', 'portcullis:{*}:m:*')", "0"]);
    assert_eq!(marks, ":0\r\n", "nothing stays behind");
}

#[test]
fn a_mark_that_is_no_time_is_not_counted_and_harms_nothing() {
    let (redis, service) = started();
    let session = key(Kind::Session, "s");
    service.revoke(Kind::Session, "s");
    let mark = entry(session).replace(":r:", ":m:");
    assert!(redis.ask(&["PTTL", &mark]).starts_with(':') && !redis.ask(&["PTTL", &mark]).starts_with(":-"));
    redis.ask(&["SET", &mark, "nonsense"]);
    assert_eq!(service.check(&[session]), Ok(vec![Answer::Dead]));
    eventually(Duration::from_secs(5), || redis.ask(&["EXISTS", &mark]).starts_with(":0").then_some(()));
    assert_eq!(service.check(&[session]), Ok(vec![Answer::Dead]));
    assert_eq!(timed(&service).0, 0);
    // A list of revocations shows none of it.
    service.revoke(Kind::Session, "t");
    assert_eq!(service.admin("GET", "/v1/revocations?limit=1000", "").1["revocations"].as_array().unwrap().len(), 2);
}

#[test]
fn what_redis_has_evicted_is_shown() {
    let (redis, service) = started();
    let (_, text) = service.admin_text("GET", "/metrics", None, "");
    assert!(text.contains("portcullis_redis_evicted_keys 0\n"), "{text}");
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    redis.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let junk = "x".repeat(64 * 1024);
    eventually(Duration::from_secs(5), || {
        redis.ask(&["SET", "junk", &junk]);
        let stats = redis.ask(&["INFO", "stats"]);
        stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")).filter(|count| *count != "0").map(|_| ())
    });
    let shown = || {
        let (_, text) = service.admin_text("GET", "/metrics", None, "");
        let line = text.lines().find_map(|line| line.strip_prefix("portcullis_redis_evicted_keys "));
        line.unwrap().parse::<u64>().unwrap()
    };
    eventually(Duration::from_secs(5), || (shown() > 0).then_some(()));
}
