//! The feed of revocations: which tokens are asked about, and that none is admitted without a proof.
use std::time::Duration;

use driver::fake::FakeReply;
use driver::{StreamId, TICK};
use serde_json::{Value, json};
use wire::check::StoreError;
use wire::feed::Trouble;
use wire::opaque_token::{OpaqueToken, Purpose};
use wire::{Answer, Kind, RevocationKey};

use crate::support::{Fixture, ISSUER, NOW, code, is_forwarded, is_waiting};

const LAG: Duration = Duration::from_secs(1);

fn following() -> Fixture {
    let mut at = not_yet_following();
    at.run(TICK * 2);
    at
}

fn not_yet_following() -> Fixture {
    let mut at = Fixture::start(1);
    at.edit(|document| document["revocation"]["feed"] = json!({ "lag": "1s" }));
    at
}

fn key(at: &Fixture, jti: &str) -> RevocationKey {
    at.service.keys.revocation_key(Kind::Token, ISSUER, &wire::token_id_from_jti(jti))
}

fn end(at: &mut Fixture, jti: &str) {
    let key = key(at, jti);
    at.service.revoke(key, Answer::Dead);
}

/// Is the token admitted without a callout?
fn passes(at: &mut Fixture, jti: &str) -> bool {
    let before = at.checks();
    let stream = at.send(jti);
    is_forwarded(&at.proxy, stream) && at.checks() == before
}

/// The token is asked about, and this is the answer: `None` if it is admitted.
fn asked(at: &mut Fixture, jti: &str) -> Option<String> {
    let stream = at.send(jti);
    assert!(is_waiting(&at.proxy, stream), "{jti} is not asked about");
    at.answer_all();
    decided(at, stream)
}

fn decided(at: &Fixture, stream: StreamId) -> Option<String> {
    (!is_forwarded(&at.proxy, stream)).then(|| code(&at.proxy, stream))
}

#[test]
fn a_token_that_is_not_revoked_is_admitted_without_a_question() {
    let mut at = following();
    assert_eq!(at.checks(), 0);
    for _ in 0..3 {
        assert!(passes(&mut at, "one") && passes(&mut at, "two"));
        at.run(Duration::from_secs(3));
    }
    assert_eq!(at.proxy.metric("feed_answers{clear}"), 6);
    assert_eq!(at.proxy.metric("feed_answers{silent}") + at.proxy.metric("feed_answers{asked}"), 0);
    assert_eq!(at.proxy.metric("checks_sent"), 0);
}

#[test]
fn each_token_is_asked_about_until_there_is_a_proof() {
    let mut at = not_yet_following();
    assert_eq!(asked(&mut at, "one"), None);
    at.run(TICK * 2);
    assert!(passes(&mut at, "two"));
}

#[test]
fn a_revoked_token_is_refused_whether_the_snapshot_or_a_later_poll_brought_it() {
    let mut at = not_yet_following();
    end(&mut at, "early");
    at.run(TICK * 2);
    end(&mut at, "late");
    at.run(TICK);
    for jti in ["early", "late"] {
        assert_eq!(asked(&mut at, jti).as_deref(), Some("SESSION_REVOKED"), "{jti}");
    }
    assert!(passes(&mut at, "other"));
    // The answer is remembered as without a feed.
    let stream = at.send("late");
    assert_eq!(code(&at.proxy, stream), "SESSION_REVOKED");
}

#[test]
fn a_token_that_was_clear_a_moment_ago_is_tested_against_what_came_since() {
    let mut at = following();
    assert!(passes(&mut at, "one"));
    end(&mut at, "one");
    at.answer_all();
    assert_eq!(asked(&mut at, "one").as_deref(), Some("SESSION_REVOKED"));
}

#[test]
fn an_answer_from_before_a_revocation_does_not_admit_after_it() {
    let mut at = following();
    // Its key is revoked for tokens of an earlier time: it is asked about, and lives.
    let key = key(&at, "one");
    at.service.revoke(key, Answer::Before(1));
    at.answer_all();
    assert_eq!(asked(&mut at, "one"), None);
    let stream = at.send("one");
    assert!(is_forwarded(&at.proxy, stream), "the verdict is fresh");
    at.proxy.advance(TICK);
    at.service.revoke(key, Answer::Dead);
    at.answer_all();
    assert_eq!(asked(&mut at, "one").as_deref(), Some("SESSION_REVOKED"), "well within the verdict's freshness");
}

