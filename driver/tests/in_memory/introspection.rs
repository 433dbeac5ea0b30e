//! Introspection over time: opaque tokens, JWTs that are introspected too, floods, and clients that leave.
use std::time::Duration;

use crate::support::{Fixture, NOW, code, is_forwarded, is_waiting};
use driver::fake::FakeReply;
use serde_json::{Value, json};
use wire::Kind;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn opaque(number: u32) -> String {
    format!("opaque_{number:032}")
}

fn active() -> Value {
    json!({ "active": true, "sub": "alice", "iat": NOW - 10, "exp": NOW + 600 })
}

fn questions(at: &Fixture) -> usize {
    at.proxy.host.in_flight.iter().filter(|call| call.cluster == "as").count()
}

/// JWTs of the issuer are introspected too.
fn introspected_jwts() -> Fixture {
    let mut at = Fixture::start(1);
    at.edit(|document| {
        document["issuers"][0]["introspection"] = json!({
            "cluster": "as", "path": "/introspect", "client_auth": "none", "of": "jwt", "timeout": "1s", "freshness": "2s",
        });
    });
    at
}

#[test]
fn a_token_that_is_known_waits_for_introspection_and_check_at_once() {
    let mut at = Fixture::with_introspection();
    at.active(&opaque(1), Some(active()));
    let first = at.send_token(&opaque(1));
    assert_eq!((questions(&at), at.checks()), (1, 0), "what to check is not known yet");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    at.proxy.host.advance(MS(2100));
    let second = at.send_token(&opaque(1));
    assert_eq!((questions(&at), at.checks()), (1, 1), "and now it is");
    while let Some(call) = at.proxy.host.in_flight.first().cloned() {
        let reply = at.reply(&call);
        at.proxy.answer(call.id, &reply);
        assert!(questions(&at) + at.checks() <= 1, "neither is asked again");
    }
    assert!(is_forwarded(&at.proxy, second));
}

/// The first segment of a token of the key `one`.
fn header_of_one() -> String {
    let token = crate::support::token("one", "any", "alice", NOW);
    token.split('.').next().unwrap().to_owned()
}

#[test]
fn a_jwt_that_is_not_good_by_itself_is_never_sent_to_the_server() {
    let mut at = introspected_jwts();
    for (claim, value) in
        [("aud", json!("another")), ("exp", json!(NOW - 3600)), ("iss", json!("https://other.example"))]
    {
        let mut claims =
            json!({ "iss": crate::support::ISSUER, "aud": "api", "sub": "alice", "iat": NOW - 4000, "exp": NOW + 60 });
        claims[claim] = value;
        let token = crate::support::key("one").mint(&claims);
        let stream = at.send_token(&token);
        assert!(!is_waiting(&at.proxy, stream) && !is_forwarded(&at.proxy, stream), "{claim}");
    }
    let mut bound = json!({ "iss": crate::support::ISSUER, "aud": "api", "sub": "alice", "iat": NOW, "exp": NOW + 60 });
    bound["cnf"] = json!({ "jkt": "AAAA" });
    let forged = crate::support::token("forger", "forged", "alice", NOW);
    let forged = forged.replacen(&forged[..forged.find('.').unwrap()], header_of_one().as_str(), 1);
    for (token, expected) in [(crate::support::key("one").mint(&bound), "BINDING_MISMATCH"), (forged, "SIG_MISMATCH")] {
        let stream = at.send_token(&token);
        assert_eq!(code(&at.proxy, stream), expected);
    }
    assert_eq!(questions(&at), 0);

    // A good one is asked about, and the server's refusal is remembered.
    let good = crate::support::token("one", "good", "alice", NOW);
    for asked in [1, 0] {
        let stream = at.send_token(&good);
        assert_eq!(questions(&at), asked);
        at.answer_all();
        assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN");
    }
}

