//! Logins that the service demands of one session: a later login of this session meets a demand, and nothing else does.
use std::time::Duration;

use driver::TICK;
use driver::fake::{Request, Seen};
use serde_json::{Value, json};
use wire::check::StoreError;
use wire::{Answer, Kind};

use crate::support::{Fixture, ISSUER, NOW, bearer, code, is_forwarded, key};

/// What every token of these tests would need to be told again.
const DEMANDED: Answer = Answer::Before(NOW + 5);
const FRESHNESS: Duration = Duration::from_secs(2);

/// A token of the session `s`, issued now, with this `auth_time` and `acr`.
fn login(at: &Fixture, jti: &str, auth_time: Option<u64>, acr: &str) -> String {
    let mut claims = json!({ "iss": ISSUER, "aud": "api", "sub": "alice", "sid": "s", "jti": jti, "acr": acr,
        "iat": at.proxy.host.now.wall.0, "exp": NOW + 3600 });
    if let Some(auth_time) = auth_time {
        claims["auth_time"] = auth_time.into();
    }
    key("one").mint(&claims)
}

#[test]
fn a_demanded_login_is_met_by_a_later_one_and_by_nothing_else() {
    for feed in [false, true] {
        let mut at = Fixture::start(2);
        at.edit(|document| {
            document["revocation"]["step_up"] = json!({ "acr_values": ["strong"] });
            if feed {
                document["revocation"]["feed"] = json!({});
            }
        });
        at.run(TICK * 3);
        let send = |at: &mut Fixture, token: &str| {
            let stream = at.send_token(token);
            at.answer_all();
            match is_forwarded(&at.proxy, stream) {
                true => "passes".to_owned(),
                false => code(&at.proxy, stream),
            }
        };
        let old = login(&at, "old", Some(NOW - 60), "strong");
        assert_eq!(send(&mut at, &old), "passes");
        let demand = at.service.keys.revocation_key(Kind::StepUp, ISSUER, b"s");
        at.service.revoke(demand, Answer::Before(NOW + 5));
        at.run(Duration::from_secs(10));
        assert_eq!(send(&mut at, &old), "STEP_UP_DEMANDED");
        for (jti, auth_time, acr) in [
            ("refreshed", Some(NOW - 60), "strong"),
            ("just before", Some(NOW + 4), "strong"),
            ("no time", None, "strong"),
            ("another acr", Some(NOW + 5), "weak"),
        ] {
            let token = login(&at, jti, auth_time, acr);
            assert_eq!(send(&mut at, &token), "STEP_UP_DEMANDED", "{jti}");
        }
        let new = login(&at, "new", Some(NOW + 5), "strong");
        assert_eq!(send(&mut at, &new), "passes");
        // The new login does not help the old token, on any worker.
        assert_eq!(send(&mut at, &old), "STEP_UP_DEMANDED");
        at.service.fails = Some(StoreError::StoreFailed);
        at.run(Duration::from_secs(10));
        assert_eq!(send(&mut at, &old), "STORE_UNAVAILABLE", "a demand is not forgotten while it cannot be asked for");
        at.service.fails = None;
        at.service.revoke(at.service.keys.revocation_key(Kind::Session, ISSUER, b"s"), Answer::Dead);
        at.run(Duration::from_secs(10));
        for token in [&old, &new] {
            assert_eq!(send(&mut at, token), "SESSION_REVOKED");
        }
    }
}

fn start(feed: bool, change: impl FnOnce(&mut Value)) -> Fixture {
    let mut at = Fixture::start(2);
    at.edit(|document| {
        document["revocation"]["step_up"] = json!({});
        if feed {
            document["revocation"]["feed"] = json!({});
        }
        change(document);
    });
    at.run(TICK * 3);
    at
}

fn demand(at: &mut Fixture) {
    let key = at.service.keys.revocation_key(Kind::StepUp, ISSUER, b"s");
    at.service.revoke(key, DEMANDED);
}

