//! Open streams: each ends with its session or its token, and no other does.
use std::time::Duration;

use driver::fake::Seen;
use driver::{StreamId, TICK};
use serde_json::json;
use wire::check::StoreError;
use wire::feed::Trouble;
use wire::{Answer, Kind};

use crate::support::{Fixture, ISSUER, NOW, code, is_waiting};

const LAG: Duration = Duration::from_secs(1);
const FRESHNESS: Duration = Duration::from_secs(2);
const CANNOT_TELL_FOR: Duration = Duration::from_secs(30);

fn start(feed: bool) -> Fixture {
    let mut at = Fixture::start(2);
    at.edit(|document| {
        document["rules"][0]["streams"] = json!({ "end_on": ["revoked", "expired"] });
        if feed {
            document["revocation"]["feed"] = json!({ "lag": "1s" });
        }
    });
    at.run(TICK * 3);
    at
}

/// An admitted request whose response has begun.
fn open(at: &mut Fixture, jti: &str) -> StreamId {
    let stream = at.send(jti);
    at.answer_all();
    assert!(at.proxy.is_open(stream), "{:?}", at.proxy.seen(stream));
    at.proxy.respond(stream);
    stream
}

fn end(at: &mut Fixture, jti: &str) {
    let key = at.service.keys.revocation_key(Kind::Token, ISSUER, &wire::token_id_from_jti(jti));
    at.service.revoke(key, Answer::Dead);
}

fn is_reset(at: &Fixture, stream: StreamId) -> bool {
    matches!(at.proxy.seen(stream), Seen::Ended(None))
}

#[test]
fn a_stream_ends_with_its_session_and_another_goes_on() {
    for (feed, within) in [(true, TICK), (false, FRESHNESS)] {
        let mut at = start(feed);
        let (ended, other) = (open(&mut at, "one"), open(&mut at, "two"));
        at.run(Duration::from_secs(60));
        assert!(at.proxy.is_open(ended) && at.proxy.is_open(other));
        assert_eq!(at.proxy.metric("streams_open"), 2);
        end(&mut at, "one");
        at.run(within + TICK);
        assert!(is_reset(&at, ended), "feed: {feed}");
        at.run(Duration::from_secs(60));
        assert!(at.proxy.is_open(other));
        assert_eq!((at.proxy.metric("streams_ended{revoked}"), at.proxy.metric("streams_open")), (1, 1));
        let line = r#"portcullis: ended {"code":"SESSION_REVOKED","rule":"api","cause":"revoked"}"#;
        assert!(at.proxy.host.log.iter().any(|(_, text)| text == line));
    }
}

#[test]
fn with_the_feed_an_open_stream_costs_no_question() {
    let mut at = start(true);
    let before = at.proxy.metric("checks_sent");
    let stream = open(&mut at, "one");
    at.run(Duration::from_secs(300));
    assert!(at.proxy.is_open(stream));
    assert_eq!(at.proxy.metric("checks_sent"), before);
}

#[test]
fn without_the_feed_a_stream_costs_a_question_in_a_part_of_the_freshness() {
    let mut at = start(false);
    let before = at.proxy.metric("checks_sent");
    let streams: Vec<_> = (0..100).map(|_| open(&mut at, "one")).collect();
    at.run(Duration::from_secs(60));
    assert!(streams.iter().all(|stream| at.proxy.is_open(*stream)));
    // Every 1.2 s and not more than a tick later.
    assert!((46..=51).contains(&(at.proxy.metric("checks_sent") - before)));
    end(&mut at, "one");
    at.run(FRESHNESS + TICK);
    assert!(streams.iter().all(|stream| is_reset(&at, *stream)), "all streams of one session");
}

#[test]
fn a_client_without_a_response_gets_the_refusal() {
    let mut at = start(true);
    let stream = at.send("one");
    assert!(at.proxy.is_open(stream));
    end(&mut at, "one");
    at.run(TICK * 2);
    let Seen::Ended(Some(reply)) = at.proxy.seen(stream) else { panic!("{:?}", at.proxy.seen(stream)) };
    assert_eq!((reply.status, reply.details.as_str()), (403, "SESSION_REVOKED"));
    assert_eq!(at.proxy.metric("requests{admitted,none,api}"), 1);
    assert_eq!(at.proxy.metric("requests{refused,SESSION_REVOKED,api}"), 0, "a request has one outcome");
}

