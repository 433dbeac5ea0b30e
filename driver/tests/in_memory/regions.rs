//! `revocation.regions`: how far the service may lag behind other regions.
use std::time::Duration;

use driver::{Level, TICK};
use serde_json::json;
use wire::Answer;
use wire::check::RegionsMoment;

use crate::support::{Fixture, code, is_forwarded, is_waiting};

fn requiring(on_exceeded: &str) -> Fixture {
    let mut at = Fixture::start(1);
    at.edit(|document| document["revocation"]["regions"] = json!({ "max_lag": "10s", "on_exceeded": on_exceeded }));
    at
}

fn decided(at: &mut Fixture, jti: &str) -> Option<String> {
    let stream = at.send(jti);
    at.answer_all();
    (!is_forwarded(&at.proxy, stream)).then(|| code(&at.proxy, stream))
}

fn warnings(at: &Fixture) -> usize {
    let says = |line: &str| line.contains("revocation.regions.max_lag is exceeded");
    at.proxy.host.log.iter().filter(|(level, line)| *level == Level::Warn && says(line)).count()
}

#[test]
fn an_answer_counts_up_to_the_lag_and_not_beyond() {
    let mut at = requiring("close");
    for (millis, expected) in [(0, None), (-10_000, None), (-10_001, Some("STORE_UNAVAILABLE")), (-9_999, None)] {
        at.service.regions = RegionsMoment::of(millis);
        assert_eq!(decided(&mut at, &format!("at {millis}")).as_deref(), expected, "{millis}");
    }
    at.service.regions = RegionsMoment::UNKNOWN;
    assert_eq!(decided(&mut at, "unknown").as_deref(), Some("STORE_UNAVAILABLE"));
    at.proxy.tick();
    assert_eq!(at.proxy.metric("regions_exceeded"), 2);
    assert_eq!(at.proxy.metric("checks_failed{regions_behind}"), 2);
}

#[test]
fn the_time_since_the_question_counts_too() {
    let mut at = requiring("close");
    at.service.regions = RegionsMoment::of(-9_900);
    let stream = at.send("slow");
    at.proxy.advance(Duration::from_millis(200));
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
}

#[test]
fn a_lag_that_is_only_reported_is_counted_and_said_once_and_refuses_nobody() {
    let mut at = requiring("report");
    at.service.regions = RegionsMoment::UNKNOWN;
    for number in 0..3 {
        assert_eq!(decided(&mut at, &format!("{number}")), None);
    }
    at.proxy.tick();
    assert_eq!((at.proxy.metric("regions_exceeded"), warnings(&at)), (3, 1));
    at.service.regions = RegionsMoment::of(-5);
    assert_eq!(decided(&mut at, "again"), None);
    at.service.regions = RegionsMoment::of(-60_000);
    assert_eq!(decided(&mut at, "behind"), None);
    assert_eq!(warnings(&at), 2, "once for each change");
}

#[test]
fn what_is_revoked_is_refused_as_such_while_regions_are_known() {
    let mut at = requiring("close");
    let token = at.token("one");
    at.revoke(wire::Kind::User, "alice");
    let stream = at.send_token(&token);
    at.answer_all();
    assert!(["SESSION_REVOKED"].contains(&code(&at.proxy, stream).as_str()));
}

#[test]
fn a_rule_that_passes_without_the_service_does_not_pass_without_the_regions() {
    let mut at = requiring("close");
    at.edit(|document| document["rules"][0]["revocation"] = "dangerously_pass_when_unavailable".into());
    at.service.regions = RegionsMoment::UNKNOWN;
    assert_eq!(decided(&mut at, "one").as_deref(), Some("STORE_UNAVAILABLE"));
}

#[test]
fn a_proof_of_the_feed_counts_only_with_the_regions() {
    let mut at = requiring("close");
    at.edit(|document| document["revocation"]["feed"] = json!({ "lag": "1s" }));
    at.service.regions = RegionsMoment::of(-3_000);
    at.run(TICK * 3);
    let stream = at.send("clear");
    assert!(is_forwarded(&at.proxy, stream), "a proof, and the regions are near enough");
    at.service.regions = RegionsMoment::of(-30_000);
    at.run(Duration::from_secs(2));
    let stream = at.send("behind");
    assert!(is_waiting(&at.proxy, stream), "no proof: it is asked about");
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    assert!(at.proxy.metric("feed_polls{regions_behind}") >= 1);
    // What was revoked meanwhile is known when the regions are back.
    let key =
        at.service.keys.revocation_key(wire::Kind::Token, crate::support::ISSUER, &wire::token_id_from_jti("late"));
    at.service.revoke(key, Answer::Dead);
    at.service.regions = RegionsMoment::of(0);
    at.run(Duration::from_secs(3));
    let stream = at.send("clear again");
    assert!(is_forwarded(&at.proxy, stream));
    assert_eq!(decided(&mut at, "late").as_deref(), Some("SESSION_REVOKED"));
}

#[test]
fn a_feed_whose_lag_is_only_reported_serves_on() {
    let mut at = requiring("report");
    at.edit(|document| document["revocation"]["feed"] = json!({ "lag": "1s" }));
    at.service.regions = RegionsMoment::UNKNOWN;
    at.run(TICK * 3);
    let stream = at.send("clear");
    assert!(is_forwarded(&at.proxy, stream));
    assert!(at.proxy.metric("regions_exceeded") >= 1);
}

#[test]
fn without_the_setting_nothing_is_asked_and_nothing_is_counted() {
    let mut at = Fixture::start(1);
    at.service.regions = RegionsMoment::UNKNOWN;
    assert_eq!(decided(&mut at, "one"), None);
    at.proxy.tick();
    assert_eq!(at.proxy.metric("regions_exceeded"), 0);
}
