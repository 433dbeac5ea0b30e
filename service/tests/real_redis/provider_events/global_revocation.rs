//! Requests to end all sessions of a user (draft-parecki-oauth-global-token-revocation).
use super::*;

const HERE: &str = "https://api.example/oauth2/global-token-revocation";

fn request_claims() -> Value {
    json!({ "iss": ISSUER, "aud": HERE, "sub": "caller", "iat": now(), "exp": now() + 60, "jti": random_id() })
}

fn global() -> Value {
    json!({ "global_revocation": { "audiences": [HERE], "subject": "caller" } })
}

fn of_user(sub: &str) -> Value {
    json!({ "sub_id": { "format": "iss_sub", "iss": ISSUER, "sub": sub } })
}

fn ask(stack: &Stack, token: &str, body: &Value) -> (u16, String, Option<String>) {
    ask_raw(
        stack,
        &[("authorization", &format!("Bearer {token}")), ("content-type", "application/json")],
        &body.to_string(),
    )
}

/// The status, the code of the error, and the challenge.
fn ask_raw(stack: &Stack, headers: &[(&str, &str)], body: &str) -> (u16, String, Option<String>) {
    let (status, text, told) = stack.service.post("/oauth2/global-token-revocation", headers, body);
    assert_eq!(told["cache-control"], "no-store");
    assert_eq!(told.contains_key("retry-after"), status == 503);
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(problem.is_null(), status == 204, "{text}");
    let challenge = told.get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(challenge.is_some(), status == 401);
    (status, problem["error"].as_str().unwrap_or_default().to_owned(), challenge)
}

fn status_of(told: (u16, String, Option<String>)) -> (u16, String) {
    (told.0, told.1)
}