#[test]
fn a_stream_ends_with_its_token() {
    for feed in [true, false] {
        let mut at = start(feed);
        let stream = open(&mut at, "one");
        // The token lives for an hour, and the issuer has a skew of 30 s.
        at.run(Duration::from_secs(3600 + 28));
        assert!(at.proxy.is_open(stream));
        at.run(Duration::from_secs(4));
        assert!(is_reset(&at, stream));
        assert_eq!(at.proxy.metric("streams_ended{expired}"), 1);
    }
}

#[test]
fn a_stream_of_an_opaque_token_ends_with_the_time_of_its_answer_or_by_a_revocation() {
    let mut at = Fixture::with_introspection();
    at.edit(|document| document["rules"][0]["streams"] = json!({ "end_on": ["revoked", "expired"] }));
    let tokens = ["opaque_0123456789abcdef0123456789", "opaque_abcdef0123456789abcdef0123"];
    let mut streams = Vec::new();
    for (token, subject) in tokens.into_iter().zip(["alice", "bob"]) {
        at.active(token, Some(json!({ "active": true, "sub": subject, "iat": NOW - 10, "exp": NOW + 100 })));
        let stream = at.send_token(token);
        at.answer_all();
        assert!(at.proxy.is_open(stream), "{:?}", at.proxy.seen(stream));
        at.proxy.respond(stream);
        streams.push(stream);
    }
    at.run(Duration::from_secs(20));
    at.revoke(Kind::User, "alice");
    at.run(FRESHNESS + TICK);
    assert!(is_reset(&at, streams[0]) && at.proxy.is_open(streams[1]));
    at.run(Duration::from_secs(105));
    assert!(at.proxy.is_open(streams[1]), "the skew is 30 s");
    at.run(Duration::from_secs(5));
    assert!(is_reset(&at, streams[1]));
}

#[test]
fn a_stream_that_began_while_the_feed_was_silent_ends_too() {
    let mut at = start(true);
    at.service.feed_trouble = Some(Trouble::Incomplete);
    at.run(LAG * 3);
    let (early, late) = (open(&mut at, "one"), open(&mut at, "two"));
    end(&mut at, "one");
    at.run(FRESHNESS + TICK);
    assert!(is_reset(&at, early), "by checks");
    at.service.feed_trouble = None;
    at.run(Duration::from_secs(5));
    end(&mut at, "two");
    at.run(TICK * 2);
    assert!(is_reset(&at, late), "by the feed");
}

#[test]
fn a_session_that_was_ended_while_the_feed_was_silent_is_in_the_next_snapshot() {
    let mut at = start(true);
    let (ended, other) = (open(&mut at, "one"), open(&mut at, "two"));
    end(&mut at, "one");
    // Another instance, which does not understand the cursor.
    at.service.instance = 2;
    at.run(TICK * 4);
    assert!(is_reset(&at, ended) && at.proxy.is_open(other));
}

#[test]
fn a_stream_outlives_a_short_outage_of_the_service_and_not_a_long_one() {
    for feed in [true, false] {
        let mut at = start(feed);
        let stream = open(&mut at, "one");
        at.service.fails = Some(StoreError::StoreFailed);
        at.service.feed_trouble = Some(Trouble::Incomplete);
        at.run(CANNOT_TELL_FOR - Duration::from_secs(2));
        assert!(at.proxy.is_open(stream));
        at.service.fails = None;
        at.service.feed_trouble = None;
        at.run(Duration::from_secs(5));
        at.service.fails = Some(StoreError::StoreFailed);
        at.service.feed_trouble = Some(Trouble::Incomplete);
        at.run(CANNOT_TELL_FOR - Duration::from_secs(2));
        assert!(at.proxy.is_open(stream), "it was proved to live meanwhile");
        at.run(Duration::from_secs(5));
        assert!(is_reset(&at, stream));
        assert_eq!(at.proxy.metric("streams_ended{cannot_tell}"), 1);
    }
}

#[test]
fn a_rule_that_passes_when_unavailable_keeps_its_streams() {
    let mut at = start(false);
    at.edit(|document| document["rules"][0]["revocation"] = "dangerously_pass_when_unavailable".into());
    let stream = open(&mut at, "one");
    at.service.fails = Some(StoreError::StoreFailed);
    at.run(Duration::from_secs(600));
    assert!(at.proxy.is_open(stream));
    at.service.fails = None;
    end(&mut at, "one");
    at.run(FRESHNESS + TICK);
    assert!(is_reset(&at, stream));
}

