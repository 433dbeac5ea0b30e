//! Logout tokens and security events, good and bad, as providers and attackers send them.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey, to_base64url};
use serde_json::{Value, json};
use wire::{Answer, Kind};

use crate::provider::*;
use crate::support::*;

struct Stack {
    jwks: Jwks,
    service: Running,
    redis: Redis,
    key: SigningKey,
}

fn stack() -> Stack {
    stack_with(json!({}))
}

fn stack_with(members: Value) -> Stack {
    let key = key_of(Alg::EdDSA, "k");
    let says = Says::Body(set(&[&key]));
    stack_of(key, says, members)
}

/// The provider says something else than its keys.
fn stack_saying(says: Says, members: Value) -> Stack {
    stack_of(key_of(Alg::EdDSA, "k"), says, members)
}

fn stack_of(key: SigningKey, says: Says, members: Value) -> Stack {
    let jwks = Jwks::saying(says);
    let redis = Redis::start();
    let provider = with(provider(&jwks.uri()), &members);
    let service = Running::start(service::Options { providers: providers(&[provider]), ..options(&redis) });
    Stack { jwks, service, redis, key }
}

impl Stack {
    fn is(&self, kind: Kind, id: &str) -> Answer {
        self.service.check(&[key(kind, id)]).unwrap()[0]
    }

    fn revocations(&self) -> usize {
        // A machine that is busy may be too slow for the service's time limits.
        let page = eventually(NOTICED, || {
            let (status, page) = self.service.admin("GET", "/v1/revocations?limit=1000", "");
            (status == 200).then_some(page)
        });
        page["revocations"].as_array().unwrap().len()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn a_logout_token_ends_its_session_or_else_its_user() {
    let stack = stack();
    let claims = logout_claims();
    let sid = text(&claims["sid"]);
    assert_eq!(stack.is(Kind::Session, sid), Answer::Live);
    let told = log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims));
    assert_eq!((told.status, &told.body), (200, &json!("")), "{told:?}");
    assert_eq!(stack.is(Kind::Session, sid), Answer::Dead);

    let both = with(logout_claims(), &json!({ "sub": "bob" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "JWT", &both)).status, 200);
    assert_eq!(stack.is(Kind::Session, text(&both["sid"])), Answer::Dead);
    assert_eq!(stack.is(Kind::User, "bob"), Answer::Live, "with a session it is this session only");

    let before = now();
    let user = with(logout_claims(), &json!({ "sid": null, "sub": "alice" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &user)).status, 200);
    let Answer::Before(ended) = stack.is(Kind::User, "alice") else { panic!("alice is logged in") };
    assert!(ended > before);

    // Operators see who did it, and nobody reads it in Redis.
    let (_, shown) = stack.service.admin("GET", &format!("/v1/revocations/{}", key(Kind::Session, sid)), "");
    assert_eq!(shown["by"], format!("backchannel-logout of {ISSUER}"), "{shown}");
    let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
    assert!(
        metrics.contains(r#"portcullis_signals_total{endpoint="backchannel-logout",result="ended"} 3"#),
        "{metrics}"
    );
    assert_eq!(stack.jwks.asked(), 1, "keys are kept");
}

#[test]
fn keycloaks_logout_ends_the_offline_session_too_where_it_says_so() {
    let stack = stack();
    for (said, offline) in [(true, Answer::Dead), (false, Answer::Live)] {
        let events = json!({ LOGOUT: {}, "revoke_offline_access": said });
        let claims = with(logout_claims(), &json!({ "sub": "alice", "typ": "Logout", "events": events }));
        let sid = text(&claims["sid"]);
        assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 200);
        assert_eq!(stack.is(Kind::Session, sid), Answer::Dead);
        assert_eq!(stack.is(Kind::Session, &format!("offline:{sid}")), offline);
    }
    assert_eq!(stack.is(Kind::User, "alice"), Answer::Live);
}

#[test]
fn a_session_whose_id_is_used_again_ends_until_now_only() {
    let stack = stack_with(json!({ "reuses_session_ids": true }));
    let claims = logout_claims();
    let before = now();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 200);
    let Answer::Before(ended) = stack.is(Kind::Session, text(&claims["sid"])) else { panic!("it is not ended so") };
    assert!(ended > before);
    // An operator's revocation is of the same kind, unless it is asked for otherwise.
    assert_eq!(stack.service.revoke(Kind::Session, "s")["answer"], "before");
    let for_good = json!({ "kind": "session", "issuer": ISSUER, "id": "s", "until_now": false });
    assert_eq!(stack.service.admin("POST", "/v1/revocations", &for_good.to_string()).1["answer"], "dead");
    assert_eq!(stack.is(Kind::Session, "s"), Answer::Dead);
}

