//! Reports of from where sessions are used: what is in them, when they are sent, and that no request depends on them.
use std::time::Duration;

use driver::fake::{FakeReply, InFlight, Request};
use driver::{StreamId, TICK};
use serde_json::json;
use wire::check::StoreError;
use wire::sightings::{MAX_SIGHTINGS, Names, PATH, Sighting};
use wire::{Cidr, Kind, token_id_from_jti};

use crate::support::{Fixture, ISSUER, NOW, bearer, code, is_forwarded, token};

fn start(settings: serde_json::Value) -> Fixture {
    let mut at = Fixture::start(2);
    at.edit(|document| document["sightings"] = settings);
    at.run(TICK * 3);
    at
}

fn send(at: &mut Fixture, jti: &str, address: &str, headers: &[(&str, &str)]) -> StreamId {
    send_token(at, &token("one", jti, "alice", NOW), address, headers)
}

fn send_token(at: &mut Fixture, token: &str, address: &str, headers: &[(&str, &str)]) -> StreamId {
    let authorization = bearer(token);
    let headers = [&[("authorization", authorization.as_str())], headers].concat();
    let mut request = Request::get("/api", &headers);
    request.exchange.address = address.parse().ok();
    let stream = at.proxy.send(0, request);
    let check = |call: &InFlight| (call.header(":path") != PATH).then(|| at.service.answer(&call.body));
    at.proxy.answer_all(check);
    stream
}

fn reports(at: &Fixture) -> Vec<Vec<Sighting>> {
    let reports = at.proxy.host.in_flight.iter().filter(|call| call.header(":path") == PATH);
    reports.map(|call| at.service.sightings(&call.body)).collect()
}

/// Those of the report that is sent next.
fn reported(at: &mut Fixture) -> Vec<Sighting> {
    for _ in 0..11 {
        at.proxy.advance(TICK);
        let all = reports(at).concat();
        at.answer_all();
        if !all.is_empty() {
            return all;
        }
    }
    Vec::new()
}

#[test]
fn nothing_is_reported_unless_it_is_configured() {
    let mut at = Fixture::start(1);
    let stream = send(&mut at, "one", "203.0.113.9:1", &[]);
    at.proxy.advance(Duration::from_secs(5));
    assert!(is_forwarded(&at.proxy, stream) && reports(&at).is_empty());
}

#[test]
fn an_admitted_request_is_reported_with_its_client() {
    let mut at = start(json!({ "country_header": "x-geo-country" }));
    let sent = [("user-agent", "curl"), ("x-geo-country", "de")];
    let stream = send(&mut at, "one", "203.0.113.9", &sent);
    assert!(is_forwarded(&at.proxy, stream));
    let all = reported(&mut at);
    let [sighting] = &all[..] else { panic!("{all:?}") };
    let keys = &at.service.keys;
    assert_eq!(sighting.kind, Kind::Token);
    assert_eq!(sighting.session, keys.revocation_key(Kind::Token, ISSUER, &token_id_from_jti("one")));
    assert_eq!(sighting.user, Some(keys.revocation_key(Kind::User, ISSUER, b"alice")));
    let client = sighting.client;
    assert_eq!(client.network, Cidr::parse("203.0.113.0/24"));
    assert!(client.agent.is_some() && client.certificate.is_none());
    assert_eq!(client.country, Some(*b"DE"));
    assert_eq!(at.proxy.metric("sightings{sent}"), 1);
}

#[test]
fn names_are_reported_only_if_it_is_configured() {
    let names = |settings| {
        let mut at = start(settings);
        send(&mut at, "one", "203.0.113.9", &[]);
        reported(&mut at)[0].names.clone()
    };
    assert_eq!(names(json!({})), None);
    // The token belongs to no session.
    assert_eq!(names(json!({ "names": true })), Names::new(ISSUER, None, Some("alice")).map(Box::new));
}

#[test]
fn only_a_change_is_reported_at_once() {
    let mut at = start(json!({ "again_after": "60s" }));
    for _ in 0..20 {
        send(&mut at, "one", "203.0.113.9", &[]);
    }
    assert_eq!(reported(&mut at).len(), 1);
    send(&mut at, "one", "203.0.113.10", &[]);
    assert_eq!(reported(&mut at).len(), 0, "the same network");
    send(&mut at, "one", "198.51.100.1", &[]);
    assert_eq!(reported(&mut at).len(), 1, "another network");
    at.run(Duration::from_secs(61));
    send(&mut at, "one", "198.51.100.1", &[]);
    assert_eq!(reported(&mut at).len(), 1, "after a while");
}

#[test]
fn a_refused_request_is_not_reported() {
    let mut at = start(json!({}));
    at.revoke(Kind::User, "alice");
    let revoked = send(&mut at, "one", "203.0.113.9", &[]);
    assert_eq!(code(&at.proxy, revoked), "SESSION_REVOKED");
    let forged = token("forger", "two", "bob", NOW);
    let forged = send_token(&mut at, &forged, "203.0.113.9", &[]);
    assert_eq!(code(&at.proxy, forged), "KEY_UNKNOWN");
    assert_eq!(reported(&mut at), []);
}

