//! Key sets over time: providers that are down, refuse, or hurry; rotations, removals, and key ids that come too early.
use std::time::Duration;

use crate::support::{Fixture, code, is_forwarded, is_waiting, key};
use driver::fake::{FakeReply, Seen};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// A proxy whose provider has published the keys `one`, with these settings of `jwks`.
fn published(settings: &Value) -> Fixture {
    let mut at = Fixture::with_published_keys();
    at.edit(|document| {
        let jwks = document["issuers"][0]["jwks"].as_object_mut().unwrap();
        jwks.extend(settings.as_object().unwrap().clone());
    });
    at.publish(&["one"]);
    at
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn jwk(kid: &str) -> Value {
    Value::Object(key(kid).public_jwk().unwrap())
}

fn passes(at: &mut Fixture, kid: &str) -> bool {
    let stream = at.send_signed(kid, "a token");
    at.answer_all();
    is_forwarded(&at.proxy, stream)
}

fn refused(at: &mut Fixture, kid: &str) -> String {
    let stream = at.send_signed(kid, "a token");
    at.answer_all();
    code(&at.proxy, stream)
}

/// The pauses between the provider's questions, in seconds.
fn pauses(at: &Fixture) -> Vec<f64> {
    at.asked.windows(2).map(|two| two[1].0.since(two[0].0).as_secs_f64()).collect()
}

#[test]
fn a_provider_that_is_down_costs_503_before_the_first_set_and_after_max_stale_and_nothing_between() {
    let mut at = published(&json!({ "refresh": "10s", "max_stale": "10s" }));
    at.edit(|document| {
        document["issuers"].as_array_mut().unwrap().push(json!({
            "name": "other", "issuer": "https://other.example", "audiences": ["api"], "algorithms": ["EdDSA"],
            "keys": [{ "jwk": jwk("two") }],
        }));
    });
    at.says = Some(FakeReply::broken_off());
    at.run(2 * SECOND);
    assert_eq!(refused(&mut at, "one"), "KEYS_UNAVAILABLE");
    let stream = at.send_signed("one", "another token");
    at.answer_all();
    let Seen::Replied(reply) = at.proxy.seen(stream) else { panic!("the request is not refused") };
    assert!(reply.status == 503 && reply.headers.iter().any(|(name, _)| name == "retry-after"), "{reply:?}");
    let now = crate::support::NOW;
    let claims = json!({ "iss": "https://other.example", "aud": "api", "sub": "a", "iat": now, "exp": now + 60 });
    let of_other = at.send_token(&crate::support::key("two").mint(&claims));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, of_other), "another issuer is not touched: {}", code(&at.proxy, of_other));
    at.says = None;
    at.run(3 * SECOND);
    assert!(passes(&mut at, "one"), "up again");
    at.says = Some(FakeReply::broken_off());
    let fetched = at.asked.last().unwrap().0;
    while at.proxy.host.now.monotonic.since(fetched) < Duration::from_millis(9_900) {
        assert!(passes(&mut at, "one"));
        at.run(Duration::from_millis(100));
    }
    at.run(Duration::from_millis(300));
    assert_eq!(refused(&mut at, "one"), "KEYS_UNAVAILABLE");
    at.says = None;
    at.run(3 * SECOND);
    assert!(passes(&mut at, "one"), "and up again");
}

#[test]
fn a_provider_that_refuses_is_asked_less_and_less() {
    let refusals = [401, 302, 429, 500].map(|status| FakeReply::new(status, "text/plain", ""));
    for refusal in refusals.map(|reply| reply.header("location", "https://elsewhere.example/keys")) {
        let mut at = published(&json!({}));
        at.says = Some(refusal);
        at.run(60 * SECOND);
        let pauses = pauses(&at);
        // 1, 2, 4, 8 s and then the refresh of 10 s, each shorter by up to a quarter.
        for (pause, longest) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
            assert!((longest * 0.74 - 0.1..=longest + 0.2).contains(pause), "{pauses:?}");
        }
        assert_eq!(refused(&mut at, "one"), "KEYS_UNAVAILABLE");
        at.says = None;
        at.run(11 * SECOND);
        assert!(passes(&mut at, "one"));
    }
}