#[test]
fn what_is_no_good_logout_token_ends_nothing_and_is_told_why() {
    let rsa = key_of(Alg::RS256, "rsa");
    let ed = key_of(Alg::EdDSA, "k");
    let stranger = key_of(Alg::EdDSA, "k");
    let es = key_of(Alg::ES256, "es");
    let jwks = Jwks::publishing(&[&rsa, &ed, &es]);
    let redis = Redis::start();
    let service =
        Running::start(service::Options { providers: providers(&[provider(&jwks.uri())]), ..options(&redis) });
    let good = logout_claims();
    let (header, payload) = (json!({ "alg": "none" }).to_string(), good.to_string());
    let unsigned = format!("{}.{}.", to_base64url(&header), to_base64url(&payload));
    // Algorithm confusion: the public key, in each form that it has, as the secret of an HMAC.
    let confused = |secret: &[u8]| {
        let hmac = SigningKey::from_secret(Alg::HS256, Some("rsa"), secret).unwrap();
        typed(&hmac, "logout+jwt", &good)
    };
    let jwk = rsa.public_jwk().unwrap();
    let modulus = mint::from_base64url(jwk["n"].as_str().unwrap()).unwrap();
    let other_alg = rsa.sign(&json!({ "alg": "EdDSA", "kid": "rsa" }).to_string(), &payload);
    let embedded = {
        let jwk = Value::Object(stranger.public_jwk().unwrap());
        stranger.sign(&json!({ "alg": "EdDSA", "kid": "k", "jwk": jwk }).to_string(), &payload)
    };
    let claims = |members: Value| typed(&ed, "logout+jwt", &with(good.clone(), &members));
    let tampered = {
        let token = claims(json!({}));
        let mut parts: Vec<&str> = token.split('.').collect();
        let other = to_base64url(with(good.clone(), &json!({ "sid": "somebody-else" })).to_string());
        parts[1] = &other;
        parts.join(".")
    };
    for (name, token) in [
        ("nothing", String::new()),
        ("alg none", unsigned),
        ("alg none, signed", ed.sign(&json!({ "alg": "none", "kid": "k" }).to_string(), &payload)),
        ("HS256 with the public key in PEM", confused(rsa.public_pem().unwrap().as_bytes())),
        ("HS256 with the modulus", confused(&modulus)),
        ("HS256 with an empty secret", confused(b"")),
        ("another alg than the key's", other_alg),
        ("an alg that the provider may not use", typed(&es, "logout+jwt", &good)),
        ("a stranger's signature", typed(&stranger, "logout+jwt", &good)),
        ("a key in the header", embedded),
        ("tampered claims", tampered),
        ("wrong typ", typed(&ed, "at+jwt", &good)),
        ("an event's typ", typed(&ed, "secevent+jwt", &good)),
        ("wrong iss", claims(json!({ "iss": "https://other.example" }))),
        ("iss with a slash more", claims(json!({ "iss": format!("{ISSUER}/") }))),
        ("no iss", claims(json!({ "iss": null }))),
        ("wrong aud", claims(json!({ "aud": "other-client" }))),
        ("wrong auds", claims(json!({ "aud": ["other-client", "x"] }))),
        ("no aud", claims(json!({ "aud": null }))),
        ("old iat", claims(json!({ "iat": now() - 200, "exp": null }))),
        ("future iat", claims(json!({ "iat": now() + 60 }))),
        ("iat as text", claims(json!({ "iat": now().to_string() }))),
        ("no iat", claims(json!({ "iat": null }))),
        ("over", claims(json!({ "iat": now() - 100, "exp": now() - 60 }))),
        ("no jti", claims(json!({ "jti": null }))),
        ("a nonce", claims(json!({ "nonce": "n" }))),
        ("no events", claims(json!({ "events": null }))),
        ("events of another type", claims(json!({ "events": { REVOKED: {} } }))),
        ("an event that is no object", claims(json!({ "events": { LOGOUT: true } }))),
        ("events as a list", claims(json!({ "events": [LOGOUT] }))),
        ("nobody", claims(json!({ "sid": null }))),
        ("an empty sid", claims(json!({ "sid": "" }))),
        ("a huge token", claims(json!({ "filler": "x".repeat(12_500) }))),
        ("claims that are no object", ed.sign(r#"{"alg":"EdDSA","kid":"k"}"#, "[]")),
    ] {
        let told = log_out(&service, &token);
        assert_eq!((told.status, text(&told.body["error"])), (400, "invalid_request"), "{name}: {told:?}");
    }
    // Not one of them. The provider was asked for its keys at the start, and for the four that a new key may have signed.
    let (_, page) = service.admin("GET", "/v1/revocations", "");
    assert_eq!(page["revocations"], json!([]));
    assert_eq!(jwks.asked(), 5);
    assert_eq!(log_out(&service, &typed(&rsa, "logout+jwt", &good)).status, 200, "what they were made of is good");
}

#[test]
fn a_request_of_another_shape_is_refused() {
    let stack = stack();
    let token = typed(&stack.key, "logout+jwt", &logout_claims());
    let form = "application/x-www-form-urlencoded";
    let path = "/oauth2/backchannel-logout";
    for (status, content_type, body) in [
        (400, form, String::new()),
        (400, form, "token=x".to_owned()),
        (400, form, format!("logout_token={token}&logout_token={token}")),
        (400, "application/json", json!({ "logout_token": token }).to_string()),
        (400, "text/plain", format!("logout_token={token}")),
        (413, form, format!("logout_token={token}&x={}", "x".repeat(64 * 1024))),
    ] {
        let told = send(&stack.service, path, content_type, body.as_bytes());
        assert_eq!((told.status, text(&told.body["error"])), (status, "invalid_request"), "{told:?}");
    }
    assert_eq!(stack.service.get(path).0, 405);
    assert_eq!(stack.service.get("/ssf/events").0, 405);
    // The spec lets more parameters and a charset be there.
    let body = format!("x=y&logout_token={token}&z");
    assert_eq!(send(&stack.service, path, &format!("{form}; charset=utf-8"), body.as_bytes()).status, 200);
    assert_eq!(stack.revocations(), 1);
}

#[test]
fn a_logout_token_works_once_also_for_many_who_send_it_at_once() {
    let stack = stack();
    let token = typed(&stack.key, "logout+jwt", &with(logout_claims(), &json!({ "sid": null, "sub": "alice" })));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let sending: Vec<_> = (0..8).map(|_| scope.spawn(|| log_out(&stack.service, &token).status)).collect();
        sending.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    // The others were too early to know how it ends, or too late.
    assert!(statuses.iter().all(|status| [200, 400, 503].contains(status)), "{statuses:?}");
    let ended = stack.is(Kind::User, "alice");
    let told = log_out(&stack.service, &token);
    assert_eq!((told.status, told.body["error_description"].as_str()), (400, Some("`jti` was used before")));
    assert_eq!(stack.is(Kind::User, "alice"), ended, "the next login is not ended");
    let list = providers(&[provider(&stack.jwks.uri())]);
    let beside = Running::start(service::Options { providers: list, ..options(&stack.redis) });
    assert_eq!(log_out(&beside, &token).status, 400, "another instance knows it too");
    // What is remembered goes away by itself: not before the token is too old, and not long after.
    let names = stack.redis.ask(&["KEYS", "portcullis:*:j:*"]);
    let name = names.lines().find(|line| line.contains(":j:")).unwrap().to_owned();
    let ttl: i64 = stack.redis.ask(&["TTL", &name]).trim_start_matches(':').trim().parse().unwrap();
    assert!((150..=230).contains(&ttl), "{ttl}");
    assert!(!names.contains("alice"));
}

/// What anybody can send: this provider's claims under a key that it does not have.
fn forged(kid: &str) -> String {
    typed(&key_of(Alg::EdDSA, kid), "logout+jwt", &logout_claims())
}

#[test]
fn unknown_keys_cause_a_few_fetches_in_a_cool_down_and_known_ones_go_on() {
    let stack = stack_with(json!({ "cool_down": "60s" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    assert_eq!(stack.jwks.asked(), 1);
    let flood: Vec<_> = (0..40).map(|n| forged(&n.to_string())).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let sending: Vec<_> = flood
            .chunks(10)
            .map(|tokens| {
                let all = || tokens.iter().map(|token| log_out(&stack.service, token).status).collect::<Vec<_>>();
                scope.spawn(all)
            })
            .collect();
        sending.into_iter().flat_map(|sent| sent.join().unwrap()).collect()
    });
    // Refused where the set was fetched for it; else we cannot tell, since the key may be a new one.
    assert!(statuses.iter().all(|status| [400, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&400) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(stack.jwks.asked(), 5);
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 2));
}

#[test]
fn a_new_key_is_found_when_it_is_first_used_and_a_removed_one_ends_with_the_refresh() {
    let stack = stack_with(json!({ "refresh": "1s", "cool_down": "1s" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let next = key_of(Alg::EdDSA, "next");
    stack.jwks.now_says(Says::Body(set(&[&next])));
    assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &logout_claims())).status, 200);
    eventually(NOTICED, || {
        (log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status == 400).then_some(())
    });
}

#[test]
fn a_new_key_is_found_also_for_a_token_that_names_none() {
    let stack = stack_with(json!({ "cool_down": "60s" }));
    let nameless = |key: &SigningKey| key.sign(r#"{"alg":"EdDSA"}"#, &logout_claims().to_string());
    assert_eq!(log_out(&stack.service, &nameless(&stack.key)).status, 200);
    let next = key_of(Alg::EdDSA, "next");
    stack.jwks.now_says(Says::Body(set(&[&next])));
    assert_eq!(log_out(&stack.service, &nameless(&next)).status, 200);
    // What is signed by nobody's key is looked for no more often than what names one.
    let forged = || nameless(&key_of(Alg::EdDSA, "forged"));
    let statuses: Vec<u16> = (0..6).map(|_| log_out(&stack.service, &forged()).status).collect();
    assert_eq!(statuses, [400, 400, 400, 503, 503, 503]);
    assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 2));
}

// The kid may stay, with another key or also another algorithm, and it may go; the logout is sent once.
#[test]
fn a_new_key_is_found_also_under_the_id_of_an_old_one_or_under_none() {
    for (alg, published) in [(Alg::EdDSA, "k"), (Alg::RS256, "k"), (Alg::EdDSA, "")] {
        let stack = stack_with(json!({ "cool_down": "60s" }));
        assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
        let next = key_of(alg, "k");
        let mut jwk = Value::Object(next.public_jwk().unwrap());
        if published.is_empty() {
            jwk.as_object_mut().unwrap().remove("kid");
        }
        stack.jwks.now_says(Says::Body(json!({ "keys": [jwk] }).to_string()));
        let claims = logout_claims();
        assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &claims)).status, 200, "{alg:?} {published}");
        assert_eq!(stack.is(Kind::Session, text(&claims["sid"])), Answer::Dead);
        // Strangers cause no more fetches with the id of a known key than with others, and tokens of that key go on.
        let statuses: Vec<u16> = (0..6).map(|_| log_out(&stack.service, &forged("k")).status).collect();
        assert_eq!(statuses, [400, 400, 400, 503, 503, 503]);
        assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &logout_claims())).status, 200);
        assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 3));
    }
}

