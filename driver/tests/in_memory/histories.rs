//! Histories of requests that wait: checks, outages, key sets, introspection, restart and reconfiguration, in simulated
//! time.
use std::time::Duration;

use crate::support::{Fixture, bearer, code, is_forwarded, is_waiting};
use driver::fake::{FakeReply, Request, Seen};
use driver::{CallId, Level};
use serde_json::json;
use wire::check::StoreError;
use wire::{Kind, Retention};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn requests_that_miss_while_a_check_is_in_flight_share_the_next_batch() {
    let mut at = Fixture::start(1);
    let first = at.send("one");
    let second = at.send("two");
    assert_eq!(at.checks(), 2, "two batches may be in flight");
    let others: Vec<_> = (0..20).map(|number| at.send(&format!("other {number}"))).collect();
    assert_eq!(at.checks(), 2);
    at.answer_one_check();
    assert_eq!(at.checks(), 2, "one is answered, and the next has all that waited");
    assert!(is_forwarded(&at.proxy, first) && is_waiting(&at.proxy, second));
    at.answer_all();
    assert!(others.iter().all(|stream| is_forwarded(&at.proxy, *stream)));
    assert_eq!(at.proxy.metric("checks_sent"), 3);
    assert_eq!(at.proxy.metric("requests{admitted,none,api}"), 22);
}

#[test]
fn a_verdict_serves_until_it_is_stale_and_a_revocation_counts_from_then() {
    let mut at = Fixture::start(1);
    let first = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    at.revoke(Kind::User, "alice");
    at.proxy.host.advance(MS(1900));
    let second = at.send("one");
    assert!(is_forwarded(&at.proxy, second), "still fresh");
    at.proxy.host.advance(MS(200));
    let third = at.send("one");
    assert!(is_waiting(&at.proxy, third));
    at.answer_all();
    assert_eq!(code(&at.proxy, third), "SESSION_REVOKED");
    let fourth = at.send("one");
    assert_eq!(code(&at.proxy, fourth), "SESSION_REVOKED", "and the verdict is remembered");
}

#[test]
fn freshness_counts_from_when_a_check_was_sent() {
    let mut at = Fixture::start(1);
    let first = at.send("one");
    // No tick ends its wait.
    at.proxy.host.advance(MS(2100));
    at.answer_all();
    assert_eq!(
        code(&at.proxy, first),
        "SESSION_STORE_LATENCY",
        "an answer that is older than its freshness says nothing"
    );
}

#[test]
fn a_service_that_does_not_answer_is_503_at_the_deadline_and_never_a_pass() {
    let mut at = Fixture::start(1);
    let stream = at.send("one");
    at.proxy.advance(MS(400));
    assert!(is_waiting(&at.proxy, stream));
    at.proxy.advance(MS(200));
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    // Its answer comes late: nothing is decided twice, and nothing is learnt.
    at.proxy.answer(CallId(1), &FakeReply::new(200, "text/plain", ""));
    assert_eq!(at.proxy.metric("requests{cannot_tell,STORE_UNAVAILABLE,api}"), 1);
    assert_eq!(at.proxy.metric("waiting_requests{check}"), 0);
}

#[test]
fn what_the_service_cannot_tell_is_the_code_of_its_reason() {
    let codes = [
        (StoreError::StoreRefused, "REDIS_CONN_REFUSED"),
        (StoreError::StoreSlow, "SESSION_STORE_LATENCY"),
        (StoreError::StoreChanged, "STORE_UNAVAILABLE"),
    ];
    for (error, expected) in codes {
        let mut at = Fixture::start(1);
        at.service.fails = Some(error);
        let stream = at.send("one");
        at.answer_all();
        assert_eq!(code(&at.proxy, stream), expected);
        assert_eq!(at.proxy.metric(&format!("checks_failed{{{}}}", error.name())), 1);
    }
}