#[test]
fn retry_after_is_honoured_and_delays_no_rotation() {
    let mut at = published(&json!({ "cool_down": "2s", "refresh": "10s", "min_refresh": "1s" }));
    at.says = Some(FakeReply::new(429, "text/plain", "").header("retry-after", "4"));
    at.run(3 * SECOND);
    assert_eq!(at.asked.len(), 1);
    at.says = None;
    at.run(2 * SECOND);
    assert!(pauses(&at)[0] >= 4.0 && passes(&mut at, "one"));
    // It refuses from now on, while tokens of unknown keys come. Then the issuer changes keys.
    at.says = Some(FakeReply::new(429, "text/plain", "").header("retry-after", "3600"));
    for _ in 0..50 {
        at.run(Duration::from_millis(100));
        assert_eq!(refused(&mut at, "forger"), "KEY_UNKNOWN");
    }
    at.says = None;
    at.publish(&["one", "two"]);
    at.run(Duration::from_millis(2100));
    assert!(passes(&mut at, "two"));
}

#[test]
fn the_last_good_set_survives_whatever_the_provider_says() {
    let mut huge = set(&[jwk("two")]);
    huge.insert_str(1, &format!(r#""padding":"{}","#, "x".repeat(1 << 20)));
    let bad = [
        FakeReply::new(200, "text/html", "<html>sign in</html>"),
        FakeReply::new(500, "application/json", set(&[jwk("two")])),
        FakeReply::new(302, "text/plain", "").header("location", "/elsewhere"),
        FakeReply::new(200, "application/json", huge),
        FakeReply::new(200, "application/json", set(&[jwk("two")]).replacen('{', r#"{"keys":[],"#, 1)),
        FakeReply::new(200, "application/json", ""),
        FakeReply::new(304, "application/json", ""),
        FakeReply::broken_off(),
    ];
    for reply in bad {
        let mut at = published(&json!({ "cool_down": "1s" }));
        at.run(SECOND);
        let before = at.asked.len();
        at.says = Some(reply.clone());
        at.run(2 * SECOND);
        assert_eq!(refused(&mut at, "two"), "KEY_UNKNOWN", "{reply:?}");
        at.run(12 * SECOND);
        assert!(at.asked.len() > before && passes(&mut at, "one"), "{reply:?}");
    }
}

#[test]
fn a_short_max_age_brings_a_removal_without_a_request() {
    let mut at = published(&json!({ "refresh": "1h" }));
    at.says = Some(
        FakeReply::new(200, "application/json", set(&[jwk("one"), jwk("two")]))
            .header("cache-control", "public, max-age=1"),
    );
    at.run(SECOND);
    assert!(passes(&mut at, "one") && passes(&mut at, "two"));
    at.says = None;
    at.publish(&["two"]);
    at.run(11 * SECOND);
    assert_eq!(refused(&mut at, "one"), "KEY_UNKNOWN");
    assert!(passes(&mut at, "two"));
    assert!((7.0..10.5).contains(&pauses(&at)[0]), "not more often than every 10 s, less a quarter: {:?}", pauses(&at));
}

#[test]
fn no_cache_does_not_hurry_and_max_age_not_more_than_min_refresh() {
    let cases = [("no-cache", "1s", 1), ("max-age=0, must-revalidate", "1s", 1), ("max-age=1", "3s", 2)];
    for (cache_control, min_refresh, most) in cases {
        let mut at = published(&json!({ "refresh": "1h", "min_refresh": min_refresh }));
        let answer = FakeReply::new(200, "application/json", set(&[jwk("one")]));
        at.says = Some(answer.header("cache-control", cache_control));
        at.run(5 * SECOND);
        assert!(passes(&mut at, "one"));
        assert_eq!(at.asked.len(), most, "{cache_control}");
    }
}

#[test]
fn a_set_that_is_not_modified_stays_young_on_all_virtual_machines_and_the_document_is_read_once() {
    let mut at = published(&json!({ "refresh": "10s", "max_stale": "10s", "min_refresh": "2s" }));
    at.edit(|document| {
        let jwks = document["issuers"][0]["jwks"].as_object_mut().unwrap();
        jwks.remove("uri");
        jwks.insert("discovery".into(), true.into());
    });
    let mut other = at.another_virtual_machine();
    let is_changed = std::cell::Cell::new(false);
    let provider = |call: &driver::fake::InFlight| match (call.header(":path"), call.header("if-none-match")) {
        ("/.well-known/openid-configuration", _) => {
            let document = json!({ "issuer": crate::support::ISSUER, "jwks_uri": "https://idp.example/keys" });
            FakeReply::new(200, "application/json", document.to_string())
        }
        (_, tag) if is_changed.get() && tag != "\"2\"" => {
            FakeReply::new(200, "application/json", set(&[jwk("one"), jwk("two")])).header("etag", "\"2\"")
        }
        (_, "\"1\"" | "\"2\"") => FakeReply::new(304, "application/json", "").header("cache-control", "max-age=2"),
        _ => FakeReply::new(200, "application/json", set(&[jwk("one")]))
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=2"),
    };
    let (mut documents, mut unchanged, mut whole) = (0, 0, 0);
    for tick in 0..200 {
        for machine in [&mut at, &mut other] {
            machine.proxy.advance(Duration::from_millis(100));
            while let Some(call) = machine.proxy.host.in_flight.first().cloned() {
                let reply = if call.cluster == "idp" { provider(&call) } else { machine.reply(&call) };
                match (call.cluster.as_str(), call.header(":path"), reply.headers[0].1.as_str()) {
                    ("idp", "/keys", "304") => unchanged += 1,
                    ("idp", "/keys", _) => whole += 1,
                    ("idp", ..) => documents += 1,
                    _ => {}
                }
                machine.proxy.answer(call.id, &reply);
            }
            if tick > 5 {
                let stream = machine.send_signed("one", "a token");
                machine.answer_all();
                assert!(is_forwarded(&machine.proxy, stream), "{tick}: {}", code(&machine.proxy, stream));
            }
        }
    }
    // A machine that fetches for the first time has no tag.
    assert!(unchanged >= 5 && whole <= 2 && unchanged + whole <= 11, "{unchanged} {whole}");
    assert!(documents <= 2, "{documents}");

    is_changed.set(true);
    for _ in 0..40 {
        for machine in [&mut at, &mut other] {
            machine.proxy.advance(Duration::from_millis(100));
            machine.proxy.answer_all(|call| (call.cluster == "idp").then(|| provider(call)));
        }
    }
    for machine in [&mut at, &mut other] {
        let stream = machine.send_signed("two", "a token of the new key");
        machine.answer_all();
        assert!(is_forwarded(&machine.proxy, stream), "{}", code(&machine.proxy, stream));
    }
}

// A forged token that named the next key before its issuer published it kept that key refused for minutes.
#[test]
fn a_key_id_that_came_before_its_key_is_found_after_one_cool_down() {
    let mut at = published(&json!({ "cool_down": "2s", "refresh": "10m" }));
    at.run(SECOND);
    assert!(passes(&mut at, "one"));
    for _ in 0..4 {
        assert_eq!(refused(&mut at, "two"), "KEY_UNKNOWN");
    }
    assert_eq!(at.asked.len(), 2, "four forged tokens caused one fetch");
    at.publish(&["one", "two"]);
    at.run(Duration::from_millis(2100));
    assert!(passes(&mut at, "two"));
    assert_eq!(at.asked.len(), 3);
}

#[test]
fn a_flood_of_unknown_kids_takes_one_fetch_in_each_cool_down_and_bounded_room() {
    let mut at = published(&json!({ "cool_down": "3s", "refresh": "10m" }));
    at.edit(|document| document["limits"]["waiting_requests"] = 50.into());
    at.run(SECOND);
    let (mut waiting, mut most) = (Vec::new(), 0);
    for number in 0..1000 {
        let token = crate::support::key("one").sign(
            &format!(r#"{{"alg":"EdDSA","kid":"kid {number}"}}"#),
            &json!({ "iss": crate::support::ISSUER, "aud": "api", "iat": crate::support::NOW, "exp": crate::support::NOW + 60 }).to_string(),
        );
        waiting.push(at.send_token(&token));
        most = most.max(waiting.iter().filter(|stream| is_waiting(&at.proxy, **stream)).count());
    }
    assert_eq!(most, 50, "the others are refused at once");
    at.answer_all();
    assert!(waiting.iter().all(|stream| code(&at.proxy, *stream) == "KEY_UNKNOWN"));
    assert_eq!(at.asked.len(), 2);
}

#[test]
fn a_key_in_the_place_of_another_is_found_by_its_first_token() {
    let mut at = published(&json!({ "cool_down": "2s", "refresh": "10m" }));
    let as_kid = |kid: &str| {
        let mut jwk = jwk(kid);
        jwk["kid"] = "one".into();
        FakeReply::new(200, "application/json", set(&[jwk]))
    };
    at.run(SECOND);
    assert!(passes(&mut at, "one"));
    at.says = Some(as_kid("two"));
    let token = crate::support::key("two").sign(
        r#"{"alg":"EdDSA","kid":"one"}"#,
        &json!({ "iss": crate::support::ISSUER, "aud": "api", "sub": "alice", "iat": crate::support::NOW, "exp": crate::support::NOW + 60 })
            .to_string(),
    );
    let stream = at.send_token(&token);
    at.answer_all();
    assert!(is_forwarded(&at.proxy, stream), "{}", code(&at.proxy, stream));
    let fetches = at.asked.len();
    for _ in 0..20 {
        assert_eq!(refused(&mut at, "one"), "SIG_MISMATCH", "the former key's token, seen before or not");
    }
    assert_eq!(at.asked.len(), fetches);
}

#[test]
fn what_is_left_out_of_a_set_is_said_once() {
    let mut at = published(&json!({ "min_refresh": "1s" }));
    let odd = json!({ "kty": "EC", "crv": "P-192", "kid": "odd" });
    let answer = FakeReply::new(200, "application/json", set(&[jwk("one"), odd]));
    at.says = Some(answer.header("cache-control", "max-age=1"));
    at.run(5 * SECOND);
    assert!(at.asked.len() >= 3 && passes(&mut at, "one"));
    let said: Vec<_> = at.proxy.host.log.iter().filter(|(_, line)| line.contains("left out")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].1.contains("issuer=idp 1 of 2 keys left out: keys[1] (kid odd): "), "{said:?}");
}

#[test]
fn a_fetch_that_the_host_loses_is_tried_again() {
    let mut at = published(&json!({}));
    at.proxy.tick();
    at.proxy.host.in_flight.clear();
    at.run(10 * SECOND);
    assert!(passes(&mut at, "one"), "{:?}", at.asked);
}

#[test]
fn forged_signatures_have_an_eighth_of_the_room_and_keep_no_good_key_from_coming() {
    let mut at = published(&json!({ "cool_down": "1s", "refresh": "10m" }));
    at.edit(|document| document["limits"]["waiting_requests"] = 16.into());
    at.run(3 * SECOND);
    let forged = |number: u32| {
        let mut token = crate::support::token("one", &number.to_string(), "alice", crate::support::NOW);
        let end = token.len() - 10;
        let other = if &token[end..=end] == "A" { "B" } else { "A" };
        token.replace_range(end..=end, other);
        token
    };
    let forged: Vec<_> = (0..10).map(forged).map(|token| at.send_token(&token)).collect();
    assert_eq!(forged.iter().filter(|stream| is_waiting(&at.proxy, **stream)).count(), 2);
    at.publish(&["one", "two"]);
    let next = at.send_signed("two", "next");
    assert!(is_waiting(&at.proxy, next));
    at.answer_all();
    assert!(is_forwarded(&at.proxy, next));
    assert!(forged.iter().all(|stream| code(&at.proxy, *stream) == "SIG_MISMATCH"));
}