const NOTICED: Duration = Duration::from_secs(10);

#[test]
fn keys_that_cannot_be_had_are_cannot_tell_and_the_token_is_carried_out_when_they_come() {
    let all = [
        Says::Status(500),
        Says::Status(404),
        Says::Redirect,
        Says::Body("<html>".into()),
        Says::Body(format!("{{\"keys\":[]{}}}", " ".repeat(300 * 1024))),
        Says::Nothing,
    ];
    std::thread::scope(|scope| {
        for says in all {
            scope.spawn(move || carried_out_when_keys_come(says));
        }
    });
}

fn carried_out_when_keys_come(says: Says) {
    let stack = stack_saying(says.clone(), json!({}));
    // Ready all the same: nothing of a filter's waits for providers.
    eventually(NOTICED, || (stack.service.get("/readyz").0 == 200).then_some(()));
    let claims = logout_claims();
    let token = typed(&stack.key, "logout+jwt", &claims);
    let asked = Instant::now();
    let told = log_out(&stack.service, &token);
    assert_eq!((told.status, text(&told.body["error"])), (503, "temporarily_unavailable"), "{says:?}: {told:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{says:?}: the timeout is 500 ms");
    assert_eq!(push(&stack.service, &typed(&stack.key, "secevent+jwt", &logout_claims())).status, 503);
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    // Nobody sends it again: it was kept.
    eventually(NOTICED, || (stack.is(Kind::Session, text(&claims["sid"])) == Answer::Dead).then_some(()));
    // Whoever does is told that it is done, once.
    eventually(NOTICED, || (log_out(&stack.service, &token).status == 200).then_some(()));
    assert_eq!(log_out(&stack.service, &token).status, 400, "{says:?}");
    let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
    let later = |result: &str| {
        format!(r#"portcullis_signals_later_total{{endpoint="backchannel-logout",result="{result}"}} 1"#)
    };
    assert!(metrics.contains(&later("ended")), "{metrics}");
    eventually(NOTICED, || {
        stack.service.admin_text("GET", "/metrics", None, "").1.contains("portcullis_signals_kept 0").then_some(())
    });
}

#[test]
fn what_was_kept_ends_what_was_issued_before_it_came() {
    let stack = stack_saying(Says::Status(500), json!({}));
    let user = with(logout_claims(), &json!({ "sid": null, "sub": "alice" }));
    let came = now();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &user)).status, 503);
    // Alice logs in again before the keys come.
    eventually(NOTICED, || (now() > came + 4).then_some(()));
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    let before = eventually(NOTICED, || match stack.is(Kind::User, "alice") {
        Answer::Before(before) => Some(before),
        _ => None,
    });
    // A second for the fraction of `iat`, and the lead of issuers' clocks.
    assert!((came + 1..=came + 3).contains(&before), "{came} {before}");
}

