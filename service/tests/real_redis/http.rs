//! The two listeners as their clients see them.
mod bulk;
mod check;
mod connections;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::check::{MAX_QUESTION_BYTES, NamedIssuer, Needs, Question, StoreError};
use wire::{Answer, Kind, Kinds, Retention};

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
    assert!(before > now() && ends.contains("before `before`") && ends.contains("auth_time"), "{ends}");
    assert!(shown["until"].as_u64().unwrap() >= now() + u64::from(30 * DAY));
    let shown = service.revoke(Kind::Token, "jti");
    let until = shown["until"].as_u64().unwrap();
    assert!((now() + u64::from(DAY)..now() + u64::from(2 * DAY)).contains(&until), "{shown}");
    assert_eq!(shown["ends"], "this one token");
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