/// What becomes of a request on this worker.
fn outcome(at: &mut Fixture, worker: usize, token: &str) -> String {
    let stream = at.proxy.send(worker, Request::get("/api", &[("authorization", &bearer(token))]));
    at.answer_all();
    match is_forwarded(&at.proxy, stream) {
        true => "passes".to_owned(),
        false => code(&at.proxy, stream),
    }
}

#[test]
fn a_verdict_about_one_login_does_not_serve_another_in_any_cache() {
    for feed in [false, true] {
        let mut at = start(feed, |_| {});
        demand(&mut at);
        at.run(Duration::from_secs(10));
        // All else is equal: the same session, id and time of issue. An attacker wants the new login's verdict for the old.
        let (old, new) = (login(&at, "same", Some(NOW - 60), "1"), login(&at, "same", Some(NOW + 5), "1"));
        let mut other = at.another_virtual_machine();
        other.run(TICK * 3);
        for _ in 0..3 {
            assert_eq!(outcome(&mut at, 0, &new), "passes");
            for worker in 0..2 {
                assert_eq!(outcome(&mut at, worker, &old), "STEP_UP_DEMANDED", "feed: {feed}");
                assert_eq!(outcome(&mut other, worker, &old), "STEP_UP_DEMANDED", "feed: {feed}");
                assert_eq!(outcome(&mut other, worker, &new), "passes");
            }
        }
    }
}

#[test]
fn an_answer_from_before_the_demand_does_not_outlive_its_freshness() {
    let mut at = start(false, |_| {});
    let old = login(&at, "old", Some(NOW - 60), "1");
    let stream = at.send_token(&old);
    let check = at.proxy.host.in_flight.iter().find(|call| at.is_check(call)).unwrap().clone();
    let live = at.service.answer(&check.body);
    demand(&mut at);
    at.proxy.answer(check.id, &live);
    assert!(is_forwarded(&at.proxy, stream), "it was sent before the demand");
    at.run(FRESHNESS);
    assert_eq!(outcome(&mut at, 0, &old), "STEP_UP_DEMANDED");
    // The same answer once more is of another check.
    let stream = at.send_token(&login(&at, "another", Some(NOW - 60), "1"));
    let check = at.proxy.host.in_flight.iter().find(|call| at.is_check(call)).unwrap().clone();
    at.proxy.answer(check.id, &live);
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
}

#[test]
fn with_the_feed_a_demand_counts_within_its_lag_and_an_older_answer_does_not_help() {
    let mut at = start(true, |document| document["revocation"]["feed"] = json!({ "lag": "1s" }));
    let old = login(&at, "old", Some(NOW - 60), "1");
    assert_eq!(outcome(&mut at, 0, &old), "passes");
    demand(&mut at);
    at.run(TICK);
    assert_eq!(outcome(&mut at, 0, &old), "STEP_UP_DEMANDED");
    // Nor while the service cannot be asked.
    at.service.fails = Some(StoreError::StoreFailed);
    at.run(FRESHNESS * 2);
    assert_eq!(outcome(&mut at, 0, &old), "STORE_UNAVAILABLE");
}

#[test]
fn a_demand_that_is_lifted_or_has_expired_is_over_for_old_tokens_too() {
    for feed in [false, true] {
        let mut at = start(feed, |_| {});
        let old = login(&at, "old", Some(NOW - 60), "1");
        demand(&mut at);
        at.run(Duration::from_secs(3));
        assert_eq!(outcome(&mut at, 0, &old), "STEP_UP_DEMANDED");
        // The feed brings no end of a revocation: the filter goes on asking.
        at.service.revoked.clear();
        assert_eq!(outcome(&mut at, 0, &old), "STEP_UP_DEMANDED", "the answer is still fresh");
        at.run(FRESHNESS + TICK);
        assert_eq!(outcome(&mut at, 0, &old), "passes", "feed: {feed}");
    }
}