#[test]
fn what_redis_does_not_confirm_is_carried_out_when_it_does() {
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let claims = logout_claims();
    stack.redis.kill();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 503);
    let event = typed(&stack.key, "secevent+jwt", &event_claims(&json!({ "format": "opaque", "id": "s" })));
    assert_eq!(push(&stack.service, &event).status, 503);
    stack.redis.restart();
    for id in [text(&claims["sid"]), "s"] {
        eventually(NOTICED, || {
            (stack.service.check(&[key(Kind::Session, id)]) == Ok(vec![Answer::Dead])).then_some(())
        });
    }
}

// More than are carried out at once. The others wait where they are bounded, and not in tasks.
#[test]
fn many_logouts_stay_in_their_bound_while_redis_is_away_and_are_all_carried_out_then() {
    const MANY: usize = 150;
    const CARRIED: usize = 32;
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    stack.redis.kill();
    let claims: Vec<Value> = (0..MANY).map(|_| logout_claims()).collect();
    std::thread::scope(|scope| {
        for claims in claims.chunks(10) {
            let all =
                || claims.iter().all(|claims| log_out(&stack.service, &typed(&stack.key, "JWT", claims)).status == 503);
            scope.spawn(move || assert!(all()));
        }
    });
    let kept = || {
        let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
        let line = metrics.lines().find_map(|line| line.strip_prefix("portcullis_signals_kept ")).unwrap().to_owned();
        line.parse::<usize>().unwrap()
    };
    // Through several attempts.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        assert!((MANY - CARRIED..=MANY).contains(&kept()), "{}", kept());
    }
    stack.redis.restart();
    eventually(NOTICED, || (kept() == 0).then_some(()));
    let keys: Vec<_> = claims.iter().map(|claims| key(Kind::Session, text(&claims["sid"]))).collect();
    for keys in keys.chunks(10) {
        eventually(NOTICED, || (stack.service.check(keys) == Ok(vec![Answer::Dead; keys.len()])).then_some(()));
    }
}

#[test]
fn a_service_that_is_told_to_stop_looks_once_more_for_what_it_kept() {
    let mut stack = stack_saying(Says::Status(500), json!({}));
    let claims = logout_claims();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 503);
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    stack.service.stop();
    let next = Running::start(options(&stack.redis));
    let named = key(Kind::Session, text(&claims["sid"]));
    eventually(NOTICED, || (next.check(&[named]) == Ok(vec![Answer::Dead])).then_some(()));
}