#[test]
fn a_stream_that_is_gone_while_its_check_is_in_flight_is_not_ended() {
    let mut at = start(true);
    let stream = open(&mut at, "one");
    let (gone, twin) = (open(&mut at, "two"), open(&mut at, "two"));
    end(&mut at, "two");
    at.answer_poll();
    assert_eq!(at.checks(), 1);
    at.proxy.reset(gone);
    // `FakeProxy` panics if a stream is ended that is gone.
    at.run(TICK * 3);
    assert!(is_reset(&at, twin) && at.proxy.is_open(stream));
    assert_eq!(at.proxy.metric("streams_ended{revoked}"), 1);
    at.proxy.reset(stream);
    at.run(TICK);
    assert_eq!(at.proxy.metric("streams_open"), 0);
}

#[test]
fn a_host_that_fails_to_end_a_stream_is_asked_again() {
    let mut at = start(true);
    let token = at.token("one");
    let mut request = driver::fake::Request::get("/api", &[("authorization", &crate::support::bearer(&token))]);
    request.exchange.refuses_replies = true;
    let stream = at.proxy.send(0, request);
    at.proxy.respond(stream);
    end(&mut at, "one");
    at.run(TICK * 3);
    assert!(at.proxy.is_open(stream));
    let says = |text: &str| text.contains("did not end a stream");
    assert!(at.proxy.host.log.iter().filter(|(_, text)| says(text)).count() >= 2);
    assert_eq!((at.proxy.metric("streams_ended{revoked}"), at.proxy.metric("streams_open")), (0, 1));
}

#[test]
fn more_streams_than_may_be_open_are_refused_and_those_of_other_rules_are_not() {
    let mut at = start(true);
    at.edit(|document| {
        document["limits"] = json!({ "open_streams": 4 });
        let mut other = document["rules"][0].clone();
        other["name"] = "other".into();
        other.as_object_mut().unwrap().remove("streams");
        document["rules"][0]["match"] = json!({ "path": { "prefix": "/api" } });
        document["rules"].as_array_mut().unwrap().push(other);
    });
    at.run(TICK * 3);
    let streams: Vec<_> = ["one", "two", "three", "four"].map(|jti| open(&mut at, jti)).to_vec();
    let refused = at.send("five");
    assert_eq!(code(&at.proxy, refused), "STORE_UNAVAILABLE");
    let token = at.token("five");
    let bearer = crate::support::bearer(&token);
    let other = at.proxy.send(0, driver::fake::Request::get("/other", &[("authorization", &bearer)]));
    assert!(at.proxy.is_open(other));
    at.proxy.reset(streams[0]);
    open(&mut at, "five");
}

// Regression: only streams that end by a revocation were counted for their token.
#[test]
fn one_token_has_a_quarter_of_the_open_streams_however_they_end() {
    for end_on in [json!(["revoked"]), json!(["expired"]), json!(["revoked", "expired"])] {
        let mut at = start(true);
        at.edit(|document| {
            document["limits"] = json!({ "open_streams": 8 });
            document["rules"][0]["streams"] = json!({ "end_on": end_on });
        });
        at.run(TICK * 3);
        let streams = [open(&mut at, "one"), open(&mut at, "one")];
        let third = at.send("one");
        assert_eq!(code(&at.proxy, third), "STORE_UNAVAILABLE", "{end_on}");
        open(&mut at, "two");
        at.proxy.reset(streams[0]);
        open(&mut at, "one");
    }
}

#[test]
fn a_rule_without_streams_ends_none() {
    let mut at = start(true);
    at.edit(|document| {
        document["rules"][0].as_object_mut().unwrap().remove("streams");
    });
    at.run(TICK * 3);
    let stream = open(&mut at, "one");
    end(&mut at, "one");
    at.run(Duration::from_secs(4000));
    assert!(at.proxy.is_open(stream));
    assert!(!at.proxy.host.metrics.contains_key("streams_open"));
}

#[test]
fn a_machine_that_does_not_follow_ends_its_streams_too() {
    let mut first = start(true);
    let mut second = first.another_virtual_machine();
    second.run(TICK * 2);
    let stream = open(&mut second, "one");
    assert!(second.polls().is_empty());
    end(&mut first, "one");
    second.service = first.service.clone();
    first.run(TICK);
    second.run(TICK * 2);
    assert!(is_reset(&second, stream));
}

#[test]
fn a_waiting_request_is_not_a_stream_yet() {
    let mut at = start(false);
    let waiting = at.send("one");
    assert!(is_waiting(&at.proxy, waiting));
    at.proxy.tick();
    assert_eq!(at.proxy.metric("streams_open"), 0);
    at.proxy.reset(waiting);
}