#[test]
fn a_reply_that_is_not_the_services_proves_nothing() {
    let forged: [fn(&Fixture, &[u8]) -> FakeReply; 4] = [
        |_, _| FakeReply::new(200, "application/json", r#"{"live":true}"#),
        |_, _| FakeReply::broken_off(),
        // Of another question.
        |at, _| at.service.answer(&at.question_about_nothing()),
        |at, question| {
            let mut reply = at.service.answer(question);
            *reply.body.last_mut().unwrap() ^= 1;
            reply
        },
    ];
    for forge in forged {
        let mut at = Fixture::start(1);
        let stream = at.send("one");
        let call = at.proxy.host.in_flight.iter().find(|call| at.is_check(call)).unwrap().clone();
        let reply = forge(&at, &call.body);
        at.proxy.answer(call.id, &reply);
        assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    }
}

#[test]
fn a_host_that_refuses_callouts_refuses_the_request_at_once() {
    let mut at = Fixture::start(1);
    at.proxy.host.refuses_calls = true;
    let stream = at.send("one");
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    assert_eq!(at.proxy.metric("checks_failed{not_sent}"), 1);
    at.proxy.host.refuses_calls = false;
    let stream = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, stream));
}

#[test]
fn without_time_nothing_is_decided() {
    let mut at = Fixture::start(1);
    let waiting = at.send("one");
    at.proxy.host.has_no_time = true;
    let stream = at.send("two");
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    let call = at.proxy.host.in_flight.iter().find(|call| at.is_check(call)).unwrap().clone();
    let reply = at.service.answer(&call.body);
    at.proxy.answer(call.id, &reply);
    assert!(!is_forwarded(&at.proxy, waiting));
}

#[test]
fn a_rule_that_says_so_passes_while_the_service_is_out_of_reach_and_only_then() {
    let mut at = Fixture::start(1);
    at.edit(|document| document["rules"][0]["revocation"] = "dangerously_pass_when_unavailable".into());
    let stream = at.send("one");
    at.proxy.advance(MS(600));
    assert!(is_forwarded(&at.proxy, stream));
    assert_eq!(at.proxy.metric("requests{admitted_unchecked,none,api}"), 1);
    at.service.fails = Some(StoreError::StoreChanged);
    let stream = at.send("two");
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE", "an answer that must not be trusted is none");
}

#[test]
fn a_service_that_keeps_revocations_for_less_than_tokens_live_is_said_at_start_and_counts_for_nothing() {
    let mut at = Fixture::start(1);
    at.service.keeps = Retention { token: 1, login: 1 };
    at.proxy.tick();
    at.answer_all();
    let says = |line: &str| line.contains("retention_too_short") && line.contains("issuer=https://idp.example");
    assert!(at.proxy.host.log.iter().any(|(level, line)| *level == Level::Error && says(line)));
    let stream = at.send("one");
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
}

#[test]
fn more_requests_than_may_wait_are_refused_and_leaving_makes_room() {
    let mut at = Fixture::start(1);
    at.edit(|document| document["limits"]["waiting_requests"] = 4.into());
    let waiting: Vec<_> = (0..4).map(|number| at.send(&format!("{number}"))).collect();
    let refused = at.send("one more");
    assert_eq!(code(&at.proxy, refused), "STORE_UNAVAILABLE");
    at.proxy.reset(waiting[0]);
    let admitted = at.send("one more");
    assert!(is_waiting(&at.proxy, admitted));
    at.answer_all();
    assert!(waiting[1..].iter().chain([&admitted]).all(|stream| is_forwarded(&at.proxy, *stream)));
}

#[test]
fn what_one_virtual_machine_learns_serves_the_others_and_a_newer_revocation_wins() {
    let mut at = Fixture::start(1);
    let mut other = at.another_virtual_machine();
    let first = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    other.proxy.host.now = at.proxy.host.now;
    let second = other.send("one");
    assert!(is_forwarded(&other.proxy, second), "by the shared verdict");
    assert_eq!(other.proxy.metric("shared_verdicts{hit}"), 1);
    // Both ask at different times, and the older answer comes last.
    at.proxy.host.advance(MS(2100));
    let older = at.send("one");
    at.revoke(Kind::User, "alice");
    other.service = at.service.clone();
    other.proxy.host.now = at.proxy.host.now;
    other.proxy.host.advance(MS(100));
    let newer = other.send("one");
    other.answer_all();
    assert_eq!(code(&other.proxy, newer), "SESSION_REVOKED");
    at.service.revoked.clear();
    at.proxy.host.advance(MS(200));
    at.answer_all();
    assert_eq!(code(&at.proxy, older), "SESSION_REVOKED", "an allow that was on its way replaces no revocation");
}