#[test]
fn headers_by_which_a_client_claims_another_place_do_not_count() {
    let mut at = start(json!({ "country_header": "x-geo-country" }));
    let mut network_and_country = |jti, headers: &[(&str, &str)]| {
        send(&mut at, jti, "203.0.113.9", headers);
        let all = reported(&mut at);
        (all[0].client.network, all[0].client.country)
    };
    let (own, none) = (Cidr::parse("203.0.113.0/24"), None);
    // The client's, beside the proxy's own.
    assert_eq!(network_and_country("one", &[("x-geo-country", "FR"), ("x-geo-country", "DE")]), (own, none));
    assert_eq!(network_and_country("two", &[("x_geo_country", "FR")]), (own, none));
    assert_eq!(network_and_country("three", &[("x-geo-country", "FR, DE")]), (own, none));
    assert_eq!(network_and_country("four", &[("x-forwarded-for", "198.51.100.1"), ("x-real-ip", "::1")]), (own, none));

    let mut at = start(json!({}));
    at.edit(|document| document["client_address"] = json!({ "forwarded_for": 2 }));
    send(&mut at, "five", "203.0.113.9", &[("x-forwarded-for", "10.9.9.9, 198.51.100.1, 203.0.113.9")]);
    assert_eq!(reported(&mut at)[0].client.network, Cidr::parse("198.51.100.0/24"));
}

#[test]
fn many_sessions_fill_a_report_and_no_more() {
    let mut at = start(json!({}));
    let flood = MAX_SIGHTINGS + 100;
    for number in 0..flood {
        let token = token("one", &format!("t{number}"), &format!("user{number}"), NOW);
        let stream = send_token(&mut at, &token, "203.0.113.9", &[]);
        assert!(is_forwarded(&at.proxy, stream));
    }
    assert_eq!(reported(&mut at).len(), MAX_SIGHTINGS);
    assert_eq!(at.proxy.metric("sightings{dropped}"), 100);
}

#[test]
fn one_session_cannot_fill_a_report() {
    let mut at = start(json!({}));
    for number in 0..100 {
        send(&mut at, "one", "203.0.113.9", &[("user-agent", &format!("agent {number}"))]);
    }
    send_token(&mut at, &token("one", "two", "bob", NOW), "203.0.113.9", &[]);
    let of_bob = at.service.keys.revocation_key(Kind::User, ISSUER, b"bob");
    let all = reported(&mut at);
    assert!(all.len() == 5 && all.iter().any(|sighting| sighting.user == Some(of_bob)), "{}", all.len());
    assert_eq!(at.proxy.metric("sightings{dropped}"), 96);
}

#[test]
fn no_request_waits_for_a_report_or_suffers_from_a_lost_one() {
    let mut at = start(json!({ "again_after": "1s" }));
    let replies = [
        // None at all, until the callout's timeout.
        None,
        Some(FakeReply::new(200, "text/plain", "taken")),
        Some(FakeReply::new(404, "text/plain", "an older service")),
    ];
    for (nth, reply) in replies.into_iter().enumerate() {
        let stream = send(&mut at, "one", "203.0.113.9", &[]);
        assert!(is_forwarded(&at.proxy, stream));
        at.proxy.advance(TICK);
        let [call] = &at.proxy.host.in_flight.clone()[..] else { panic!("one report is in flight") };
        let again = send(&mut at, "one", "203.0.113.9", &[]);
        assert!(is_forwarded(&at.proxy, again), "while a report is in flight");
        if let Some(reply) = reply {
            at.proxy.answer(call.id, &reply);
        }
        at.proxy.advance(Duration::from_secs(5));
        assert_eq!(at.proxy.metric("sightings{lost}"), i64::try_from(nth).unwrap() + 1);
    }
    at.service.fails = Some(StoreError::StoreFailed);
    at.run(Duration::from_secs(5));
    at.service.fails = None;
    let stream = send(&mut at, "one", "203.0.113.9", &[]);
    at.run(Duration::from_secs(2));
    assert!(is_forwarded(&at.proxy, stream));
    assert_eq!((at.proxy.metric("sightings{lost}"), at.proxy.metric("sightings{sent}")), (3, 1));
    assert_eq!(at.proxy.metric("checks_failed{no_proof}"), 0, "a report is no check");
}

#[test]
fn a_host_that_sends_nothing_loses_the_report_only() {
    let mut at = start(json!({}));
    let stream = send(&mut at, "one", "203.0.113.9", &[]);
    at.proxy.host.refuses_calls = true;
    at.proxy.advance(TICK * 2);
    assert!(is_forwarded(&at.proxy, stream));
    assert_eq!(at.proxy.metric("sightings{lost}"), 1);
}

#[test]
fn of_a_session_all_or_nothing_is_reported() {
    let mut at = start(json!({ "percent": 30, "again_after": "1s" }));
    let mut seen = [0; 50];
    for _ in 0..3 {
        for (number, seen) in seen.iter_mut().enumerate() {
            let token = token("one", &format!("t{number}"), &format!("user{number}"), NOW);
            send_token(&mut at, &token, "203.0.113.9", &[]);
            *seen += reported(&mut at).len();
        }
    }
    assert!(seen.iter().all(|times| [0, 3].contains(times)), "{seen:?}");
    let sampled = seen.iter().filter(|times| **times == 3).count();
    assert!((5..=30).contains(&sampled), "{sampled}");
}