#[test]
fn a_request_ends_the_user_once() {
    let stack = stack_with(global());
    let sign = |claims: &Value, typ: &str| typed(&stack.key, typ, claims);
    for (typ, sub) in [("global-token-revocation+jwt", "one"), ("client-authentication+jwt", "two"), ("JWT", "three")] {
        assert_eq!(ask(&stack, &sign(&request_claims(), typ), &of_user(sub)).0, 204, "{typ}");
        assert!(matches!(stack.is(Kind::User, sub), Answer::Before(_)), "{typ}");
    }
    // The draft's other example: an id that both sides know.
    let opaque = json!({ "sub_id": { "format": "opaque", "id": "four" } });
    let token = sign(&request_claims(), "JWT");
    assert_eq!(ask(&stack, &token, &opaque).0, 204);
    assert!(matches!(stack.is(Kind::User, "four"), Answer::Before(_)));
    // A JWT is good for one request, whoever it is about.
    for body in [opaque, of_user("five")] {
        let (status, code, challenge) = ask(&stack, &token, &body);
        assert_eq!((status, code.as_str()), (401, "invalid_token"));
        assert!(challenge.unwrap().contains("error=\"invalid_token\""));
    }
    assert_eq!(stack.is(Kind::User, "five"), Answer::Live);
    // Written after the answer.
    let by = format!("global-token-revocation of {ISSUER}");
    let recorded = || {
        let (_, page) = stack.service.admin("GET", "/v1/audit?limit=1000", "");
        let entries = page["entries"].as_array().unwrap().iter().filter(|entry| entry["by"] == by.as_str());
        let is_whole = |entry: &Value| (&entry["kind"], &entry["iss"]) == (&json!("user"), &json!(ISSUER));
        let subjects = entries.map(|entry| is_whole(entry).then(|| entry["sub"].as_str().unwrap().to_owned()));
        subjects.collect::<Option<Vec<_>>>().unwrap()
    };
    let began = std::time::Instant::now();
    while recorded().len() < 4 && began.elapsed() < std::time::Duration::from_secs(10) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut recorded = recorded();
    recorded.sort();
    assert_eq!(recorded, ["four", "one", "three", "two"]);
    assert_eq!(stack.revocations(), 4);
    let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
    let line = r#"portcullis_provider_events_total{endpoint="global-token-revocation",result="ended"} 4"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_request_that_is_not_authenticated_ends_nobody() {
    let stack = stack_with(global());
    let good = request_claims();
    let with_claims = |members: Value| typed(&stack.key, "JWT", &with(good.clone(), &members));
    let logout = json!({ LOGOUT: {} });
    let stranger = key_of(Alg::EdDSA, "k");
    for token in [
        "x".into(),
        with_claims(json!({ "aud": CLIENT })),
        with_claims(json!({ "aud": "other" })),
        with_claims(json!({ "iss": "https://other.example" })),
        with_claims(json!({ "exp": null })),
        with_claims(json!({ "exp": now() - 60 })),
        with_claims(json!({ "iat": now() + 60 })),
        with_claims(json!({ "iat": now() - 200 })),
        with_claims(json!({ "jti": null })),
        with_claims(json!({ "nonce": "n" })),
        with_claims(json!({ "sid": "s" })),
        with_claims(json!({ "events": logout })),
        typed(&stack.key, "logout+jwt", &good),
        typed(&stack.key, "secevent+jwt", &good),
        typed(&stack.key, "at+jwt", &good),
        typed(&stranger, "JWT", &good),
        stack.key.sign(r#"{"alg":"none"}"#, &good.to_string()),
    ] {
        assert_eq!(status_of(ask(&stack, &token, &of_user("u"))), (401, "invalid_token".into()), "{token}");
    }
    let json = ("content-type", "application/json");
    let body = of_user("u").to_string();
    let token = typed(&stack.key, "JWT", &good);
    for headers in [
        vec![json],
        vec![json, ("authorization", "Basic eDp5")],
        vec![json, ("authorization", "Bearer")],
        vec![json, ("authorization", &token)],
    ] {
        let (status, _, challenge) = ask_raw(&stack, &headers, &body);
        assert_eq!((status, challenge.as_deref()), (401, Some("Bearer realm=\"portcullis\"")), "{headers:?}");
    }
    // None of its tokens serves elsewhere, and none of the others here.
    assert_eq!(log_out(&stack.service, &token).status, 400);
    assert_eq!(push(&stack.service, &typed(&stack.key, "secevent+jwt", &good)).status, 400);
    assert_eq!(stack.revocations(), 0);
    assert_eq!(ask(&stack, &token, &of_user("u")).0, 204, "and the good one was not used up");
}

#[test]
fn each_fault_of_the_subject_has_its_status() {
    let redis = Redis::start();
    let emails = file(&redis, "emails.json", br#"{"alice@example.com": "alice"}"#);
    let key = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key]);
    let provider =
        with(provider(&jwks.uri()), &with(global(), &json!({ "subjects": { "email": { "file": emails } } })));
    let service =
        Running::start(service::Options { providers_file: providers(&redis, &[provider]), ..options(&redis) });
    let stack = Stack { jwks, service, redis, key };
    let told = |sub_id: Value| {
        let token = typed(&stack.key, "JWT", &request_claims());
        status_of(ask(&stack, &token, &json!({ "sub_id": sub_id })))
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(told(json!({ "format": "email", "email": "Alice@example.com" })), is(204, ""));
    assert!(matches!(stack.is(Kind::User, "alice"), Answer::Before(_)));
    let foreign = json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "u" });
    assert_eq!(told(json!({ "format": "email", "email": "bob@example.com" })), is(404, "user_not_found"));
    assert_eq!(told(foreign.clone()), is(403, "insufficient_scope"));
    assert_eq!(told(json!({ "format": "phone_number", "phone_number": "+1" })), is(400, "invalid_request"));
    assert_eq!(told(json!({ "format": "new", "id": "u" })), is(400, "invalid_request"));
    assert_eq!(told(json!({ "format": "opaque" })), is(400, "invalid_request"));
    assert_eq!(told(json!({ "format": "opaque", "id": "u".repeat(3000) })), is(422, "unable_to_log_out"));
    let did = json!({ "format": "did", "url": "did:example:1" });
    assert_eq!(told(json!({ "format": "aliases", "identifiers": [did] })), is(422, "unable_to_log_out"));
    assert_eq!(told(json!({ "format": "aliases", "identifiers": [foreign] })), is(404, "user_not_found"));
    let other = typed(&stack.key, "JWT", &with(request_claims(), &json!({ "sub": "other" })));
    assert_eq!(status_of(ask(&stack, &other, &of_user("u"))), is(403, "insufficient_scope"));
    let token = typed(&stack.key, "JWT", &request_claims());
    let bearer = format!("Bearer {token}");
    for (content_type, body) in [
        ("application/json", "{}".to_owned()),
        ("application/json", String::new()),
        ("application/json", of_user("u").to_string().replace("sub_id", "subject")),
        ("application/x-www-form-urlencoded", of_user("u").to_string()),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", content_type)];
        assert_eq!(status_of(ask_raw(&stack, &headers, &body)), is(400, "invalid_request"), "{content_type} {body}");
    }
    // The file changes: a new colleague.
    std::fs::write(&emails, r#"{"alice@example.com": "alice", "bob@example.com": "bob"}"#).unwrap();
    eventually(NOTICED, || (told(json!({ "format": "email", "email": "bob@example.com" })).0 == 204).then_some(()));
    assert!(matches!(stack.is(Kind::User, "bob"), Answer::Before(_)));
    std::fs::write(&emails, "not a table").unwrap();
    assert_eq!(told(json!({ "format": "email", "email": "bob@example.com" })).0, 204, "the last good one stays");
    assert_eq!(stack.revocations(), 2);
}

#[test]
fn a_request_before_the_keys_is_carried_out_when_they_come() {
    let stack = stack_saying(Says::Status(500), global());
    let token = typed(&stack.key, "JWT", &request_claims());
    assert_eq!(status_of(ask(&stack, &token, &of_user("u"))), (503, "temporarily_unavailable".into()));
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    eventually(NOTICED, || matches!(stack.is(Kind::User, "u"), Answer::Before(_)).then_some(()));
    // The JWT was for that request only.
    assert_eq!(ask(&stack, &token, &of_user("v")).0, 401);
    assert_eq!(stack.is(Kind::User, "v"), Answer::Live);
}

#[test]
fn a_provider_without_permission_has_no_such_endpoint() {
    let stack = stack();
    let token = typed(&stack.key, "JWT", &request_claims());
    let headers = [("authorization", format!("Bearer {token}")), ("content-type", "application/json".into())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let told = stack.service.post_status("/oauth2/global-token-revocation", &headers, &of_user("u").to_string());
    assert_eq!(told, Some(404));
    assert_eq!(stack.revocations(), 0);
}
