//! What a panic, an ended configuration and refused callouts leave behind. One test at a time: configurations of one
//! process carry each other's callouts and reports.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod host;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use authn::time::{Monotonic, Now, UnixSeconds};
use host::{Config, Stream, logged};
use native::abi::HeadersStatus;
use native::injection::{Point, panic_at, set_now};

const DOCUMENT: &str = r#"{
    "issuers": [{ "name": "main", "issuer": "https://issuer.example", "audiences": ["api"],
        "introspection": { "cluster": "idp", "path": "/introspect", "client_id": "edge", "client_secret_env": "PATH",
            "format": { "shape": { "prefix": "op_" } },
            "timeout": "5s", "freshness": "5s" } }],
    "tokens": { "headers": [{ "name": "authorization", "scheme": "Bearer" }] },
    "rules": [{ "name": "all", "match": { "path": { "prefix": "/" } }, "access": "required" }]
}"#;
const WAITING: (&str, &[&str]) = ("portcullis.waiting_requests", &["introspection"]);
/// Envoy's event for a tick.
const TICK: u64 = 1;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request with this token.
fn request<'c>(config: &'c Config, token: &str) -> Stream<'c> {
    let token = format!("Bearer op_{token}-of-some-length");
    config.stream(&[(":method", "GET"), (":path", "/"), (":authority", "api.example"), ("authorization", &token)])
}

fn held<'c>(config: &'c Config, token: &str) -> Stream<'c> {
    let stream = request(config, token);
    assert_eq!(stream.request_headers(true), HeadersStatus::StopAllIterationAndWatermark);
    stream
}

fn refused_for_fault(stream: &Stream<'_>) -> bool {
    stream.reply().is_some_and(|reply| (reply.status, reply.details.as_str()) == (503, "FAULT"))
}

fn second(number: u64) -> Now {
    Now { wall: UnixSeconds(1_750_000_000 + number), monotonic: Monotonic(number * 1_000_000_000) }
}

fn waiting(config: &Config) -> u64 {
    config.main_event(TICK);
    config.count(WAITING.0, WAITING.1)
}

/// The configuration decides as if nothing had been.
fn assert_unharmed(config: &Config) {
    assert_eq!(waiting(config), 0);
    let stream = held(config, "last");
    config.run_main();
    let callout = config.callouts().pop().unwrap();
    config
        .answer(callout.id, Some((&[(":status", "200"), ("content-type", "application/json")], b"{\"active\":false}")));
    stream.run_worker();
    assert_eq!(stream.reply().map(|reply| reply.details), Some("SESSION_UNKNOWN".to_owned()));
    assert!(!stream.is_parked());
}

#[test]
fn a_panic_before_the_decision_refuses_this_request_only() {
    let _alone = alone();
    let config = Config::load(DOCUMENT).unwrap();
    let other = held(&config, "other");
    let stream = request(&config, "first");
    panic_at(Point::Now);
    assert_eq!(stream.request_headers(true), HeadersStatus::StopIteration);
    assert!(refused_for_fault(&stream));
    other.run_worker();
    assert!(other.reply().is_none(), "it waits for its own answer");
    drop((stream, other));
    assert_eq!(config.count("portcullis.faults", &[]), 1);
    assert_unharmed(&config);
}

#[test]
fn a_request_that_panics_as_it_begins_to_wait_waits_no_more() {
    let _alone = alone();
    let config = Config::load(DOCUMENT).unwrap();
    let stream = request(&config, "first");
    panic_at(Point::Call);
    assert_eq!(stream.request_headers(true), HeadersStatus::StopIteration);
    assert!(refused_for_fault(&stream) && !stream.is_parked());
    // Before the request ends, too.
    assert_eq!(waiting(&config), 0);
    drop(stream);
    assert_unharmed(&config);
}

#[test]
fn when_an_answer_is_lost_in_a_panic_all_who_wait_are_refused() {
    let _alone = alone();
    let config = Config::load(DOCUMENT).unwrap();
    let (first, second, other) = (held(&config, "first"), held(&config, "first"), held(&config, "other"));
    config.run_main();
    let callouts = config.callouts();
    assert_eq!(callouts.len(), 2);
    panic_at(Point::Add);
    config.answer(callouts[0].id, None);
    for stream in [&first, &second, &other] {
        stream.run_worker();
        assert!(refused_for_fault(stream) && !stream.is_parked());
    }
    assert_eq!(waiting(&config), 0);
    drop((first, second, other));
    // The other answer comes for nobody.
    config.answer(callouts[1].id, None);
    assert_unharmed(&config);
}

#[test]
fn a_request_that_panics_when_it_is_resumed_is_refused() {
    let _alone = alone();
    let config = Config::load(DOCUMENT).unwrap();
    let stream = held(&config, "first");
    config.run_main();
    config.answer(config.callouts()[0].id, None);
    panic_at(Point::Now);
    stream.run_worker();
    assert!(refused_for_fault(&stream));
    assert!(!stream.is_parked());
    drop(stream);
    assert_unharmed(&config);
}