#[test]
fn a_token_of_a_key_that_is_not_held_waits_for_one_fetch() {
    let mut at = Fixture::with_published_keys();
    let early = at.send("one");
    assert_eq!(code(&at.proxy, early), "KEYS_UNAVAILABLE", "a set that was never there is not waited for");
    at.publish(&["one"]);
    at.proxy.tick();
    at.answer_all();
    let stream = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, stream));
    // The issuer signs with its next key before the proxy has it.
    at.publish(&["one", "two"]);
    at.proxy.host.advance(Duration::from_secs(60));
    let waiting: Vec<_> = (0..5).map(|number| at.send_signed("two", &format!("{number}"))).collect();
    let fetches = at.proxy.host.in_flight.iter().filter(|call| call.cluster == "idp").count();
    assert_eq!(fetches, 1);
    at.answer_all();
    assert!(waiting.iter().all(|stream| is_forwarded(&at.proxy, *stream)));
    assert_eq!(at.proxy.metric("key_fetches{idp,ok}"), 2);
}

#[test]
fn a_key_that_left_the_set_takes_its_tokens_along() {
    let mut at = Fixture::with_published_keys();
    at.publish(&["one"]);
    at.proxy.tick();
    at.answer_all();
    let first = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    at.publish(&["two"]);
    at.run(Duration::from_secs(30));
    let second = at.send("one");
    at.answer_all();
    assert_eq!(code(&at.proxy, second), "KEY_UNKNOWN", "though its verdict was remembered");
}

#[test]
fn a_provider_that_fails_costs_503_and_the_next_attempt_is_later() {
    let mut at = Fixture::with_published_keys();
    at.proxy.tick();
    at.proxy
        .answer_all(|call| Some(if call.cluster == "idp" { FakeReply::broken_off() } else { FakeReply::default() }));
    let stream = at.send("one");
    assert_eq!(code(&at.proxy, stream), "KEYS_UNAVAILABLE");
    assert_eq!(at.proxy.metric("key_fetches{idp,failed}"), 1);
    at.proxy.tick();
    assert!(at.proxy.host.in_flight.iter().all(|call| call.cluster != "idp"), "it is not asked again at once");
    at.publish(&["one"]);
    at.run(Duration::from_secs(6));
    let stream = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, stream));
}

#[test]
fn one_virtual_machine_fetches_keys_and_the_others_take_them_over() {
    let mut at = Fixture::with_published_keys();
    let mut other = at.another_virtual_machine();
    at.publish(&["one"]);
    other.publish(&["one"]);
    at.proxy.advance(MS(100));
    other.proxy.host.now = at.proxy.host.now;
    other.proxy.tick();
    let fetches = |at: &Fixture| at.proxy.host.in_flight.iter().filter(|call| call.cluster == "idp").count();
    assert_eq!(fetches(&at) + fetches(&other), 1);
    at.answer_all();
    other.answer_all();
    other.proxy.advance(MS(200));
    let stream = other.send("one");
    other.answer_all();
    assert!(is_forwarded(&other.proxy, stream));
}

#[test]
fn an_opaque_token_is_asked_about_once_for_all_who_wait_and_its_end_is_seen() {
    let mut at = Fixture::with_introspection();
    at.active(
        "opaque_0123456789abcdef0123456789",
        Some(json!({ "active": true, "sub": "alice", "iat": crate::support::NOW - 10 })),
    );
    let waiting: Vec<_> = (0..3).map(|_| at.send_token("opaque_0123456789abcdef0123456789")).collect();
    let asked = at.proxy.host.in_flight.iter().filter(|call| call.cluster == "as").count();
    assert_eq!(asked, 1);
    at.answer_all();
    assert!(waiting.iter().all(|stream| is_forwarded(&at.proxy, *stream)));
    at.active("opaque_0123456789abcdef0123456789", Some(json!({ "active": false })));
    at.proxy.host.advance(MS(2100));
    let stream = at.send_token("opaque_0123456789abcdef0123456789");
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN");
    let stream = at.send_token("opaque_0123456789abcdef0123456789");
    assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN", "remembered for as long as a yes would be");
}

