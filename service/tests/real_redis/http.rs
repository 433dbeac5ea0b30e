//! The two listeners as their clients see them.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::check::{MAX_QUESTION_BYTES, NamedIssuer, Needs, Question, StoreError};
use wire::{Answer, Kind, Kinds, Retention};

#[test]
fn a_forged_question_is_refused_without_an_answer_of_ours() {
    let (_redis, service) = started();
    let derived = secret(1).derive();
    let question = Question::new(&derived, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut forged = question.bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let (status, body) = service.post_check(&forged);
    assert_eq!(status, 401);
    assert!(question.read_reply(&derived, status, &body).is_err());
    let strangers = Question::new(&secret(3).derive(), [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    assert_eq!(service.post_check(strangers.bytes()).0, 401);
    assert_eq!(service.post_check(b"nonsense").0, 400);
    assert_eq!(service.post_check(b"").0, 400);
    assert_eq!(service.post_check(&vec![0; MAX_QUESTION_BYTES + 1]).0, 413);
}

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
fn a_revocation_for_an_issuer_that_nobody_has_is_refused_unless_asked_for() {
    let (redis, service) = started();
    let ask = |service: &Running, issuer: &str, more: &str| {
        let body = format!(r#"{{"kind":"user","issuer":"{issuer}","id":"x"{more}}}"#);
        service.admin("POST", "/v1/revocations", &body)
    };
    let told = "https://idp.example.com/realms/a";
    let (status, problem) = ask(&service, told, "");
    assert_eq!((status, problem["field"].as_str()), (400, Some("issuer")), "{problem}");
    assert_eq!(ask(&service, told, r#","new_issuer":true"#).0, 201);
    let needs = Retention { token: 60, login: 60 };
    service.announce(&[NamedIssuer { issuer: told.into(), needs, kinds: Kinds::of([Kind::User, Kind::Issuer]) }]);
    assert_eq!(ask(&service, told, "").0, 201);
    let session = format!(r#"{{"kind":"session","issuer":"{told}","id":"x"}}"#);
    let (status, problem) = service.admin("POST", "/v1/revocations", &session);
    assert_eq!((status, problem["field"].as_str()), (400, Some("kind")), "{problem}");
    let (status, problem) = ask(&service, "https://idp.exmaple.com/realms/a", "");
    assert_eq!(status, 400);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(told) && detail.contains("--new-issuer"), "{detail}");
    // In bulk each line is judged by itself, and so is a token.
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"iss":"https://nobody.example","jti":"x"}"#));
    let lines = [
        format!(r#"{{"kind":"issuer","issuer":"{told}"}}"#),
        r#"{"kind":"issuer","issuer":"https://nobody.example"}"#.to_owned(),
        format!(r#"{{"token":"{token}"}}"#),
        format!(r#"{{"token":"{token}","new_issuer":true}}"#),
    ];
    let (_, answers) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), &lines.join("\n"));
    let refused: Vec<bool> = answers.lines().take(4).map(|line| line.contains(r#""error""#)).collect();
    assert_eq!(refused, [false, true, true, false], "{answers}");
    // Another instance, which no filter has told, knows it from the store.
    let other = Running::start(options(&redis));
    eventually(Duration::from_secs(5), || (ask(&other, told, "").0 == 201).then_some(()));
    assert_eq!(ask(&other, "https://nobody.example", "").0, 400);
}

#[test]
fn a_revocation_says_what_it_ends_and_until_when() {
    let (_redis, service) = started();
    let shown = service.revoke(Kind::User, "alice");
    let (before, ends) = (shown["before"].as_u64().unwrap(), shown["ends"].as_str().unwrap());
    assert!(ends.contains(&format!("before {before}")) && ends.contains("auth_time"), "{ends}");
    assert!(shown["until"].as_u64().unwrap() >= now() + u64::from(30 * DAY));
    let shown = service.revoke(Kind::Token, "jti");
    let until = shown["until"].as_u64().unwrap();
    assert!((now() + u64::from(DAY)..now() + u64::from(2 * DAY)).contains(&until), "{shown}");
    assert_eq!(shown["ends"], "this one token");
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
    let service = Running::start(service::Options { secrets: vec![secret(2), secret(1)], ..options(&redis) });
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
fn http_2_with_prior_knowledge_is_spoken_on_the_same_port() {
    let (_redis, service) = started();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "the first frame must be SETTINGS: {frame:?}");
}

#[test]
fn a_connection_is_kept_for_more_questions() {
    let (_redis, service) = started();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut reply = [0; 1024];
        let read = stream.read(&mut reply).unwrap();
        assert!(reply[..read].starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn the_admin_listener_wants_its_secret_and_the_data_listener_has_none_of_it() {
    let (_redis, service) = started();
    for token in [None, Some("wrong"), Some("an-admin-token-for-tests-of-32-bytez")] {
        let (status, body) = service.admin_text("GET", "/v1/revocations", token, "");
        assert_eq!((status, body.contains("unauthorized")), (401, true), "{body}");
        assert_eq!(service.admin_text("POST", "/v1/revocations/bulk", token, "x").0, 401);
    }
    assert_eq!(service.admin("GET", "/v1/nothing", "").0, 404);
    assert_eq!(service.get("/v1/revocations").0, 404);
    assert_eq!(service.get("/metrics").0, 404);
    let (status, text) = service.admin_text("GET", "/metrics", None, "");
    assert_eq!((status, text.contains("portcullis_store_ready 1")), (200, true), "{text}");
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

#[test]
fn an_unknown_field_or_a_short_ttl_is_refused_by_name() {
    let (_redis, service) = started();
    for (field, body) in [
        ("colour", r#"{"kind":"user","issuer":"i","id":"x","colour":"red"}"#),
        ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"1h"}"#),
    ] {
        let (status, problem) = service.admin("POST", "/v1/revocations", body);
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{problem}");
    }
    let (status, problem) = service.admin("POST", "/v1/revocations", &"x".repeat(128 * 1024));
    assert_eq!((status, problem["code"].as_str()), (413, Some("invalid_body")), "{problem}");
}

#[test]
fn what_was_revoked_is_listed_shown_and_lifted_and_redis_names_nobody() {
    let (redis, service) = started();
    let body = format!(r#"{{"kind":"session","issuer":"{ISSUER}","id":"sid-1","reason":"stolen laptop"}}"#);
    let (status, made) = service.admin("POST", "/v1/revocations", &body);
    assert_eq!((status, made["on_disk"].as_bool()), (201, Some(true)), "{made}");
    let named = made["key"].as_str().unwrap();
    assert_eq!(named, key(Kind::Session, "sid-1").to_string());
    for n in 0..30 {
        service.revoke(Kind::User, &format!("user-{n}"));
    }
    let (mut cursor, mut listed) = ("0".to_owned(), Vec::new());
    loop {
        let (status, page) = service.admin("GET", &format!("/v1/revocations?limit=10&cursor={cursor}"), "");
        assert_eq!(status, 200, "{page}");
        listed.extend(page["revocations"].as_array().unwrap().clone());
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = next.to_owned();
    }
    // SCAN may name one twice.
    listed.sort_by_key(|revocation| revocation["key"].to_string());
    listed.dedup();
    assert_eq!(listed.len(), 31);
    let path = format!("/v1/revocations/{named}");
    let (status, shown) = service.admin("GET", &path, "");
    assert_eq!(status, 200);
    for (member, value) in [("kind", "session"), ("issuer", ISSUER), ("id", "sid-1"), ("reason", "stolen laptop")] {
        assert_eq!(shown[member], value, "{shown}");
    }
    assert!(!redis.ask(&["GET", &entry(named.parse().unwrap())]).contains("sid-1"));
    assert_eq!(service.admin("DELETE", &path, "").0, 200);
    assert_eq!(service.admin("DELETE", &path, "").0, 404);
    assert_eq!(service.admin("GET", &path, "").0, 404);
    assert_eq!(service.check(&[key(Kind::Session, "sid-1")]), Ok(vec![Answer::Live]));
    assert_eq!(service.admin("GET", "/v1/revocations?limit=0", "").1["field"], "limit");
    assert_eq!(service.admin("GET", "/v1/revocations/short", "").1["field"], "key");
}

#[test]
fn before_never_moves_back_and_a_life_is_never_shortened() {
    let (redis, service) = started();
    let named = key(Kind::User, "alice");
    let name = entry(named);
    redis.ask(&["SET", &name, "B9000000000;", "EX", "9000000"]);
    let shown = service.revoke(Kind::User, "alice");
    assert_eq!(shown["before"], 9_000_000_000_u64, "{shown}");
    assert_eq!(service.check(&[named]), Ok(vec![Answer::Before(9_000_000_000)]));
    assert!(redis.ask(&["TTL", &name]).starts_with(":89999") || redis.ask(&["TTL", &name]).starts_with(":9000000"));
    redis.ask(&["SET", &name, "B5;", "EX", "10"]);
    let shown = service.revoke(Kind::User, "alice");
    assert!(shown["before"].as_u64().unwrap() > 1_000_000_000, "{shown}");
    assert!(redis.ask(&["TTL", &name]).starts_with(":2592"), "{}", redis.ask(&["TTL", &name]));
    redis.ask(&["SET", &name, "D;"]);
    service.revoke(Kind::User, "alice");
    assert_eq!(service.check(&[named]), Ok(vec![Answer::Dead]));
    assert_eq!(redis.ask(&["TTL", &name]), ":-1\r\n");
}

/// RFC 7638 thumbprints, of no key.
const THUMBPRINT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER_THUMBPRINT: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

#[test]
fn a_key_is_revoked_by_its_thumbprint_and_not_by_its_key_id() {
    let (_redis, service) = started();
    let longer = format!("{THUMBPRINT}A");
    for id in [
        "2024-key",
        "",
        &THUMBPRINT[1..],
        &longer,
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
        "+/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let body = format!(r#"{{"kind":"key","issuer":"{ISSUER}","id":"{id}"}}"#);
        let (status, problem) = service.admin("POST", "/v1/revocations", &body);
        assert_eq!(status, 400, "{id}: {problem}");
        assert!(problem.to_string().contains("id"), "{id}: {problem}");
    }
    let (_, list) = service.admin("GET", "/v1/revocations", "");
    assert_eq!(list["revocations"].as_array().map(Vec::len), Some(0), "{list}");
}

#[test]
fn a_revoked_key_never_comes_back_and_a_session_not_before_sessions_end() {
    let (redis, service) = started();
    let ttl = |kind, id| redis.ask(&["TTL", &entry(key(kind, id))]);
    assert_eq!(service.revoke(Kind::SigningKey, THUMBPRINT)["until"], "never");
    assert_eq!(ttl(Kind::SigningKey, THUMBPRINT), ":-1\r\n");
    let (_, shown) = service.admin("GET", &format!("/v1/revocations/{}", key(Kind::SigningKey, THUMBPRINT)), "");
    assert_eq!((shown["until"].as_str(), shown["kind"].as_str()), (Some("never"), Some("key")), "{shown}");
    assert_eq!(service.admin("GET", "/v1/revocations?limit=1000", "").1["revocations"][0]["until"], "never");
    // A shorter life that is asked for later shortens nothing.
    let body = format!(r#"{{"kind":"key","issuer":"{ISSUER}","id":"{THUMBPRINT}","ttl":"60d"}}"#);
    let (status, again) = service.admin("POST", "/v1/revocations", &body);
    assert_eq!((status, again["until"].as_str()), (201, Some("never")), "{again}");
    assert_eq!(ttl(Kind::SigningKey, THUMBPRINT), ":-1\r\n");
    // And an endless one lengthens a life that was to end.
    let body = body.replace(THUMBPRINT, OTHER_THUMBPRINT);
    assert!(service.admin("POST", "/v1/revocations", &body).1["until"].is_u64());
    assert_eq!(service.revoke(Kind::SigningKey, OTHER_THUMBPRINT)["until"], "never");
    assert_eq!(ttl(Kind::SigningKey, OTHER_THUMBPRINT), ":-1\r\n");
    assert!(service.revoke(Kind::Session, "s")["until"].is_u64());
    assert!(ttl(Kind::Session, "s").starts_with(":2592"));
    for kind in [Kind::Token, Kind::User, Kind::Client] {
        service.revoke(kind, "x");
    }
    assert!(ttl(Kind::User, "x").starts_with(":2592"), "{}", ttl(Kind::User, "x"));
    let token = service.revoke(Kind::Token, "x")["key"].as_str().unwrap().parse().unwrap();
    let ttl = redis.ask(&["TTL", &entry(token)]);
    assert!(ttl.starts_with(":867"), "{ttl}");
}

#[test]
fn before_is_past_now_by_the_lead() {
    let (_redis, service) = started();
    let earliest = now() + 2;
    let before = service.revoke(Kind::Client, "app")["before"].as_u64().unwrap();
    assert!((earliest..=now() + 2).contains(&before));
}

#[test]
fn a_token_is_revoked_by_itself() {
    let (_redis, service) = started();
    // {"alg":"none"} and {"iss":"https://issuer.example","jti":"j1"}: nobody verifies it here.
    let token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwianRpIjoiajEifQ.c2ln";
    let (status, made) = service.admin("POST", "/v1/revocations", &format!(r#"{{"token":"{token}"}}"#));
    assert_eq!(status, 201, "{made}");
    let id = wire::token_id_from_jti("j1");
    let named = secret(1).derive().revocation_key(Kind::Token, ISSUER, &id);
    assert_eq!(service.check(&[named]), Ok(vec![Answer::Dead]));
}

#[test]
fn a_token_as_long_as_filters_take_is_revoked() {
    let (_redis, service) = started();
    // {"alg":"none"} and {"iss":"https://issuer.example","jti":"j1"} before a signature of nearly 64 KB.
    let signed = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwianRpIjoiajEifQ.";
    let token = format!("{signed}{}", "x".repeat(65_536 - signed.len()));
    let (status, made) = service.admin("POST", "/v1/revocations", &format!(r#"{{"token":"{token}"}}"#));
    assert_eq!(status, 201, "{made}");
    let (status, problem) = service.admin("POST", "/v1/revocations", &format!(r#"{{"token":"{token}x"}}"#));
    assert_eq!((status, problem["field"].as_str()), (400, Some("token")), "{problem}");
}

fn begin_bulk(service: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(service.at.admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = format!(
        "POST /v1/revocations/bulk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\n\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn bulk_requests_hold_their_places_until_their_answers_end() {
    let (_redis, service) = started();
    let mut streams: Vec<_> = (0..4).map(|_| begin_bulk(&service)).collect();
    for stream in &mut streams {
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    let (status, text) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), "x");
    assert_eq!((status, text.contains("busy")), (503, true), "{text}");
    streams[0].write_all(b"0\r\n\r\n").unwrap();
    eventually(Duration::from_secs(5), || {
        (service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), "x").0 == 200).then_some(())
    });
}

#[test]
fn bodies_that_never_come_take_no_place_from_others() {
    let redis = Redis::start();
    let service = Running::start(service::Options { max_requests: 1, ..options(&redis) });
    let mut slow: Vec<_> = (0..8).map(|_| TcpStream::connect(service.at.listen).unwrap()).collect();
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(service.get("/healthz").0, 200);
    assert_eq!(service.get("/readyz").0, 200);
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Live]));
    for mut stream in slow {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 408");
    }
}

/// How long the service leaves it open.
fn closed_after(mut stream: TcpStream) -> Duration {
    let opened = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "still open after {:?}", opened.elapsed());
    }
    opened.elapsed()
}

#[test]
fn a_connection_without_a_question_of_ours_is_closed_and_one_with_is_kept() {
    let (_redis, service) = started();
    let ours = secret(1).derive();
    let question = Question::new(&ours, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut kept = TcpStream::connect(service.at.listen).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ask = |question: &Question| {
        let head = format!("POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", question.bytes().len());
        kept.write_all(&[head.as_bytes(), question.bytes()].concat()).unwrap();
        let mut reply = [0; 2048];
        let read = kept.read(&mut reply).unwrap();
        assert!(reply[..read].starts_with(b"HTTP/1.1 200"));
    };
    ask(&question);
    std::thread::scope(|scope| {
        for said in [
            &b""[..],
            b"PRI * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"POST /v1/check HTTP/1.1\r\n",
            b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            for at in [service.at.listen, service.at.admin] {
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(at).unwrap();
                    stream.write_all(said).unwrap();
                    let after = closed_after(stream);
                    let expected = Duration::from_secs(9)..Duration::from_secs(17);
                    assert!(expected.contains(&after), "{said:?} was closed after {after:?}");
                });
            }
        }
    });
    ask(&question);
}

#[test]
fn one_more_connection_that_asked_nothing_ends_the_oldest_of_its_address() {
    let redis = Redis::start();
    let service = Running::start(service::Options { max_newcomers: 4, ..options(&redis) });
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(service.at.listen).unwrap()).collect();
    // A new proxy, and a probe: both get in.
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Live]));
    let oldest = silent.remove(0);
    let after = closed_after(oldest);
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert_eq!(probe(service.at.listen, "/healthz"), 200);
}

fn probe(at: std::net::SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn bulk_answers_each_line_and_a_bad_one_stops_nothing() {
    let (_redis, service) = started();
    let mut body = String::new();
    for n in 0..1000 {
        match n {
            10 => body.push_str("nonsense\n"),
            20 => body.push_str(r#"{"kind":"user","issuer":"i"}"#.to_owned().as_str()),
            _ => body.push_str(&asking(Kind::Session, &format!("s{n}"))),
        }
        if n != 10 {
            body.push('\n');
        }
    }
    let (status, text) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), &body);
    assert_eq!(status, 200);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1001);
    for (at, line) in lines[..1000].iter().enumerate() {
        assert_eq!(line["line"], at + 1);
        assert_eq!(line.get("error").is_some(), at == 10 || at == 20, "{line}");
    }
    assert_eq!(lines[20]["error"]["field"], "id");
    let summary = serde_json::json!({ "summary": { "lines": 1000, "written": 998, "failed": 2 } });
    assert_eq!(lines[1000], summary);
    let keys: Vec<_> = (0..500).map(|n| key(Kind::Session, &format!("s{}", n + 100))).collect();
    assert_eq!(service.check(&keys), Ok(vec![Answer::Dead; 500]));
}

#[test]
fn too_few_replicas_leave_a_revocation_written_and_not_confirmed() {
    let redis = Redis::start();
    let confirm_timeout = Duration::from_millis(100);
    let service = Running::start(service::Options { min_replicas: 1, confirm_timeout, ..options(&redis) });
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s"));
    assert_eq!((status, problem["code"].as_str()), (503, Some("not_confirmed")), "{problem}");
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Dead]));
}

#[test]
fn a_disk_that_is_asked_for_and_not_promised_is_not_confirmed() {
    let (redis, service) = started();
    redis.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s"));
    assert_eq!((status, problem["written"].as_str()), (503, Some("yes")), "{problem}");
    let lenient = Running::start(service::Options { require_disk: false, ..options(&redis) });
    assert_eq!(lenient.revoke(Kind::Session, "s")["on_disk"], false);
}

#[test]
fn the_ports_file_has_both_addresses() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ports");
    let service = Running::start(service::Options { ports_file: Some(path.clone()), ..options(&redis) });
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(ports["listen"], service.at.listen.to_string());
    assert_eq!(ports["admin"], service.at.admin.to_string());
}

#[test]
fn a_request_in_progress_is_answered_after_the_service_was_told_to_stop() {
    let (_redis, mut service) = started();
    let derived = secret(1).derive();
    let question = Question::new(&derived, [1; 16], needs(), &[key(Kind::Session, "s")]).unwrap();
    let mut stream = TcpStream::connect(service.at.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = question.bytes().len();
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The interim answer proves that the request is in progress.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    service.stop();
    let at = service.at.listen;
    eventually(Duration::from_secs(5), || TcpStream::connect(at).is_err().then_some(()));
    stream.write_all(question.bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let body = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(reply.starts_with(b"HTTP/1.1 200"));
    assert_eq!(
        question.read_reply(&derived, 200, &reply[body..]).map(|reply| reply.map(|reply| reply.answers)),
        Ok(Ok(vec![Answer::Live]))
    );
}