#[test]
fn a_check_that_was_in_flight_when_the_revocation_came_is_sent_again() {
    let mut at = following();
    let key = key(&at, "one");
    at.service.revoke(key, Answer::Before(1));
    at.answer_all();
    let first = at.send("one");
    let check = at.proxy.host.in_flight.iter().find(|call| at.is_check(call)).unwrap().clone();
    let early = at.service.answer(&check.body);
    at.proxy.advance(TICK);
    at.service.revoke(key, Answer::Dead);
    at.answer_poll();
    // A request that begins now waits for the same batch, whose answer is older than the revocation.
    let second = at.send("one");
    assert_eq!(at.checks(), 1);
    at.proxy.answer(check.id, &early);
    assert!(is_forwarded(&at.proxy, first), "it began before the revocation");
    assert!(is_waiting(&at.proxy, second));
    at.answer_all();
    assert_eq!(decided(&at, second).as_deref(), Some("SESSION_REVOKED"));
}

#[test]
fn without_a_proof_within_the_lag_each_token_is_asked_about_and_without_an_answer_refused() {
    let mut at = following();
    at.service.feed_trouble = Some(Trouble::Incomplete);
    at.run(LAG * 2);
    assert_eq!(asked(&mut at, "one"), None);
    at.service.fails = Some(StoreError::StoreFailed);
    assert_eq!(asked(&mut at, "two").as_deref(), Some("STORE_UNAVAILABLE"));
    assert!(at.proxy.metric("feed_answers{silent}") >= 2);
    assert!(at.proxy.metric("feed_polls{incomplete}") >= 1);
    at.service.feed_trouble = None;
    at.run(Duration::from_secs(3));
    assert!(passes(&mut at, "three"), "it recovers by itself, and needs no check");
}

#[test]
fn an_old_proof_counts_no_longer_than_the_lag() {
    let mut at = following();
    at.run(Duration::from_secs(2));
    // Nothing is answered from now on.
    let mut waited = Duration::ZERO;
    while passes(&mut at, "one") {
        at.proxy.advance(Duration::from_millis(50));
        waited += Duration::from_millis(50);
    }
    assert!(waited > LAG / 2 && waited <= LAG + TICK, "{waited:?}");
}

#[test]
fn a_service_that_is_behind_proves_less() {
    let mut at = following();
    at.service.complete_millis = -3000;
    at.run(LAG * 2);
    assert_eq!(asked(&mut at, "one"), None);
}

#[test]
fn replies_that_are_not_from_our_service_prove_nothing() {
    let mut at = following();
    at.run(Duration::from_secs(2));
    let poll = at.polls().pop().unwrap();
    let genuine = at.service.poll(&poll.body, LAG).unwrap();
    let mut forged = genuine.clone();
    *forged.body.last_mut().unwrap() ^= 1;
    at.proxy.answer(poll.id, &forged);
    // The last is a replay: genuine, but the answer to an earlier poll.
    for reply in [FakeReply::new(200, "text/plain", "ok"), FakeReply::new(204, "", ""), genuine] {
        while at.polls().is_empty() {
            at.proxy.advance(TICK);
        }
        let poll = at.polls().pop().unwrap();
        at.proxy.answer(poll.id, &reply);
    }
    at.proxy.advance(LAG);
    assert!(!passes(&mut at, "one"));
    assert!(at.proxy.metric("feed_polls{no_proof}") >= 3);
}

#[test]
fn a_new_instance_sends_its_own_snapshot_and_nothing_is_lost() {
    let mut at = following();
    for turn in 0..4u8 {
        let jti = format!("t{turn}");
        assert!(passes(&mut at, &jti));
        end(&mut at, &jti);
        at.service.instance = turn + 2;
        at.service.pieces = u16::from(turn) * 3 + 1;
        at.run(LAG);
        assert_eq!(asked(&mut at, &jti).as_deref(), Some("SESSION_REVOKED"));
        assert!(passes(&mut at, "other"));
    }
}