#[test]
fn an_introspection_server_that_hangs_is_503_in_time() {
    let mut at = Fixture::with_introspection();
    let stream = at.send_token("opaque_0123456789abcdef0123456789");
    at.proxy.advance(MS(1200));
    assert_eq!(code(&at.proxy, stream), "STORE_UNAVAILABLE");
    assert_eq!(at.proxy.metric("waiting_requests{introspection}"), 0);
}

#[test]
fn a_reply_that_the_host_will_not_send_leaves_the_request_closed() {
    let mut at = Fixture::start(1);
    let mut request = Request::get("/api", &[]);
    request.exchange.refuses_replies = true;
    let stream = at.proxy.send(0, request);
    assert!(matches!(at.proxy.seen(stream), Seen::Unanswered));
    assert!(at.proxy.workers[0].is_held(stream), "its body must not release it");
    at.proxy.reset(stream);
    assert!(!at.proxy.workers[0].is_held(stream));
}

#[test]
fn a_header_that_cannot_be_changed_refuses_the_request() {
    let mut at = Fixture::start(1);
    for (name, headers) in [("x-user", vec![("x-user", "root")]), ("authorization", Vec::new())] {
        let token = at.token("one");
        let bearer = bearer(&token);
        let all: Vec<(&str, &str)> = headers.into_iter().chain([("authorization", bearer.as_str())]).collect();
        let mut request = Request::get("/api", &all);
        request.exchange.refuses_edits_of = Some(name.as_bytes().to_vec());
        let stream = at.proxy.send(0, request);
        at.answer_all();
        assert!(matches!(at.proxy.seen(stream), Seen::Replied(reply) if reply.status >= 400), "{name}");
    }
}

#[test]
fn headers_that_only_the_filter_may_set_are_removed_from_requests_that_wait_and_from_refused_ones() {
    let mut at = Fixture::start(1);
    let token = at.token("one");
    let stream = at.proxy.send(0, Request::get("/api", &[("x-user", "root"), ("authorization", &bearer(&token))]));
    at.answer_all();
    let Seen::Forwarded(exchange) = at.proxy.seen(stream) else { panic!("not forwarded") };
    assert_eq!(exchange.header("x-user"), Some(b"alice".as_slice()));
    assert_eq!(exchange.headers.iter().filter(|(name, _)| name == b"x-user").count(), 1);
    assert_eq!(exchange.routes_chosen, 1, "routes can match any header");
    assert_eq!(at.proxy.metric("spoofed_headers_removed"), 1);
}

#[test]
fn refusals_beyond_ten_in_a_moment_are_only_counted_in_the_log() {
    let mut at = Fixture::start(1);
    for _ in 0..25 {
        at.proxy.send(0, Request::get("/api", &[]));
    }
    let logged =
        |at: &Fixture| at.proxy.host.log.iter().filter(|(_, line)| line.contains("\"code\":\"TOKEN_MISSING\"")).count();
    assert_eq!(logged(&at), 10);
    at.proxy.advance(MS(200));
    assert!(at.proxy.host.log.iter().any(|(_, line)| line.contains("refused {\"left_out\":15}")));
    assert_eq!(at.proxy.metric("requests{refused,TOKEN_MISSING,api}"), 25);
}

#[test]
fn a_configuration_that_ends_leaves_no_gauge_behind() {
    let mut at = Fixture::start(1);
    at.send("one");
    at.proxy.advance(MS(100));
    assert_eq!(at.proxy.metric("waiting_requests{check}"), 1);
    at.proxy.dispatcher.end(&mut at.proxy.host);
    assert_eq!(at.proxy.metric("waiting_requests{check}"), 0);
}

#[test]
fn a_verdict_that_is_in_use_is_asked_for_again_before_it_is_stale_and_no_request_waits() {
    let mut at = Fixture::start(1);
    at.edit(|document| document["revocation"]["refresh_ahead"] = true.into());
    let first = at.send("one");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, first));
    for _ in 0..40 {
        at.run(MS(250));
        let stream = at.send("one");
        assert!(is_forwarded(&at.proxy, stream));
    }
    assert!(at.proxy.metric("refreshed_ahead") >= 4);
    assert_eq!(at.proxy.metric("shared_verdicts{miss}"), 1);
}

