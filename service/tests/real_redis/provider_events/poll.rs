//! Events that are fetched from a transmitter (RFC 8936), which follows the RFC or misbehaves.
use super::*;
use crate::transmitter::{Answers, Transmitter};

/// A provider whose events are fetched from `transmitter`, with these members of `events.poll`.
fn polling(jwks: &Jwks, transmitter: &Transmitter, members: Value) -> Value {
    let poll = with(json!({ "url": transmitter.url(), "interval": "100ms" }), &members);
    with(provider(&jwks.uri()), &json!({ "events": { "poll": poll } }))
}

/// The transmitter is a clone of the one that runs, so that a test's end stops it.
struct Polled {
    stack: Stack,
    transmitter: Transmitter,
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.transmitter.stop();
    }
}

fn polled(members: Value) -> Polled {
    let key = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key]);
    let redis = Redis::start();
    let transmitter = Transmitter::start();
    let token = file(&redis, "ssf-token", b"a-token-of-the-transmitter\n");
    let list = [polling(&jwks, &transmitter, with(json!({ "token_file": token }), &members))];
    let service = Running::start(service::Options { providers_file: providers(&redis, &list), ..options(&redis) });
    Polled { stack: Stack { jwks, service, redis, key }, transmitter }
}

impl Polled {
    fn event(&self, claims: &Value) -> String {
        typed(&self.stack.key, "secevent+jwt", claims)
    }

    /// Has this event to send, and returns its name.
    fn has(&self, claims: &Value) -> String {
        let jti = text(&claims["jti"]).to_owned();
        self.transmitter.has(&jti, self.event(claims));
        jti
    }

    fn is_acknowledged(&self, jti: &str) -> bool {
        self.transmitter.acknowledged().iter().any(|acknowledged| acknowledged == jti)
    }

    fn acknowledges(&self, jti: &str) {
        eventually(NOTICED, || self.is_acknowledged(jti).then_some(()));
    }

    fn metric(&self, line: &str) -> bool {
        self.stack.service.admin_text("GET", "/metrics", None, "").1.lines().any(|found| found == line)
    }
}

fn session(id: &str) -> Value {
    event_claims(&json!({ "format": "opaque", "id": id }))
}

fn user(sub: &str) -> Value {
    event_claims(&json!({ "format": "iss_sub", "iss": ISSUER, "sub": sub }))
}