#[test]
fn a_retention_that_is_too_short_makes_the_feed_worthless() {
    let mut at = not_yet_following();
    at.service.keeps = wire::Retention { token: 60, login: 60 };
    at.run(LAG);
    let stream = at.send("one");
    assert!(is_waiting(&at.proxy, stream));
    assert!(at.proxy.metric("feed_polls{retention_too_short}") >= 1);
}

#[test]
fn more_revocations_than_fit_are_asked_about_one_by_one() {
    let mut at = Fixture::start(1);
    at.edit(|document| {
        document["revocation"]["feed"] = json!({});
        document["limits"] = json!({ "feed_bytes": 65_536 });
    });
    for number in 0..2000 {
        end(&mut at, &format!("gone-{number}"));
    }
    at.run(TICK * 3);
    assert!(passes(&mut at, "one"));
    for number in 2000..4000 {
        end(&mut at, &format!("gone-{number}"));
    }
    at.run(TICK * 3);
    assert_eq!(asked(&mut at, "one"), None);
    assert!(at.proxy.metric("feed_polls{too_large}") >= 1);
    assert!(at.proxy.host.log.iter().any(|(_, line)| line.contains("limits.feed_bytes")));
}

#[test]
fn one_virtual_machine_of_a_process_follows_and_the_others_have_its_picture() {
    let mut first = following();
    let mut second = first.another_virtual_machine();
    second.run(TICK * 2);
    assert!(second.polls().is_empty(), "the first follows");
    assert!(passes(&mut second, "one"));
    end(&mut first, "one");
    second.service = first.service.clone();
    first.run(TICK);
    second.run(TICK);
    assert_eq!(asked(&mut second, "one").as_deref(), Some("SESSION_REVOKED"));
    assert!(passes(&mut second, "two"));
    // The first stops, as a VM that traps does. The second goes on from there.
    second.proxy.host.now = first.proxy.host.now;
    second.run(Duration::from_secs(4));
    assert_eq!(second.polls().len(), 1);
    end(&mut second, "two");
    second.answer_all();
    assert_eq!(asked(&mut second, "two").as_deref(), Some("SESSION_REVOKED"));
    assert_eq!(second.proxy.metric("feed_polls{piece}"), 0, "the cursor was taken over, too");
}

#[test]
fn a_late_reply_to_a_machine_that_no_longer_follows_changes_nothing() {
    let mut first = following();
    first.run(LAG);
    let mut second = first.another_virtual_machine();
    let held = first.polls().pop().unwrap();
    // The first stalls with its poll in flight, and the second follows.
    second.run(Duration::from_secs(4));
    assert_eq!(second.polls().len(), 1);
    end(&mut first, "late");
    let reply = first.service.poll(&held.body, Duration::ZERO).unwrap();
    first.proxy.answer(held.id, &reply);
    assert!(first.polls().is_empty(), "it does not poll again");
    assert!(passes(&mut second, "other"));
    let mut third = second.another_virtual_machine();
    third.run(TICK * 2);
    second.service = first.service.clone();
    second.run(LAG);
    third.proxy.host.now = second.proxy.host.now;
    third.run(TICK);
    third.service = second.service.clone();
    assert_eq!(asked(&mut third, "late").as_deref(), Some("SESSION_REVOKED"));
}