#[test]
fn a_refresh_that_another_virtual_machine_has_made_meanwhile_is_not_sent() {
    let mut at = Fixture::start(1);
    at.edit(|document| document["revocation"]["refresh_ahead"] = true.into());
    let mut other = at.another_virtual_machine();
    at.send("one");
    at.answer_all();
    for machine in [&mut at, &mut other] {
        machine.proxy.host.advance(MS(1500));
        let stream = machine.send("one");
        assert!(is_forwarded(&machine.proxy, stream), "by a verdict that is soon stale");
    }
    at.proxy.tick();
    at.answer_all();
    other.proxy.tick();
    assert_eq!((at.proxy.metric("refreshed_ahead"), other.proxy.metric("refreshed_ahead")), (1, 0));
    other.proxy.host.advance(MS(1000));
    let stream = other.send("one");
    assert!(is_forwarded(&other.proxy, stream), "by the verdict of the other machine");
    other.proxy.tick();
    assert_eq!(other.checks(), 0, "it is still young");
}

#[test]
fn answers_of_two_workers_about_one_token_wake_each_its_own_request() {
    let mut at = Fixture::start(2);
    let token = at.token("one");
    let streams =
        [0, 1].map(|worker| at.proxy.send(worker, Request::get("/api", &[("authorization", &bearer(&token))])));
    assert_eq!(at.checks(), 1, "one question for both");
    at.answer_all();
    assert!(streams.iter().all(|stream| is_forwarded(&at.proxy, *stream)));
}

#[test]
fn a_callout_that_the_host_loses_ends_by_the_requests_own_deadline_and_blocks_no_other() {
    let mut at = Fixture::start(1);
    let lost = [at.send("one"), at.send("two")];
    at.proxy.host.in_flight.clear();
    let third = at.send("three");
    assert!(is_waiting(&at.proxy, third), "two batches are in flight as far as anyone knows");
    at.proxy.advance(MS(600));
    assert!(lost.iter().chain([&third]).all(|stream| code(&at.proxy, *stream) == "STORE_UNAVAILABLE"));
    at.proxy.advance(MS(600));
    let next = at.send("four");
    at.answer_all();
    assert!(is_forwarded(&at.proxy, next));
}

#[test]
fn an_announcement_that_the_host_loses_is_made_again() {
    let mut at = Fixture::start(1);
    at.proxy.tick();
    at.proxy.host.in_flight.clear();
    at.proxy.advance(Duration::from_secs(5));
    let announced = |at: &Fixture| at.proxy.host.in_flight.iter().any(|call| call.body.starts_with(b"PCI"));
    let mut is_announced = announced(&at);
    for _ in 0..20 {
        at.proxy.advance(MS(100));
        is_announced = is_announced || announced(&at);
    }
    assert!(is_announced, "the service would refuse revocations of this issuer");
}

#[test]
fn the_engine_in_use_is_told_by_a_gauge_only_when_the_configuration_is_accepted() {
    let mut at = Fixture::start(1);
    assert_eq!(at.proxy.metric("engine{portable}"), 1);
    let host = at.another_virtual_machine().proxy.host;
    let mut fresh = driver::fake::FakeHost::new(host.now, host.secrets.clone(), Default::default(), 1);
    assert!(driver::configure(&mut fresh, b"{}".to_vec()).is_err());
    assert!(fresh.metrics.is_empty(), "{:?}", fresh.metrics);
}

#[test]
fn a_host_without_sds_refuses_a_document_that_takes_secrets_from_it() {
    let host = Fixture::start(1).proxy.host;
    let mut fresh = driver::fake::FakeHost::new(host.now, host.secrets.clone(), Default::default(), 1);
    let document = r#"{"issuers":[],"rules":[],"sds":[{"name":"PORTCULLIS_SECRET"}]}"#;
    let refused = driver::configure(&mut fresh, document.into()).map(|_| ()).unwrap_err();
    assert_eq!(refused, "sds: only the dynamic module has secrets of SDS");
}