#[test]
fn a_jwt_is_asked_about_within_the_freshness_and_what_the_server_ends_is_refused() {
    let mut at = introspected_jwts();
    let token = crate::support::token("one", "one", "alice", NOW);
    at.active(&token, Some(json!({ "active": true })));
    let first = at.send_token(&token);
    assert_eq!((questions(&at), at.checks()), (1, 1));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    let again = at.send_token(&token);
    assert!(is_forwarded(&at.proxy, again), "remembered");
    at.active(&token, Some(json!({ "active": false })));
    at.proxy.host.advance(MS(2100));
    let ended = at.send_token(&token);
    at.answer_all();
    assert_eq!(code(&at.proxy, ended), "SESSION_UNKNOWN");
    at.active(&token, Some(json!({ "active": true })));
    at.proxy.host.advance(MS(2100));
    let back = at.send_token(&token);
    at.answer_all();
    assert!(is_forwarded(&at.proxy, back), "a no counts for as long as a yes");
    at.revoke(Kind::User, "alice");
    at.proxy.host.advance(MS(2100));
    let revoked = at.send_token(&token);
    at.answer_all();
    assert_eq!(code(&at.proxy, revoked), "SESSION_REVOKED");
}

#[test]
fn a_server_that_says_something_else_is_cannot_tell() {
    let replies = [
        FakeReply::broken_off(),
        FakeReply::new(500, "application/json", r#"{"active":true}"#),
        FakeReply::new(200, "text/html", "<html>"),
        FakeReply::new(200, "application/json", "{}"),
        FakeReply::new(200, "application/json", r#"{"active":"true"}"#),
        FakeReply::new(200, "application/json", vec![b' '; 64 * 1024]),
    ];
    for reply in replies {
        for mut at in [Fixture::with_introspection(), introspected_jwts()] {
            let opaque_token = opaque(1);
            let jwt = crate::support::token("one", "one", "alice", NOW);
            let stream = at.send_token(if at.proxy.core.policy.introspection(0).unwrap().asks_about_jwts() {
                &jwt
            } else {
                &opaque_token
            });
            at.proxy.answer_all(|call| (call.cluster == "as").then(|| reply.clone()));
            assert!(code(&at.proxy, stream).ends_with("UNAVAILABLE"), "{reply:?}: {}", code(&at.proxy, stream));
        }
    }
}

#[test]
fn a_flood_of_made_up_tokens_leaves_room_for_a_known_one() {
    let mut at = Fixture::with_introspection();
    at.edit(|document| document["limits"]["waiting_requests"] = 100.into());
    at.active(&opaque(1), Some(active()));
    let known = at.send_token(&opaque(1));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, known));
    at.proxy.host.advance(MS(2100));
    let flood: Vec<_> = (2..500).map(|number| at.send_token(&opaque(number))).collect();
    assert_eq!(flood.iter().filter(|stream| is_waiting(&at.proxy, **stream)).count(), 75);
    assert_eq!(questions(&at), 48);
    let known = at.send_token(&opaque(1));
    assert!(is_waiting(&at.proxy, known));
    let call = at.proxy.host.in_flight.iter().find(|call| String::from_utf8_lossy(&call.body).contains(&opaque(1)));
    let call = call.expect("it is asked about at once").clone();
    let reply = at.reply(&call);
    at.proxy.answer(call.id, &reply);
    let service = at.service.clone();
    at.proxy.answer_all(|call| call.header(":path").starts_with("/v1").then(|| service.answer(&call.body)));
    assert!(is_forwarded(&at.proxy, known));
}

#[test]
fn clients_that_leave_keep_nothing_and_the_answer_is_remembered() {
    let mut at = Fixture::with_introspection();
    at.active(&opaque(1), Some(active()));
    let gone = at.send_token(&opaque(1));
    at.proxy.reset(gone);
    assert_eq!(at.proxy.workers[0].waiting(), 0);
    at.answer_all();
    let stream = at.send_token(&opaque(1));
    assert_eq!(questions(&at), 0, "the answer that no request waited for is of use");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, stream));
}

#[test]
fn a_host_that_refuses_the_callout_is_503_at_once() {
    let mut at = Fixture::with_introspection();
    at.proxy.host.refuses_calls = true;
    let stream = at.send_token(&opaque(1));
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    assert_eq!(at.proxy.metric("introspections{as,not_sent}"), 1);
}