#[test]
fn an_auth_time_in_the_future_is_no_later_login() {
    let mut at = start(false, |document| {
        let cluster = json!({ "cluster": "as", "path": "/introspect", "client_auth": "none",
            "format": { "shape": { "prefix": "opaque_" } } });
        document["issuers"][0]["introspection"] = cluster;
    });
    demand(&mut at);
    let future = login(&at, "future", Some(NOW + 3600), "1");
    assert_eq!(outcome(&mut at, 0, &future), "JWT_NOT_YET_VALID");
    let claims = |auth_time: Value| {
        json!({ "active": true, "iss": ISSUER, "aud": "api", "sub": "alice", "sid": "s",
        "iat": NOW, "exp": NOW + 3600, "auth_time": auth_time })
    };
    for (token, auth_time, expected) in [
        ("opaque_00000000000000000000000000000000", json!(NOW + 3600), "JWT_NOT_YET_VALID"),
        ("opaque_00000000000000000000000000000001", json!(NOW - 60), "STEP_UP_DEMANDED"),
        ("opaque_00000000000000000000000000000002", json!(null), "STEP_UP_DEMANDED"),
        ("opaque_00000000000000000000000000000003", json!("9999999999"), "INVALID_CLAIM"),
        ("opaque_00000000000000000000000000000004", json!(-1), "INVALID_CLAIM"),
    ] {
        at.active(token, Some(claims(auth_time)));
        assert_eq!(outcome(&mut at, 0, token), expected, "{token}");
    }
}

#[test]
fn another_session_id_of_the_same_user_is_no_way_out_if_the_session_must_be_named() {
    let mut at = start(false, |document| document["rules"][0]["revocable_by"] = json!(["session"]));
    demand(&mut at);
    let minted = |sid: Value| {
        let claims = json!({ "iss": ISSUER, "aud": "api", "sub": "alice", "sid": sid, "jti": "x", "iat": NOW,
            "auth_time": NOW - 60, "exp": NOW + 3600 });
        key("one").mint(&claims)
    };
    assert_eq!(outcome(&mut at, 0, &minted(json!("s"))), "STEP_UP_DEMANDED");
    for (sid, expected) in [
        (json!(null), "CLAIM_INSUFFICIENT"),
        (json!(""), "CLAIM_INSUFFICIENT"),
        (json!(["s"]), "INVALID_CLAIM"),
        // Only the issuer can say this. They are other sessions.
        (json!("S"), "passes"),
        (json!("s "), "passes"),
    ] {
        assert_eq!(outcome(&mut at, 0, &minted(sid.clone())), expected, "{sid}");
    }
}

#[test]
fn a_rule_that_only_reports_gives_no_identity_to_a_session_of_which_a_login_is_demanded() {
    let mut at = start(false, |document| document["rules"][0]["mode"] = json!("report"));
    demand(&mut at);
    let stream = at.send_token(&login(&at, "old", Some(NOW - 60), "1"));
    at.answer_all();
    let Seen::Forwarded(exchange) = at.proxy.seen(stream) else { panic!("{}", code(&at.proxy, stream)) };
    assert_eq!((exchange.header("x-user"), exchange.header("authorization")), (None, None));
    assert_eq!(at.proxy.metric("requests{reported,STEP_UP_DEMANDED,api}"), 1);
}

#[test]
fn a_demand_ends_the_open_streams_of_old_logins_and_no_other() {
    for feed in [false, true] {
        let mut at = start(feed, |document| document["rules"][0]["streams"] = json!({ "end_on": ["revoked"] }));
        let open = |at: &mut Fixture, token: &str| {
            let stream = at.send_token(token);
            at.answer_all();
            at.proxy.respond(stream);
            assert!(at.proxy.is_open(stream), "{:?}", at.proxy.seen(stream));
            stream
        };
        at.run(Duration::from_secs(10));
        let (old, new) = (login(&at, "old", Some(NOW - 60), "1"), login(&at, "new", Some(NOW + 5), "1"));
        let (old, new) = (open(&mut at, &old), open(&mut at, &new));
        demand(&mut at);
        at.run(FRESHNESS + TICK * 2);
        assert!(matches!(at.proxy.seen(old), Seen::Ended(None)), "feed: {feed}");
        assert!(at.proxy.is_open(new), "feed: {feed}");
    }
}
