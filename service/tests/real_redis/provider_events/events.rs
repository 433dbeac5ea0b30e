//! Security events.
use super::*;

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
    let service = Running::start(service::Options { providers_file: providers(&redis, &list), ..options(&redis) });
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
    let list = providers(&redis, &[provider(&jwks.uri())]);
    let service =
        Running::start(service::Options { providers_file: list, max_unauthenticated_per_peer: 2, ..options(&redis) });
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

/// A pushed event of this type about a user, who may be narrowed down.
fn of_type(profile: &str, name: &str, sub_id: &Value, event: Value) -> Value {
    let uri = format!("https://schemas.openid.net/secevent/{profile}/event-type/{name}");
    with(event_claims(sub_id), &json!({ "events": { uri: event } }))
}

#[test]
fn changes_end_what_the_provider_is_configured_for_and_are_refused_otherwise() {
    let iss_sub = |sub: &str| json!({ "format": "iss_sub", "iss": ISSUER, "sub": sub });
    let device = json!({ "format": "opaque", "id": "d" });
    let on_device = |sub: &str| json!({ "format": "complex", "user": iss_sub(sub), "device": device });
    let changed = |sub: &str, value: &str| {
        of_type(
            "caep",
            "credential-change",
            &iss_sub(sub),
            json!({ "change_type": value, "credential_type": "password" }),
        )
    };
    let compliance = |sub: &str, value: &str| {
        let event = json!({ "previous_status": "compliant", "current_status": value });
        of_type("caep", "device-compliance-change", &on_device(sub), event)
    };
    let assurance = |sub: &str, value: &str| {
        let event = json!({ "namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": value });
        of_type("caep", "assurance-level-change", &iss_sub(sub), event)
    };
    let compromise =
        |sub: &str| of_type("risc", "credential-compromise", &iss_sub(sub), json!({ "credential_type": "password" }));
    let end_user = json!({ "action": "end_user" });
    let configured = stack_with(json!({ "events": { "actions": {
        "credential-change": { "action": "end_user", "when": ["revoke", "delete", "update"] },
        "device-compliance-change": end_user,
        "assurance-level-change": { "action": "end_subject" },
        "credential-compromise": end_user,
        "account-enabled": { "action": "acknowledge" },
        "account-purged": { "action": "refuse" },
    } } }));
    let told = |stack: &Stack, claims: &Value| push(&stack.service, &typed(&stack.key, "secevent+jwt", claims)).status;
    for (claims, sub, ends) in [
        (changed("a", "update"), "a", true),
        (changed("b", "create"), "b", false),
        (compliance("c", "not-compliant"), "c", true),
        (compliance("d", "compliant"), "d", false),
        (assurance("e", "decrease"), "e", true),
        (assurance("f", "increase"), "f", false),
        (compromise("g"), "g", true),
        (of_type("risc", "account-enabled", &iss_sub("h"), json!({})), "h", false),
    ] {
        assert_eq!(told(&configured, &claims), 202, "{claims}");
        assert_eq!(configured.is(Kind::User, sub) != Answer::Live, ends, "{claims}");
    }
    for refused in [
        changed("i", "renewed"),
        assurance("i", "sideways"),
        of_type("risc", "account-purged", &iss_sub("i"), json!({})),
        of_type("caep", "risk-level-change", &iss_sub("i"), json!({ "current_level": "HIGH" })),
    ] {
        assert_eq!(told(&configured, &refused), 400, "{refused}");
    }
    assert_eq!(configured.revocations(), 4);
    let plain = stack();
    for refused in
        [changed("j", "revoke"), compliance("j", "not-compliant"), assurance("j", "decrease"), compromise("j")]
    {
        assert_eq!(told(&plain, &refused), 400, "{refused}");
    }
    assert_eq!(told(&plain, &of_type("risc", "account-purged", &iss_sub("j"), json!({}))), 202);
    assert_eq!(plain.revocations(), 1);
}
