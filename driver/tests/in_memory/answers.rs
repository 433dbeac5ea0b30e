//! What one request cannot show: logins that grow old, nonces, counts of what is reported, and the certificate that a
//! trusted hop names.
use std::time::Duration;

use driver::fake::{Request, Seen};
use driver::{Level, StreamId};
use serde_json::{Value, json};

use crate::support::{Fixture, ISSUER, NOW, bearer, code, is_forwarded, is_waiting, key};

fn rule(change: impl FnOnce(&mut Value)) -> Fixture {
    let mut at = Fixture::start(1);
    at.edit(|document| {
        document["rules"][0]["revocation"] = json!("off");
        change(&mut document["rules"][0]);
    });
    at
}

fn minted(more: Value) -> String {
    let mut claims = json!({ "iss": ISSUER, "aud": "api", "sub": "alice", "jti": "t", "iat": NOW, "exp": NOW + 3600 });
    let more = more.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone()));
    claims.as_object_mut().unwrap().extend(more);
    key("one").mint(&claims)
}

fn forwarded(at: &Fixture, stream: StreamId, name: &str) -> Option<String> {
    let Seen::Forwarded(exchange) = at.proxy.seen(stream) else { panic!("{}", code(&at.proxy, stream)) };
    exchange.header(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn the_login_of_a_cached_token_grows_old() {
    let mut at = rule(|rule| rule["step_up"] = json!({ "max_age": "10m" }));
    let token = minted(json!({ "auth_time": NOW }));
    let first = at.send_token(&token);
    assert!(is_forwarded(&at.proxy, first));
    at.proxy.host.advance(Duration::from_secs(600));
    let second = at.send_token(&token);
    assert!(is_forwarded(&at.proxy, second));
    at.proxy.host.advance(Duration::from_secs(1));
    let third = at.send_token(&token);
    assert_eq!(code(&at.proxy, third), "STEP_UP_REQUIRED");
    assert_eq!(at.proxy.metric("token_cache{hit}"), 2, "it was in the cache");
}

#[test]
fn a_login_that_grows_old_while_the_request_waits_is_refused() {
    let mut at = rule(|rule| {
        rule["step_up"] = json!({ "max_age": "10m" });
        rule["revocation"] = json!("check");
    });
    let stream = at.send_token(&minted(json!({ "auth_time": NOW - 600 })));
    assert!(is_waiting(&at.proxy, stream));
    at.proxy.host.advance(Duration::from_secs(1));
    at.answer_all();
    assert_eq!(code(&at.proxy, stream), "STEP_UP_REQUIRED");
}

#[test]
fn each_answer_has_a_nonce_of_its_own() {
    let mut at = rule(|rule| {
        rule["browser"] =
            json!({ "content_security_policy": "script-src 'nonce-{nonce}'", "nonce_header": "x-csp-nonce" });
    });
    let token = minted(json!({}));
    let mut nonces = Vec::new();
    for _ in 0..3 {
        let stream = at.send_token(&token);
        let nonce = forwarded(&at, stream, "x-csp-nonce").unwrap();
        let answer = at.proxy.respond_with(stream, vec![(":status".to_owned(), "200".to_owned())]);
        let policy = ("content-security-policy".to_owned(), format!("script-src 'nonce-{nonce}'"));
        assert!(answer.contains(&policy), "{answer:?}");
        assert_eq!(nonce.len(), 22);
        nonces.push(nonce);
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn repaired_and_removed_cookies_are_counted() {
    let mut at = rule(|rule| rule["browser"] = json!({ "cookies": [{ "name": "session" }] }));
    let stream = at.send_token(&minted(json!({})));
    let cookies = ["session=a", "=b", "other=c"].map(|cookie| ("set-cookie".to_owned(), cookie.to_owned()));
    at.proxy.respond_with(stream, cookies.to_vec());
    assert_eq!(at.proxy.metric("set_cookies{repaired}"), 1);
    assert_eq!(at.proxy.metric("set_cookies{removed}"), 1);
    let worker = &at.proxy.workers[0];
    assert!(worker.removes_response_trailer(stream, b"set-cookie"), "no cookie comes by a trailer");
    assert!(!worker.removes_response_trailer(stream, b"grpc-status"));
    at.proxy.reset(stream);
    assert!(!at.proxy.workers[0].removes_response_trailer(stream, b"set-cookie"), "nothing of it is left");
}

#[test]
fn what_is_reported_is_counted_and_logged_with_its_rule() {
    let mut at = rule(|rule| rule["mode"] = json!("report"));
    let stream = at.proxy.send(0, Request::get("/api", &[("x-user", "mallory")]));
    assert_eq!(forwarded(&at, stream, "x-user"), None);
    let expired = at.send_token(&minted(json!({ "exp": NOW - 100 })));
    assert_eq!((forwarded(&at, expired, "x-user"), forwarded(&at, expired, "authorization")), (None, None));
    assert_eq!(at.proxy.metric("requests{reported,TOKEN_MISSING,api}"), 1);
    assert_eq!(at.proxy.metric("requests{reported,JWT_EXPIRED,api}"), 1);
    let logged = |at: &Fixture, text: &str| at.proxy.host.log.iter().any(|(_, line)| line.contains(text));
    assert!(logged(&at, "portcullis: reported {"), "{:?}", at.proxy.host.log);
    assert!(logged(&at, r#""code":"JWT_EXPIRED""#) && logged(&at, r#""rule":"api""#));
    assert!(!logged(&at, "portcullis: refused"));
}

#[test]
fn a_condition_that_is_reported_is_counted_each_time() {
    let mut at = rule(|rule| {
        rule["scopes"] = json!({ "all": ["admin"], "mode": "report" });
        rule["step_up"] = json!({ "max_age": "10m", "mode": "report" });
    });
    let token = minted(json!({ "auth_time": NOW - 600 }));
    let first = at.send_token(&token);
    assert_eq!(forwarded(&at, first, "x-user").as_deref(), Some("alice"));
    at.proxy.host.advance(Duration::from_secs(1));
    let second = at.send_token(&token);
    assert_eq!(forwarded(&at, second, "x-user").as_deref(), Some("alice"));
    assert_eq!(at.proxy.metric("reported{SCOPE_INSUFFICIENT,api}"), 2);
    assert_eq!(at.proxy.metric("reported{STEP_UP_REQUIRED,api}"), 1);
    assert_eq!(at.proxy.metric("requests{admitted,none,api}"), 2);
}

#[test]
fn a_reported_request_that_waited_goes_on_without_its_token() {
    let mut at = rule(|rule| {
        rule["mode"] = json!("report");
        rule["revocation"] = json!("check");
    });
    let stream = at.send_token(&minted(json!({})));
    assert!(is_waiting(&at.proxy, stream));
    at.proxy.advance(Duration::from_secs(1));
    assert_eq!((forwarded(&at, stream, "x-user"), forwarded(&at, stream, "authorization")), (None, None));
    assert_eq!(at.proxy.metric("requests{reported,STORE_UNAVAILABLE,api}"), 1);
}

#[test]
fn a_reported_request_is_refused_if_its_headers_cannot_be_cleared_or_its_token_removed() {
    let mut at = rule(|rule| rule["mode"] = json!("report"));
    let mut request = Request::get("/api", &[("x-user", "mallory")]);
    request.exchange.refuses_edits_of = Some(b"x-user".to_vec());
    let stream = at.proxy.send(0, request);
    assert_eq!(code(&at.proxy, stream), "REQUEST_MALFORMED");
    let mut request = Request::get("/api", &[("authorization", "Bearer no-token")]);
    request.exchange.refuses_edits_of = Some(b"authorization".to_vec());
    let stream = at.proxy.send(0, request);
    assert_eq!(code(&at.proxy, stream), "REQUEST_MALFORMED");
    assert!(at.proxy.host.log.iter().all(|(level, _)| *level != Level::Error));
}

const HOP: &str = "spiffe://cluster.local/ns/edge/sa/gateway";
const PRINT: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn the_certificate_that_a_trusted_hop_names_counts_over_its_own_connection_only() {
    let mut at = rule(|rule| {
        rule["binding"] = json!({ "certificate": { "mode": "enforce", "forwarded_by": HOP } });
    });
    let token = bearer(&minted(json!({ "cnf": { "x5t#S256": PRINT } })));
    let other = HEX.replace('e', "f");
    for (uri, forwarded, passes) in [
        (Some(HOP), format!("By={HOP};Hash={HEX}"), true),
        (Some(HOP), format!("By={HOP};Hash={other},By={HOP};Hash={HEX}"), true),
        (Some(HOP), format!("By={HOP};Hash={HEX},By={HOP};Hash={other}"), false),
        (Some(HOP), format!("By=spiffe://cluster.local/ns/edge/sa/other;Hash={HEX}"), false),
        (Some(HOP), format!("Hash={HEX}"), false),
        (Some("spiffe://cluster.local/ns/edge/sa/gateway2"), format!("By={HOP};Hash={HEX}"), false),
        (None, format!("By={HOP};Hash={HEX}"), false),
    ] {
        let headers = [("authorization", token.as_str()), ("x-forwarded-client-cert", forwarded.as_str())];
        let mut request = Request::get("/api", &headers);
        request.exchange.certificate_uri = uri.map(|uri| uri.as_bytes().to_vec());
        let stream = at.proxy.send(0, request);
        assert_eq!(is_forwarded(&at.proxy, stream), passes, "{uri:?} {forwarded}");
        if !passes {
            assert_eq!(code(&at.proxy, stream), "BINDING_MISMATCH");
        }
    }
}