#[test]
fn shared_data_that_another_writer_changed_is_not_believed() {
    let mut first = following();
    let mut second = first.another_virtual_machine();
    second.run(TICK * 2);
    assert!(passes(&mut second, "one"));
    first.proxy.host.shared.change_all(|bytes| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
    second.proxy.advance(LAG * 2);
    assert!(!passes(&mut second, "one"));
}

#[test]
fn a_follower_that_waits_before_its_next_poll_is_not_replaced_by_another_virtual_machine() {
    let mut first = not_yet_following();
    first.service.feed_trouble = Some(Trouble::TooManyFollowers);
    let mut machines: Vec<_> = (0..3).map(|_| first.another_virtual_machine()).collect();
    machines.push(first);
    let (mut polls, mut time) = (0, Duration::ZERO);
    while time < Duration::from_secs(60) {
        for at in &mut machines {
            at.proxy.advance(TICK);
            polls += at.polls().len();
            at.answer_all();
        }
        time += TICK;
    }
    // One in 5 s to 10 s.
    assert!((6..=13).contains(&polls), "{polls}");
}

#[test]
fn a_poll_that_reaches_a_dead_instance_is_retried_by_envoy() {
    let at = following();
    let poll = at.polls().pop().unwrap();
    assert_eq!(poll.header("x-envoy-retry-on"), "connect-failure,refused-stream,reset");
    assert_eq!(poll.header("x-envoy-max-retries"), "6");
}

/// An opaque token of our own service, which says that its answers may be kept for so long.
fn own_token(keep_for: Option<u64>, edit: impl FnOnce(&mut Value)) -> (Fixture, String) {
    let mut at = Fixture::with_introspection();
    at.edit(|document| {
        let introspection = &mut document["issuers"][0]["introspection"];
        introspection["cluster"] = "session_service".into();
        introspection["format"] = "portcullis".into();
        introspection["freshness"] = "60s".into();
        document["revocation"]["feed"] = json!({ "lag": "1s" });
        edit(document);
    });
    at.run(TICK * 3);
    let token = OpaqueToken { purpose: Purpose::Access, sid: [1; 16], random: [2; 32], tag: [3; 16] }.write();
    let mut says =
        json!({ "active": true, "sub": "alice", "sid": "s1", "jti": "t1", "iat": NOW - 10, "exp": NOW + 6000 });
    if let Some(seconds) = keep_for {
        says["portcullis_keep_for"] = seconds.into();
    }
    at.active(&token, Some(says));
    (at, token)
}

/// How often the server is asked while the token is used for so long, four times a second.
fn questions_within(at: &mut Fixture, token: &str, time: Duration) -> i64 {
    let before = at.proxy.metric("introspections{as,active}");
    let end = at.proxy.host.now.monotonic.plus(time);
    while at.proxy.host.now.monotonic < end {
        at.run(Duration::from_millis(250));
        let stream = at.send_token(token);
        at.answer_all();
        assert!(is_forwarded(&at.proxy, stream), "{}", code(&at.proxy, stream));
        at.proxy.reset(stream);
    }
    at.proxy.metric("introspections{as,active}") - before
}

#[test]
fn answers_about_tokens_of_our_own_service_are_kept_while_their_end_is_pushed() {
    let minutes = Duration::from_secs(300);
    let (mut at, token) = own_token(Some(60), |_| ());
    assert_eq!(questions_within(&mut at, &token, minutes), 5);
    let (mut at, token) = own_token(Some(30), |_| ());
    assert_eq!(questions_within(&mut at, &token, minutes), 10, "the service says less");
    let (mut at, token) = own_token(Some(600), |_| ());
    assert_eq!(questions_within(&mut at, &token, minutes), 5, "the document says less");
    let (mut at, token) = own_token(None, |_| ());
    assert!(questions_within(&mut at, &token, minutes) >= 57, "the service says nothing");
    let (mut at, token) = own_token(Some(60), |document| document["rules"][0]["revocation"] = "off".into());
    assert!(questions_within(&mut at, &token, minutes) >= 57, "the rule does not look at the feed");
}

#[test]
fn a_session_of_our_own_service_that_ends_is_refused_at_once_though_its_answer_is_kept() {
    let (mut at, token) = own_token(Some(60), |_| ());
    assert_eq!(questions_within(&mut at, &token, Duration::from_secs(20)), 1);
    let key = at.service.keys.revocation_key(Kind::Session, ISSUER, b"s1");
    at.service.revoke(key, Answer::Dead);
    at.active(&token, None);
    at.run(TICK);
    let stream = at.send_token(&token);
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN", "it is introspected anew");
}

#[test]
fn without_a_proof_an_answer_counts_as_long_as_without_the_feed() {
    let (mut at, token) = own_token(Some(60), |_| ());
    assert_eq!(questions_within(&mut at, &token, Duration::from_secs(20)), 1);
    at.service.feed_trouble = Some(Trouble::Incomplete);
    at.run(LAG * 2);
    let asked = questions_within(&mut at, &token, Duration::from_secs(30));
    assert!((6..=7).contains(&asked), "{asked}");
    // What the server no longer knows is refused within that bound.
    at.active(&token, None);
    at.run(Duration::from_secs(5));
    let stream = at.send_token(&token);
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN");
    at.service.feed_trouble = None;
    at.run(Duration::from_secs(5));
    let stream = at.send_token(&token);
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "SESSION_UNKNOWN", "an answer that ended the token is not forgotten");
}