// Keycloak sends a logout once. Here each comes once, signed by a key that the service has not seen, while somebody sends
// forged ones without a pause, and now and then to a service that has just started.
#[test]
fn no_genuine_logout_is_lost_in_noise_rotations_and_restarts() {
    const ROUNDS: usize = 100;
    let redis = Redis::start();
    let jwks = Jwks::publishing(&[]);
    let start = || {
        let list = providers(&[provider(&jwks.uri())]);
        // The noise has the address of the provider, as behind a proxy.
        Running::start(service::Options { providers: list, max_newcomers: 4096, ..options(&redis) })
    };
    let begun = Instant::now();
    let mut services = vec![start()];
    let noise: Vec<String> = (0..500).map(|n| forged(&format!("noise-{n}"))).collect();
    let at = std::sync::Mutex::new(services[0].at.listen);
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut sids = Vec::new();
    std::thread::scope(|scope| {
        let noisy = scope.spawn(|| {
            // Enough of them wait for their answers to take every place that there is for waiting.
            let (mut sent, mut waiting) = (0, std::collections::VecDeque::new());
            for token in noise.iter().cycle() {
                if over.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                waiting.push_back(shout(*at.lock().unwrap(), token));
                if waiting.len() > 200 {
                    waiting.pop_front();
                }
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let mut published: Vec<SigningKey> = Vec::new();
        let mut sending = Vec::new();
        for round in 0..ROUNDS {
            let next = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(80)));
            // Twice at once now and then; old keys are published for a while, as tokens that they signed are in use.
            for rotation in 0..=usize::from(round % 7 == 0) {
                published.push(key_of(Alg::EdDSA, &format!("round-{round}-{rotation}")));
            }
            let from = published.len().saturating_sub(100);
            jwks.now_says(Says::Body(set(&published[from..].iter().collect::<Vec<_>>())));
            if round % 20 == 10 {
                services.push(start());
                *at.lock().unwrap() = services.last().unwrap().at.listen;
            }
            let claims = logout_claims();
            let token = typed(published.last().unwrap(), "logout+jwt", &claims);
            sids.push(claims["sid"].as_str().unwrap().to_owned());
            let to = services.last().unwrap().at.listen;
            sending.push(scope.spawn(move || send_once(to, &token)));
            next.join().unwrap();
        }
        let statuses: Vec<u16> = sending.into_iter().map(|sent| sent.join().unwrap()).collect();
        // No genuine one was refused for good, whether its sender was told 200 or to come again.
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&503), "the noise was not enough");
        let names: Vec<_> = sids.iter().map(|sid| key(Kind::Session, sid)).collect();
        let lost = || {
            let answers: Vec<Answer> = names.chunks(20).flat_map(|names| services[0].check(names).unwrap()).collect();
            answers.iter().filter(|answer| **answer != Answer::Dead).count()
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(NOTICED, || (lost() == 0).then_some(()));
        }));
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let sent = noisy.join().unwrap();
        assert!(ended.is_ok(), "{} of {ROUNDS} are lost, with {sent} forged ones beside", lost());
        assert!(sent > ROUNDS * 10, "{sent}");
    });
    // The forged ones cause fetches, and not one each.
    let most = services.len() * (6 + begun.elapsed().as_secs() as usize / 5);
    assert!(jwks.asked() <= most, "{} {most}", jwks.asked());
}

/// Sends a logout token and leaves its answer unread.
fn shout(to: std::net::SocketAddr, token: &str) -> Option<TcpStream> {
    let body = format!("logout_token={token}");
    let head = "POST /oauth2/backchannel-logout HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded";
    let mut stream = TcpStream::connect(to).ok()?;
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok().map(|()| stream)
}

/// The status of the one answer.
fn send_once(to: std::net::SocketAddr, token: &str) -> u16 {
    let body = format!("logout_token={token}");
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(10))).build());
    let sent = agent
        .post(format!("http://{to}/oauth2/backchannel-logout"))
        .content_type("application/x-www-form-urlencoded")
        .send(body.as_bytes());
    sent.unwrap().status().as_u16()
}

#[test]
fn keys_that_are_held_serve_while_the_provider_is_down_until_they_are_stale() {
    let stack = stack_with(json!({ "refresh": "1s", "max_stale": "4s" }));
    let good = || log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status;
    assert_eq!(good(), 200);
    let fetched = Instant::now();
    stack.jwks.now_says(Says::Status(500));
    // Tried and failed: the keys are older than `refresh` by now, and serve.
    eventually(NOTICED, || (stack.jwks.asked() > 1 || good() != 200).then_some(()));
    assert_eq!(good(), 200);
    eventually(NOTICED, || (good() == 503).then_some(()));
    assert!(fetched.elapsed() >= Duration::from_secs(3));
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    eventually(NOTICED, || (good() == 200).then_some(()));
}

#[test]
fn discovery_takes_only_this_issuers_document_and_urls_that_are_safe() {
    let documents: [fn(&str, &str) -> Value; 4] = [
        |_, uri| json!({ "issuer": ISSUER, "jwks_uri": uri }),
        |issuer, _| json!({ "issuer": issuer, "jwks_uri": "http://192.0.2.1/jwks" }),
        |issuer, _| json!({ "issuer": issuer, "jwks_uri": "file:///etc/passwd" }),
        |issuer, _| json!({ "issuer": issuer }),
    ];
    let discover = |document: fn(&str, &str) -> Value| {
        let key = key_of(Alg::EdDSA, "k");
        let jwks = Jwks::publishing(&[&key]);
        let server = Jwks::saying(Says::Status(404));
        let issuer = format!("http://{}", server.at);
        server.now_says(Says::Body(document(&issuer, &jwks.uri()).to_string()));
        let redis = Redis::start();
        let members = json!({ "issuer": issuer, "jwks_uri": null, "discovery": "openid-configuration" });
        let list = providers(&[with(provider(""), &members)]);
        let service = Running::start(service::Options { providers: list, ..options(&redis) });
        let token = typed(&key, "logout+jwt", &with(logout_claims(), &json!({ "iss": issuer })));
        assert_eq!(log_out(&service, &token).status, 503, "{}", document("", ""));
        assert_eq!(jwks.asked(), 0);
        server.now_says(Says::Body(json!({ "issuer": issuer, "jwks_uri": jwks.uri() }).to_string()));
        eventually(NOTICED, || (log_out(&service, &token).status == 200).then_some(()));
    };
    std::thread::scope(|scope| {
        for document in documents {
            scope.spawn(move || discover(document));
        }
    });
}

#[test]
fn a_logout_that_is_not_confirmed_is_503_and_can_be_sent_again() {
    // One replica is asked for, and there is none.
    let key = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key]);
    let redis = Redis::start();
    let confirm_timeout = Duration::from_millis(200);
    let unsafe_ = service::Options {
        providers: providers(&[provider(&jwks.uri())]),
        min_replicas: 1,
        confirm_timeout,
        ..options(&redis)
    };
    let service = Running::start(unsafe_);
    let token = typed(&key, "logout+jwt", &logout_claims());
    for _ in 0..2 {
        assert_eq!(log_out(&service, &token).status, 503);
    }
    let replica = Redis::start();
    replica.ask(&["REPLICAOF", "127.0.0.1", &redis.port.to_string()]);
    eventually(NOTICED, || (log_out(&service, &token).status == 200).then_some(()));
    assert_eq!(log_out(&service, &token).status, 400);
}

