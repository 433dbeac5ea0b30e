//! Logout tokens.
use super::*;

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
        metrics.contains(r#"portcullis_provider_events_total{endpoint="backchannel-logout",result="ended"} 3"#),
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
    let service = Running::start(service::Options {
        providers_file: providers(&redis, &[provider(&jwks.uri())]),
        ..options(&redis)
    });
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
    let list = providers(&stack.redis, &[provider(&stack.jwks.uri())]);
    let beside = Running::start(service::Options { providers_file: list, ..options(&stack.redis) });
    assert_eq!(log_out(&beside, &token).status, 400, "another instance knows it too");
    // What is remembered goes away by itself: not before the token is too old, and not long after.
    let names = stack.redis.ask(&["KEYS", "portcullis:*:j:*"]);
    let name = names.lines().find(|line| line.contains(":j:")).unwrap().to_owned();
    let ttl: i64 = stack.redis.ask(&["TTL", &name]).trim_start_matches(':').trim().parse().unwrap();
    assert!((150..=230).contains(&ttl), "{ttl}");
    assert!(!names.contains("alice"));
}

#[test]
fn a_clients_secret_signs_logout_tokens_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client-secret");
    let secret = b"the-secret-of-our-client-32-bytes";
    write_private(&file, &[secret.as_slice(), b"\n"].concat());
    let (rsa, ed) = (key_of(Alg::RS256, "rsa"), key_of(Alg::EdDSA, "k"));
    let jwks = Jwks::publishing(&[&rsa, &ed]);
    let redis = Redis::start();
    let alone = "https://alone.example";
    let members = json!({ "algorithms": ["HS256", "RS256"], "secret_file": file });
    let only = json!({
        "issuer": alone, "algorithms": ["HS512"], "secret_file": file, "jwks_uri": null, "events": null,
    });
    let list = providers(&redis, &[with(provider(&jwks.uri()), &members), with(provider(""), &only)]);
    let service = Running::start(service::Options { providers_file: list, ..options(&redis) });
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
        providers_file: providers(&redis, &[provider(&jwks.uri())]),
        secret_files: secret_files(&redis, &[2, 1]),
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
