//! Tokens that are bound to a key: when a proof is used up, who is asked about it, and what a rule that only reports gives.
use std::time::Duration;

use driver::fake::{FakeReply, InFlight, Request, Seen};
use driver::{StreamId, TICK};
use serde_json::{Value, json};
use wire::Kind;

use crate::support::{Fixture, NOW, bound_token, code, dpop, is_forwarded, is_waiting, proof};

fn start(edit: impl FnOnce(&mut Value)) -> Fixture {
    let mut at = Fixture::start(2);
    at.edit(|document| {
        document["dpop"] = dpop();
        document["rules"][0]["dpop"] = json!({ "replay": "fleet" });
        edit(document);
    });
    at.run(TICK * 3);
    at
}

fn token(jti: &str) -> String {
    bound_token("one", jti, "alice", NOW)
}

fn send(at: &mut Fixture, token: &str, proof: &str) -> StreamId {
    let headers =
        [("authorization", format!("DPoP {token}")), ("dpop", proof.to_owned()), ("x-user", "mallory".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    at.proxy.send(0, Request::get("/api", &headers))
}

/// With a proof of its own.
fn send_new(at: &mut Fixture, token: &str) -> StreamId {
    let own = proof(at, token, None);
    send(at, token, &own)
}

fn claimed(at: &Fixture) -> usize {
    at.service.used_proofs.borrow().len()
}

fn header(at: &Fixture, stream: StreamId, name: &str) -> Option<String> {
    let Seen::Forwarded(exchange) = at.proxy.seen(stream) else { panic!("{:?}", at.proxy.seen(stream)) };
    exchange.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

// Regression: each fresh proof was claimed first. A client whose session has ended filled the service's store by itself.
#[test]
fn a_session_that_is_known_to_be_revoked_claims_nothing() {
    let mut at = start(|_| {});
    at.revoke(Kind::User, "alice");
    let token = token("one");
    let first = send_new(&mut at, &token);
    at.answer_all();
    assert_eq!((code(&at.proxy, first).as_str(), claimed(&at)), ("SESSION_REVOKED", 1));
    for _ in 0..10 {
        let next = send_new(&mut at, &token);
        assert_eq!(code(&at.proxy, next), "SESSION_REVOKED");
    }
    // Another virtual machine knows it from the first one.
    let mut other = at.another_virtual_machine();
    let next = send_new(&mut other, &token);
    assert_eq!(code(&other.proxy, next), "SESSION_REVOKED");
    assert_eq!((at.checks(), other.checks(), claimed(&at), claimed(&other)), (0, 0, 1, 1));
}

// Regression: as above, by one client with a good token. What the process cannot remember was claimed all the same.
#[test]
fn what_the_process_refuses_is_not_claimed() {
    let mut at = start(|_| {});
    let token = token("one");
    let own = proof(&at, &token, None);
    let first = send(&mut at, &token, &own);
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    let again = send(&mut at, &token, &own);
    assert_eq!((code(&at.proxy, again).as_str(), at.checks()), ("DPOP_PROOF_REPLAYED", 0));
    let mut refused = 0;
    for _ in 0..5000 {
        let next = send_new(&mut at, &token);
        at.answer_all();
        match at.proxy.seen(next) {
            Seen::Forwarded(_) => {}
            Seen::Replied(reply) => {
                assert_eq!(reply.details, "STORE_UNAVAILABLE");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        at.proxy.reset(next);
    }
    // Three times `remembered_proofs`, less what an uneven spread costs.
    assert!(claimed(&at) <= 3 * 1024 && claimed(&at) + refused == 5001, "{} and {refused}", claimed(&at));
}

#[test]
fn of_two_requests_with_one_proof_that_wait_together_one_passes() {
    let mut at = start(|_| {});
    let token = token("one");
    let own = proof(&at, &token, None);
    let both = [send(&mut at, &token, &own), send(&mut at, &token, &own)];
    assert!(both.iter().all(|stream| is_waiting(&at.proxy, *stream)));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, both[0]));
    assert_eq!(code(&at.proxy, both[1]), "DPOP_PROOF_REPLAYED");
}

fn introspecting(document: &mut Value) {
    document["issuers"][0]["introspection"] = json!({
        "cluster": "as", "path": "/introspect", "client_auth": "none", "of": "jwt", "timeout": "1s", "freshness": "2s",
    });
}

fn introspections(at: &Fixture) -> Vec<InFlight> {
    at.proxy.host.in_flight.iter().filter(|call| call.header(":path") == "/introspect").cloned().collect()
}

#[test]
fn a_jwt_that_its_server_has_ended_claims_nothing() {
    let mut at = start(introspecting);
    let token = token("one");
    for _ in 0..10 {
        let next = send_new(&mut at, &token);
        for call in introspections(&at) {
            at.proxy.answer(call.id, &FakeReply::new(200, "application/json", r#"{"active":false}"#));
        }
        at.answer_all();
        assert_eq!(code(&at.proxy, next), "SESSION_UNKNOWN");
    }
    assert_eq!(claimed(&at), 0);
}

#[test]
fn a_jwt_is_introspected_before_its_proof_is_claimed_and_its_proof_is_claimed_once() {
    let mut at = start(introspecting);
    let token = token("one");
    let own = proof(&at, &token, None);
    at.active(&token, Some(json!({ "active": true })));
    let first = send(&mut at, &token, &own);
    for call in introspections(&at) {
        assert_eq!(claimed(&at), 0);
        let reply = at.reply(&call);
        at.proxy.answer(call.id, &reply);
    }
    assert!(is_waiting(&at.proxy, first) && introspections(&at).is_empty());
    // What the introspection server said is over when the service answers: it is asked again, and the service is not.
    at.proxy.host.advance(Duration::from_millis(2100));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first), "{:?}", at.proxy.seen(first));
    assert_eq!(claimed(&at), 1);
    let again = send(&mut at, &token, &own);
    assert_eq!(code(&at.proxy, again), "DPOP_PROOF_REPLAYED");
}

// Regression: nobody told the client, so the rule reported each of its requests for ever.
#[test]
fn a_rule_that_only_reports_gives_a_nonce_with_the_answer() {
    for replay in ["process", "fleet"] {
        let mut at = start(|document| {
            document["dpop"]["nonce"] = json!({});
            document["rules"][0]["mode"] = "report".into();
            document["rules"][0]["dpop"] = json!({ "replay": replay });
        });
        let token = token("one");
        let first = send_new(&mut at, &token);
        assert_eq!((header(&at, first, "x-user"), header(&at, first, "dpop")), (None, None));
        assert_eq!(header(&at, first, "authorization"), None);
        let answer = at.proxy.respond_with(first, vec![(":status".to_owned(), "200".to_owned())]);
        let nonce = answer.into_iter().find(|(name, _)| name == "dpop-nonce").map(|(_, value)| value);
        let own = proof(&at, &token, nonce.as_deref());
        let second = send(&mut at, &token, &own);
        at.answer_all();
        assert_eq!(header(&at, second, "x-user").as_deref(), Some("alice"), "{replay}");
        let again = send(&mut at, &token, &own);
        at.answer_all();
        assert_eq!((header(&at, again, "x-user"), header(&at, again, "authorization")), (None, None), "{replay}");
        assert_eq!(at.proxy.metric("requests{reported,DPOP_NONCE_REQUIRED,api}"), 1);
        assert_eq!(at.proxy.metric("requests{reported,DPOP_PROOF_REPLAYED,api}"), 1);
        assert_eq!(at.proxy.metric("requests{admitted,none,api}"), 1);
    }
}

#[test]
fn a_rule_that_only_reports_gives_no_identity_while_nobody_can_tell_of_a_proof() {
    let mut at = start(|document| document["rules"][0]["mode"] = "report".into());
    let token = token("one");
    at.proxy.host.refuses_calls = true;
    let unsent = send_new(&mut at, &token);
    at.proxy.host.refuses_calls = false;
    let late = send_new(&mut at, &token);
    assert!(is_waiting(&at.proxy, late));
    at.proxy.advance(Duration::from_secs(1));
    at.service.fails = Some(wire::check::StoreError::StoreFailed);
    let failed = send_new(&mut at, &token);
    at.answer_all();
    for stream in [unsent, late, failed] {
        assert_eq!((header(&at, stream, "x-user"), header(&at, stream, "dpop")), (None, None));
        assert_eq!(header(&at, stream, "authorization"), None);
    }
}