#[test]
fn a_store_that_is_gone_is_503_and_the_same_token_works_when_it_is_back() {
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let claims = logout_claims();
    let token = typed(&stack.key, "logout+jwt", &claims);
    let event = typed(&stack.key, "secevent+jwt", &event_claims(&json!({ "format": "opaque", "id": "s" })));
    stack.redis.kill();
    assert_eq!(log_out(&stack.service, &token).status, 503);
    assert_eq!(push(&stack.service, &event).status, 503);
    stack.redis.restart();
    eventually(NOTICED, || (log_out(&stack.service, &token).status == 200).then_some(()));
    eventually(NOTICED, || (push(&stack.service, &event).status == 202).then_some(()));
    // What only writes need not wait until reads find Redis again.
    eventually(NOTICED, || stack.service.check(&[key(Kind::Session, "s")]).ok());
    assert_eq!(stack.is(Kind::Session, text(&claims["sid"])), Answer::Dead);
    assert_eq!(stack.is(Kind::Session, "s"), Answer::Dead);
    // Another store's is not ours.
    stack.redis.ask(&["FLUSHALL"]);
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 503);
}

#[test]
fn events_end_sessions_and_users_and_are_acknowledged_again_without_a_second_effect() {
    let stack = stack();
    let pushed = |claims: &Value| push(&stack.service, &typed(&stack.key, "secevent+jwt", claims)).status;
    let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "carol" });
    assert_eq!(pushed(&event_claims(&json!({ "format": "opaque", "id": "one" }))), 202);
    let session = json!({ "format": "opaque", "id": "two" });
    let complex = json!({ "format": "complex", "session": session, "user": user, "tenant": session });
    assert_eq!(pushed(&event_claims(&complex)), 202);
    assert_eq!([stack.is(Kind::Session, "one"), stack.is(Kind::Session, "two")], [Answer::Dead; 2]);
    assert_eq!(stack.is(Kind::User, "carol"), Answer::Live);
    let event = event_claims(&user);
    assert_eq!(pushed(&event), 202);
    let ended = stack.is(Kind::User, "carol");
    let Answer::Before(before) = ended else { panic!("carol is logged in") };
    // Sent again later, it must not end a login that came after it.
    eventually(NOTICED, || (now() > before).then_some(()));
    assert_eq!(pushed(&event), 202);
    assert_eq!(stack.is(Kind::User, "carol"), ended);
    let verification = json!({ "https://schemas.openid.net/secevent/ssf/event-type/verification": { "state": "x" } });
    assert_eq!(pushed(&with(event_claims(&session), &json!({ "events": verification }))), 202);
    assert_eq!(stack.revocations(), 3);
}

// As Keycloak 26 says it: "Sign out" of one session, of all of a user's, and a user who was disabled.
#[test]
fn what_keycloak_pushes_ends_whom_it_means_or_is_refused() {
    let stack = stack();
    let pushed = |claims: &Value| push(&stack.service, &typed(&stack.key, "secevent+jwt", claims));
    let user = |sub: &str| json!({ "format": "iss_sub", "iss": ISSUER, "sub": sub });
    let session = |id: &str| json!({ "format": "opaque", "id": id });
    let of =
        |user: Value, id: &str| event_claims(&json!({ "format": "complex", "user": user, "session": session(id) }));
    assert_eq!(pushed(&of(user("erin"), "one")).status, 202);
    assert_eq!((stack.is(Kind::Session, "one"), stack.is(Kind::User, "erin")), (Answer::Dead, Answer::Live));
    assert_eq!(pushed(&of(user("erin"), "ALL")).status, 202);
    assert!(matches!(stack.is(Kind::User, "erin"), Answer::Before(_)));
    assert_eq!(stack.is(Kind::Session, "ALL"), Answer::Live, "nobody has a session of that name");
    let disabled =
        json!({ "https://schemas.openid.net/secevent/risc/event-type/account-disabled": { "reason": "admin" } });
    assert_eq!(pushed(&with(event_claims(&user("frank")), &json!({ "events": disabled }))).status, 202);
    assert!(matches!(stack.is(Kind::User, "frank"), Answer::Before(_)));
    // By e-mail address nobody is found, and a changed password asks for no logout.
    let email = json!({ "format": "email", "email": "erin@example.com" });
    let changed =
        json!({ "https://schemas.openid.net/secevent/caep/event-type/credential-change": { "change_type": "update" } });
    for claims in [
        of(email.clone(), "ALL"),
        event_claims(&email),
        event_claims(&session("ALL")),
        with(event_claims(&user("erin")), &json!({ "events": changed })),
    ] {
        let told = pushed(&claims);
        assert_eq!((told.status, text(&told.body["err"])), (400, "invalid_request"), "{told:?} {claims}");
    }
    assert_eq!(pushed(&of(email, "two")).status, 202);
    assert_eq!(stack.is(Kind::Session, "two"), Answer::Dead);
    assert_eq!(stack.revocations(), 4);
}