#[test]
fn refused_callouts_are_logged_a_few_times_and_then_as_a_number() {
    let _alone = alone();
    let document = DOCUMENT.replace("\"idp\"", "\"nowhere\"");
    let config = Config::load(&document).unwrap();
    config.refuse_callouts(2);
    set_now(second(1));
    for number in 0..10 {
        let stream = held(&config, &format!("token{number}"));
        config.run_main();
        stream.run_worker();
        assert_eq!(stream.reply().unwrap().status, 503);
    }
    assert_eq!(logged("no callout to cluster `nowhere`: there is no such cluster").len(), 3);
    assert!(logged("callouts were refused, and not logged").is_empty());
    set_now(second(2));
    config.main_event(TICK);
    assert_eq!(logged("7 more callouts were refused, and not logged").len(), 1);
    config.main_event(TICK);
    assert_eq!(logged("callouts were refused, and not logged").len(), 1);
}

#[test]
fn no_gauge_falls_below_zero_when_its_configuration_has_ended() {
    let _alone = alone();
    let old = Config::load(DOCUMENT).unwrap();
    let stream = held(&old, "first");
    assert_eq!(waiting(&old), 1);
    stream.end();
    // Its last report says 1. Envoy forgets the gauge with the last configuration that has set it.
    drop(old);
    let new = Config::load(DOCUMENT).unwrap();
    assert_eq!(waiting(&new), 0);
    let stream = held(&new, "second");
    assert_eq!(waiting(&new), 1);
    stream.end();
    assert_eq!(waiting(&new), 0);
}

#[test]
fn a_check_takes_as_long_as_the_main_thread_lets_it_wait() {
    let _alone = alone();
    let config = Config::load(DOCUMENT).unwrap();
    let stream = held(&config, "first");
    sleep(Duration::from_millis(50));
    // Nothing is sent, and nothing is given up, until the main thread runs.
    assert!(config.callouts().is_empty());
    stream.run_worker();
    assert!(stream.reply().is_none());
    config.run_main();
    config.answer(config.callouts()[0].id, None);
    stream.run_worker();
    assert_eq!(stream.reply().unwrap().status, 503);
    assert!(
        config.count("portcullis.introspection_microseconds", &[]) >= 50_000,
        "the wait is part of the measurement"
    );
}

/// A stream under a rule with `streams`, whose token expires at second 41 with its skew.
fn watched<'c>(config: &'c Config, token: &str) -> Stream<'c> {
    let stream = held(config, token);
    config.run_main();
    let callout = config.callouts().pop().unwrap();
    let body = br#"{"active":true,"aud":"api","sub":"alice","exp":1750000011}"#;
    config.answer(callout.id, Some((&[(":status", "200"), ("content-type", "application/json")], body)));
    stream.run_worker();
    assert_eq!((stream.resumed(), stream.reply()), (1, None));
    assert!(stream.is_parked(), "it can be woken");
    stream
}

fn with_streams() -> Config {
    let access = r#""access": "required""#;
    let document = DOCUMENT.replace(access, &format!(r#"{access}, "streams": {{ "end_on": ["expired"] }}"#));
    Config::load(&document).unwrap()
}

fn tick(config: &Config, stream: &Stream<'_>) {
    config.main_event(TICK);
    stream.run_worker();
}

#[test]
fn a_stream_is_reset_once_when_its_token_expires() {
    let _alone = alone();
    for destroys_at_once in [false, true] {
        set_now(second(1));
        let config = with_streams();
        let mut stream = watched(&config, "first");
        stream.response_headers(&[(":status", "200")]);
        if destroys_at_once {
            stream = stream.destroys_at_once();
        }
        set_now(second(40));
        tick(&config, &stream);
        assert_eq!(stream.reset(), None);
        set_now(second(41));
        for _ in 0..3 {
            tick(&config, &stream);
            assert_eq!(stream.reset().as_deref(), Some("portcullis_ended"));
        }
        assert!(!stream.is_parked());
        assert_eq!(config.count("portcullis.streams_ended", &["expired"]), 1);
        stream.end();
        config.main_event(TICK);
        assert_eq!(config.count("portcullis.streams_open", &[]), 0);
    }
}

#[test]
fn a_stream_without_a_response_gets_the_refusal_and_no_reset() {
    let _alone = alone();
    set_now(second(1));
    let config = with_streams();
    let stream = watched(&config, "first");
    set_now(second(41));
    tick(&config, &stream);
    let reply = stream.reply().unwrap();
    assert_eq!((reply.status, reply.details.as_str()), (401, "JWT_EXPIRED"));
    // Its headers pass, and later events find nothing to do.
    stream.response_headers(&[(":status", "401")]);
    tick(&config, &stream);
    assert_eq!(stream.reset(), None);
}

#[test]
fn a_stream_that_ends_while_its_end_is_posted_is_left_alone() {
    let _alone = alone();
    set_now(second(1));
    let config = with_streams();
    let stream = watched(&config, "first");
    stream.response_headers(&[(":status", "200")]);
    set_now(second(41));
    config.main_event(TICK);
    stream.end();
    config.main_event(TICK);
    assert_eq!(config.count("portcullis.streams_ended", &["expired"]), 0);
}

#[test]
fn when_a_panic_may_have_lost_streams_all_watched_ones_are_reset() {
    let _alone = alone();
    set_now(second(1));
    let config = with_streams();
    let stream = watched(&config, "first");
    stream.response_headers(&[(":status", "200")]);
    let other = held(&config, "other");
    config.run_main();
    let callout = config.callouts().pop().unwrap();
    panic_at(Point::Add);
    config.answer(callout.id, None);
    other.run_worker();
    assert!(refused_for_fault(&other));
    stream.run_worker();
    assert!(stream.reset().is_some() && !stream.is_parked());
}