#[test]
fn events_are_fetched_and_acknowledged_when_their_revocation_is() {
    let polled = polled(json!({ "max_events": 2 }));
    let claims: Vec<Value> = (0..5).map(|number| session(&format!("s{number}"))).collect();
    let names: Vec<String> = claims.iter().map(|claims| polled.has(claims)).collect();
    for (number, jti) in names.iter().enumerate() {
        polled.acknowledges(jti);
        assert_eq!(polled.stack.is(Kind::Session, &format!("s{number}")), Answer::Dead);
    }
    eventually(NOTICED, || (polled.transmitter.outstanding() == 0).then_some(()));
    for request in polled.transmitter.requests() {
        assert_eq!(request.authorization.as_deref(), Some("Bearer a-token-of-the-transmitter"));
        assert_eq!(request.content_type.as_deref(), Some("application/json"));
        assert_eq!((&request.body["maxEvents"], &request.body["returnImmediately"]), (&json!(2), &json!(true)));
        assert!(request.body["ack"].as_array().is_none_or(|ack| (1..=2).contains(&ack.len())), "{:?}", request.body);
        assert!(request.body.get("setErrs").is_none());
    }
    let mut acknowledged = polled.transmitter.acknowledged();
    acknowledged.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(acknowledged, expected, "each once");
    assert!(polled.metric(r#"portcullis_provider_polled_events_total{result="ended"} 5"#));
    assert!(polled.metric(r#"portcullis_provider_polls_total{result="failed"} 0"#));
}

#[test]
fn refused_events_are_reported_with_their_reason() {
    let polled = polled(json!({}));
    let stranger = key_of(Alg::EdDSA, "k");
    let good = session("s");
    let foreign = json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "u" });
    let cases: Vec<(&str, &str, Value)> = vec![
        ("invalid_audience", "another audience", with(good.clone(), &json!({ "aud": "other" }))),
        ("invalid_request", "from the future", with(good.clone(), &json!({ "iat": now() + 3600 }))),
        ("invalid_request", "too old", with(good.clone(), &json!({ "iat": now() - 90_000 }))),
        ("invalid_request", "a subject of another issuer", with(good.clone(), &json!({ "sub_id": foreign }))),
        ("invalid_issuer", "another issuer", with(good.clone(), &json!({ "iss": "https://other.example" }))),
        ("invalid_request", "an unknown type", with(good.clone(), &json!({ "events": { "urn:new": {} } }))),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (code, jti, claims) in cases {
        expected.insert(jti.to_owned(), code);
        polled.transmitter.has(jti, polled.event(&with(claims, &json!({ "jti": jti }))));
    }
    for (code, jti, set) in [
        ("invalid_request", "no string", json!({ "set": polled.event(&good) })),
        ("invalid_request", "no token", json!("a.b")),
        ("invalid_request", "under another name", json!(polled.event(&good))),
        ("invalid_request", "too long", json!("e".repeat(17 * 1024))),
        (
            "authentication_failed",
            "forged",
            json!(typed(&stranger, "secevent+jwt", &with(good.clone(), &json!({ "jti": "forged" })))),
        ),
        (
            "invalid_request",
            "a logout token",
            json!(typed(&polled.stack.key, "logout+jwt", &with(logout_claims(), &json!({ "jti": "a logout token" })))),
        ),
    ] {
        expected.insert(jti.to_owned(), code);
        polled.transmitter.has(jti, set);
    }
    eventually(NOTICED, || (polled.transmitter.outstanding() == 0).then_some(()));
    let refused = polled.transmitter.refused();
    for (jti, code) in &expected {
        assert_eq!(refused[jti]["err"], *code, "{jti}: {}", refused[jti]);
        assert!(text(&refused[jti]["description"]).len() > 5, "{jti}");
    }
    assert_eq!((refused.len(), polled.transmitter.acknowledged().len()), (expected.len(), 0));
    assert_eq!(polled.stack.revocations(), 0);
}

#[test]
fn an_event_by_push_and_by_poll_has_its_effect_once() {
    let polled = polled(json!({}));
    let (pushed_first, polled_first) = (user("alice"), user("bob"));
    assert_eq!(push(&polled.stack.service, &polled.event(&pushed_first)).status, 202);
    let alice = polled.stack.is(Kind::User, "alice");
    let jti = polled.has(&polled_first);
    polled.acknowledges(&jti);
    let bob = polled.stack.is(Kind::User, "bob");
    let (Answer::Before(of_alice), Answer::Before(of_bob)) = (alice, bob) else { panic!("{alice:?} {bob:?}") };
    eventually(NOTICED, || (now() > of_alice.max(of_bob)).then_some(()));
    // Each comes by the other way too: acknowledged, without a second effect on a login in between.
    let jti = polled.has(&pushed_first);
    polled.acknowledges(&jti);
    assert_eq!(push(&polled.stack.service, &polled.event(&polled_first)).status, 202);
    // The same name for another user is a replay too.
    let another = with(user("carol"), &json!({ "jti": pushed_first["jti"] }));
    let before = polled.transmitter.acknowledged().len();
    let jti = polled.has(&another);
    eventually(NOTICED, || (polled.transmitter.acknowledged().len() > before).then_some(()));
    assert!(polled.is_acknowledged(&jti));
    assert_eq!([polled.stack.is(Kind::User, "alice"), polled.stack.is(Kind::User, "bob")], [alice, bob]);
    assert_eq!(polled.stack.is(Kind::User, "carol"), Answer::Live);
}

#[test]
fn instances_that_fetch_from_one_stream_lose_and_double_nothing() {
    let polled = polled(json!({ "max_events": 10 }));
    let list = [polling(&polled.stack.jwks, &polled.transmitter, json!({ "max_events": 10 }))];
    let second = options(&polled.stack.redis);
    let second = Running::start(service::Options { providers_file: providers(&polled.stack.redis, &list), ..second });
    let names: Vec<String> = (0..100).map(|number| polled.has(&session(&format!("s{number}")))).collect();
    eventually(NOTICED * 3, || (polled.transmitter.outstanding() == 0).then_some(()));
    assert!(names.iter().all(|jti| polled.is_acknowledged(jti)));
    assert!(polled.transmitter.refused().is_empty());
    for number in 0..100 {
        assert_eq!(polled.stack.is(Kind::Session, &format!("s{number}")), Answer::Dead, "{number}");
    }
    let ended = |service: &Running| -> u64 {
        let (_, metrics) = service.admin_text("GET", "/metrics", None, "");
        let line =
            metrics.lines().find(|line| line.starts_with(r#"portcullis_provider_polled_events_total{result="ended"}"#));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(ended(&polled.stack.service) + ended(&second), 100, "each by one of them");
}

#[test]
fn an_event_is_not_acknowledged_before_the_store_has_it() {
    let mut polled = polled(json!({}));
    polled.acknowledges(&polled.has(&session("first")));
    polled.stack.redis.kill();
    let jti = polled.has(&session("second"));
    let asked = polled.transmitter.requests().len();
    eventually(NOTICED * 2, || (polled.transmitter.requests().len() > asked + 2).then_some(()));
    assert!(!polled.is_acknowledged(&jti));
    polled.stack.redis.restart();
    eventually(NOTICED * 2, || polled.is_acknowledged(&jti).then_some(()));
    eventually(NOTICED, || {
        (polled.stack.service.check(&[key(Kind::Session, "second")]) == Ok(vec![Answer::Dead])).then_some(())
    });
}

#[test]
fn a_transmitter_that_misbehaves_ends_nothing_and_is_asked_again() {
    let elsewhere = Transmitter::start();
    let redirect: &'static str = format!("location: {}\r\n", elsewhere.url()).leak();
    let polled = polled(json!({}));
    let token = polled.event(&session("s"));
    let long = "x".repeat(2 * 1024 * 1024);
    for answers in [
        Answers::Body("<html>".into()),
        Answers::Body("[]".into()),
        Answers::Body(r#"{"sets": [], "moreAvailable": true}"#.into()),
        Answers::Body(format!(r#"{{"sets": {{"a": "{token}", "a": "{token}"}}}}"#)),
        Answers::Body(format!(r#"{{"sets": {{"{}": "{token}"}}}}"#, "j".repeat(3000))),
        Answers::Body(format!(r#"{{"sets": {{"a": "{long}"}}}}"#)),
        Answers::Status(302, redirect),
        Answers::Status(307, redirect),
        Answers::Status(401, ""),
        Answers::Status(503, "retry-after: 1\r\n"),
        Answers::Nothing,
    ] {
        polled.transmitter.now(answers);
        let failed = polled.transmitter.requests().len();
        eventually(NOTICED, || (polled.transmitter.requests().len() > failed).then_some(()));
        polled.transmitter.now(Answers::Follows);
        let good = session(&format!("after {failed}"));
        let jti = polled.has(&good);
        eventually(NOTICED * 2, || polled.is_acknowledged(&jti).then_some(()));
    }
    assert!(elsewhere.requests().is_empty(), "a redirect was followed");
    elsewhere.stop();
    assert_eq!(polled.stack.is(Kind::Session, "s"), Answer::Live);
    assert!(polled.transmitter.refused().is_empty());
}

#[test]
fn more_events_than_were_asked_for_are_taken_in_parts() {
    let polled = polled(json!({ "max_events": 5 }));
    polled.transmitter.now(Answers::SendsAll);
    for number in 0..60 {
        polled.has(&session(&format!("s{number}")));
    }
    eventually(NOTICED * 2, || (polled.transmitter.outstanding() == 0).then_some(()));
    for request in polled.transmitter.requests() {
        assert!(request.body["ack"].as_array().is_none_or(|ack| ack.len() <= 5), "{:?}", request.body);
    }
    assert_eq!(polled.stack.revocations(), 60);
}

#[test]
fn a_transmitter_that_forgets_acknowledgements_is_not_asked_in_a_hurry() {
    let polled = polled(json!({ "interval": "1s" }));
    polled.transmitter.now(Answers::ForgetsReports);
    let jti = polled.has(&session("s"));
    polled.acknowledges(&jti);
    let before = polled.transmitter.requests().len();
    std::thread::sleep(Duration::from_secs(3));
    let asked = polled.transmitter.requests().len() - before;
    assert!((1..=6).contains(&asked), "{asked} requests in 3 s");
    assert_eq!(polled.stack.revocations(), 1);
}

#[test]
fn a_held_request_brings_an_event_at_once_and_does_not_hold_the_end_of_the_service() {
    let mut polled = polled(json!({ "interval": "20s", "wait": "20s" }));
    eventually(NOTICED, || (!polled.transmitter.requests().is_empty()).then_some(()));
    assert_eq!(polled.transmitter.requests()[0].body["returnImmediately"], json!(false));
    let asked = Instant::now();
    let jti = polled.has(&session("s"));
    polled.acknowledges(&jti);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let stopping = Instant::now();
    polled.stack.service.stop();
    let redis = Redis::start();
    let other = Running::start(options(&redis));
    drop(std::mem::replace(&mut polled.stack.service, other));
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
}

#[test]
fn what_a_transmitter_says_of_its_stream_is_shown() {
    let polled = polled(json!({}));
    let stream = json!({ "format": "opaque", "id": "the stream" });
    let of = |name: &str, event: Value, iat: u64| {
        let events = json!({ format!("https://schemas.openid.net/secevent/ssf/event-type/{name}"): event });
        with(event_claims(&stream), &json!({ "events": events, "iat": iat }))
    };
    let enabled = |value: u64| format!(r#"portcullis_provider_stream_enabled{{issuer="{ISSUER}"}} {value}"#);
    eventually(NOTICED, || polled.metric(&enabled(1)).then_some(()));
    let told = now();
    polled.acknowledges(&polled.has(&of("stream-updated", json!({ "status": "paused", "reason": "r" }), told)));
    assert!(polled.metric(&enabled(0)));
    // An old event that is sent late.
    let old = of("stream-updated", json!({ "status": "enabled" }), told - 60);
    assert_eq!(push(&polled.stack.service, &polled.event(&old)).status, 202);
    assert!(polled.metric(&enabled(0)));
    let new = of("stream-updated", json!({ "status": "enabled" }), told + 1);
    assert_eq!(push(&polled.stack.service, &polled.event(&new)).status, 202);
    assert!(polled.metric(&enabled(1)));
    polled.acknowledges(&polled.has(&of("verification", json!({ "state": "x" }), told)));
    let verified = format!(r#"portcullis_provider_stream_verified_timestamp_seconds{{issuer="{ISSUER}"}} {told}"#);
    assert!(polled.metric(&verified));
    assert_eq!(polled.stack.revocations(), 0);
}