#[test]
fn events_that_are_not_good_are_refused_with_the_codes_of_rfc_8935() {
    let stack = stack();
    let stranger = key_of(Alg::EdDSA, "k");
    let unknown = key_of(Alg::EdDSA, "unknown");
    let sub_id = json!({ "format": "opaque", "id": "s" });
    let good = event_claims(&sub_id);
    let event = |members: Value| typed(&stack.key, "secevent+jwt", &with(good.clone(), &members));
    let logout_event = json!({ LOGOUT: {} });
    for (code, token) in [
        ("invalid_request", String::new()),
        ("invalid_request", typed(&stack.key, "JWT", &good)),
        ("invalid_request", typed(&stack.key, "logout+jwt", &good)),
        ("invalid_request", event(json!({ "sub": "s" }))),
        ("invalid_request", event(json!({ "exp": now() + 60 }))),
        ("invalid_request", event(json!({ "jti": null }))),
        ("invalid_request", event(json!({ "iat": now() - 3700 }))),
        ("invalid_request", event(json!({ "iat": now() + 60 }))),
        ("invalid_request", event(json!({ "events": null }))),
        ("invalid_request", event(json!({ "events": logout_event }))),
        ("invalid_request", event(json!({ "sub_id": null }))),
        ("invalid_request", event(json!({ "sub_id": { "format": "email", "email": "a@example.com" } }))),
        (
            "invalid_request",
            event(json!({ "sub_id": { "format": "iss_sub", "iss": "https://o.example", "sub": "u" } })),
        ),
        ("invalid_issuer", event(json!({ "iss": "https://other.example" }))),
        ("invalid_audience", event(json!({ "aud": "other" }))),
        ("invalid_key", typed(&unknown, "secevent+jwt", &good)),
        ("invalid_key", stack.key.sign(r#"{"alg":"none","typ":"secevent+jwt"}"#, &good.to_string())),
        ("authentication_failed", typed(&stranger, "secevent+jwt", &good)),
    ] {
        let told = push(&stack.service, &token);
        assert_eq!((told.status, text(&told.body["err"])), (400, code), "{told:?} {token}");
    }
    let told = send(&stack.service, "/ssf/events", "application/jwt", event(json!({})).as_bytes());
    assert_eq!(told.status, 400);
    assert_eq!(send(&stack.service, "/ssf/events", "application/secevent+jwt", &[b'x'; 64 * 1024]).status, 413);
    assert_eq!(stack.revocations(), 0);
    // Neither serves in the place of the other.
    assert_eq!(log_out(&stack.service, &event(json!({}))).status, 400);
    assert_eq!(push(&stack.service, &event(json!({}))).status, 202);
}

#[test]
fn a_provider_sends_only_where_it_may_and_ends_only_what_is_its_own() {
    let (one, two) = (key_of(Alg::EdDSA, "k"), key_of(Alg::EdDSA, "k"));
    let (of_one, of_two) = (Jwks::publishing(&[&one]), Jwks::publishing(&[&two]));
    let redis = Redis::start();
    let other = "https://transmitter.example";
    let list = [
        with(provider(&of_one.uri()), &json!({ "events": null })),
        with(
            provider(&of_two.uri()),
            &json!({ "issuer": other, "logout": null, "events": { "subject_issuer": ISSUER } }),
        ),
    ];
    let service = Running::start(service::Options { providers: providers(&list), ..options(&redis) });
    let session = event_claims(&json!({ "format": "opaque", "id": "s" }));
    assert_eq!(push(&service, &typed(&one, "secevent+jwt", &session)).status, 400);
    let theirs = with(session, &json!({ "iss": other }));
    assert_eq!(push(&service, &typed(&one, "secevent+jwt", &theirs)).status, 400, "another's key");
    assert_eq!(push(&service, &typed(&two, "secevent+jwt", &theirs)).status, 202);
    assert_eq!(service.check(&[key(Kind::Session, "s")]), Ok(vec![Answer::Dead]), "of the tokens' issuer");
    let logout = with(logout_claims(), &json!({ "iss": other }));
    assert_eq!(log_out(&service, &typed(&two, "logout+jwt", &logout)).status, 400);
    let user = event_claims(&json!({ "format": "iss_sub", "iss": other, "sub": "u" }));
    let user = typed(&two, "secevent+jwt", &with(user, &json!({ "iss": other })));
    assert_eq!(push(&service, &user).status, 400, "its own users have no tokens here");
}

#[test]
fn a_clients_secret_signs_logout_tokens_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client-secret");
    let secret = b"the-secret-of-our-client-32-bytes";
    std::fs::write(&file, [secret.as_slice(), b"\n"].concat()).unwrap();
    let (rsa, ed) = (key_of(Alg::RS256, "rsa"), key_of(Alg::EdDSA, "k"));
    let jwks = Jwks::publishing(&[&rsa, &ed]);
    let redis = Redis::start();
    let alone = "https://alone.example";
    let members = json!({ "algorithms": ["HS256", "RS256"], "secret_file": file });
    let only = json!({
        "issuer": alone, "algorithms": ["HS512"], "secret_file": file, "jwks_uri": null, "events": null,
    });
    let list = providers(&[with(provider(&jwks.uri()), &members), with(provider(""), &only)]);
    let service = Running::start(service::Options { providers: list, ..options(&redis) });
    let hmac = |alg, kid: Option<&str>, secret: &[u8]| SigningKey::from_secret(alg, kid, secret).unwrap();
    let ours = hmac(Alg::HS256, None, secret);
    let sent = |key: &SigningKey, claims: &Value| {
        let mut header = json!({ "alg": key.alg().name(), "typ": "logout+jwt" });
        if let Some(kid) = key.kid() {
            header["kid"] = json!(kid);
        }
        log_out(&service, &key.sign(&header.to_string(), &claims.to_string())).status
    };
    let claims = logout_claims();
    assert_eq!(sent(&ours, &claims), 200);
    assert_eq!(service.check(&[key(Kind::Session, text(&claims["sid"]))]), Ok(vec![Answer::Dead]));
    assert_eq!(sent(&hmac(Alg::HS256, Some("any"), secret), &logout_claims()), 200, "there is one secret");
    assert_eq!(sent(&rsa, &logout_claims()), 200, "and the published keys");
    let theirs = with(logout_claims(), &json!({ "iss": alone }));
    assert_eq!(sent(&hmac(Alg::HS512, None, secret), &theirs), 200, "also where there are none");
    let pem = rsa.public_pem().unwrap();
    let modulus = mint::from_base64url(rsa.public_jwk().unwrap()["n"].as_str().unwrap()).unwrap();
    for (name, key) in [
        ("another secret", hmac(Alg::HS256, None, b"the-secret-of-another-client-32-by")),
        ("no secret", hmac(Alg::HS256, None, b"")),
        ("the public key in PEM", hmac(Alg::HS256, Some("rsa"), pem.as_bytes())),
        ("the modulus", hmac(Alg::HS256, Some("rsa"), &modulus)),
        ("an algorithm that it may not use", hmac(Alg::HS384, None, secret)),
        ("a key of an algorithm that it may not use", key_of(Alg::EdDSA, "k")),
    ] {
        assert_eq!(sent(&key, &logout_claims()), 400, "{name}");
        let theirs = with(logout_claims(), &json!({ "iss": alone }));
        assert_eq!(sent(&key, &theirs), 400, "{name}, where there are no keys");
    }
    // Who knows the client's secret is no transmitter.
    let event = event_claims(&json!({ "format": "opaque", "id": "s" }));
    let told = push(&service, &ours.sign(r#"{"alg":"HS256","typ":"secevent+jwt"}"#, &event.to_string()));
    assert_eq!((told.status, text(&told.body["err"])), (400, "invalid_key"));
    assert_eq!(push(&service, &typed(&rsa, "secevent+jwt", &event)).status, 202);
}

#[test]
fn without_providers_there_is_nothing_to_send_to() {
    let (_redis, service) = started();
    assert_eq!(service.get("/oauth2/backchannel-logout").0, 404);
    assert_eq!(service.get("/ssf/events").0, 404);
}

#[test]
fn both_secrets_see_a_logout_while_they_rotate() {
    let key_ = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key_]);
    let redis = Redis::start();
    let service = Running::start(service::Options {
        providers: providers(&[provider(&jwks.uri())]),
        secrets: vec![secret(2), secret(1)],
        ..options(&redis)
    });
    let claims = logout_claims();
    assert_eq!(log_out(&service, &typed(&key_, "logout+jwt", &claims)).status, 200);
    for byte in [1, 2] {
        let derived = secret(byte).derive();
        let named = derived.revocation_key(Kind::Session, ISSUER, text(&claims["sid"]).as_bytes());
        assert_eq!(service.check_as(&derived, &[named]), (200, Ok(Ok(vec![Answer::Dead]))), "secret {byte}");
    }
}

/// Sends on a connection that stays open, and tells the status; 0 if it was closed.
fn push_on(stream: &mut TcpStream, token: &str) -> u16 {
    let head = "POST /ssf/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/secevent+jwt\r\n";
    let sent = write!(stream, "{head}content-length: {}\r\n\r\n{token}", token.len());
    let mut reply = [0; 2048];
    let read = sent.and_then(|()| stream.read(&mut reply)).unwrap_or(0);
    let status = String::from_utf8_lossy(&reply[..read]).split(' ').nth(1).map(str::to_owned);
    status.map_or(0, |status| status.parse().unwrap())
}

// Else who captured one event could hold every connection that the proxies need.
#[test]
fn only_an_event_that_is_new_makes_its_connection_a_known_one() {
    let key = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key]);
    let redis = Redis::start();
    let list = providers(&[provider(&jwks.uri())]);
    let service = Running::start(service::Options { providers: list, max_newcomers: 2, ..options(&redis) });
    let fresh = || typed(&key, "secevent+jwt", &event_claims(&json!({ "format": "opaque", "id": "s" })));
    let connect = || {
        let stream = TcpStream::connect(service.at.listen).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect();
        assert_eq!(push_on(&mut stream, &fresh()), 202);
        held.push(stream);
    }
    let captured = fresh();
    let mut captors = vec![connect(), connect()];
    assert_eq!(push_on(&mut held[0], &captured), 202);
    for stream in &mut captors {
        assert_eq!(push_on(stream, &captured), 202);
    }
    // The address has its two strangers: a third one ends the oldest, and none of the known ones.
    assert_eq!(push_on(&mut connect(), &captured), 202);
    assert_eq!(push_on(&mut captors[0], &captured), 0);
    for stream in &mut held {
        assert_eq!(push_on(stream, &fresh()), 202);
    }
}

#[test]
fn descriptions_of_errors_repeat_nothing_that_could_be_read_as_more() {
    let stack = stack();
    let long = format!("{}\"\\\u{e9}\n{}", "x".repeat(20), "y".repeat(2000));
    let token = typed(&stack.key, "logout+jwt", &with(logout_claims(), &json!({ "iat": long })));
    let told = log_out(&stack.service, &token);
    let description = text(&told.body["error_description"]);
    assert!(description.len() <= 256, "{description}");
    assert!(description.chars().all(|c| matches!(c, ' '..='~') && c != '"' && c != '\\'), "{description}");
}

// As in a failover that somebody asked for: what is read goes on then.
#[test]
fn a_logout_that_redis_holds_up_holds_up_no_check() {
    let stack = stack();
    let token = typed(&stack.key, "logout+jwt", &logout_claims());
    stack.redis.ask(&["CLIENT", "PAUSE", "1000", "WRITE"]);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| log_out(&stack.service, &token).status);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(800) {
            let answers = stack.service.check(&[key(Kind::Session, "other")]);
            assert_eq!(answers, Ok(vec![Answer::Live]), "after {:?}", begun.elapsed());
        }
        assert_eq!(sent.join().unwrap(), 200);
    });
}
