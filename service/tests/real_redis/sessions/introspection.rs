//! What tokens of a session are worth, and when they end.
use super::*;

#[test]
fn an_opaque_session_is_introspected_until_it_is_ended() {
    let stack = stack();
    let binding = json!({ "addresses": ["10.0.0.0/8"], "certificate": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU" });
    let made = stack.create(json!({
        "subject": "alice", "client_id": "app", "scope": "read write", "claims": { "role": "admin" },
        "lifetime": "1h", "binding": binding,
    }));
    let (token, sid) = (text(&made, "access_token"), text(&made, "sid"));
    assert!(opaque_token::is_access_token(token.as_bytes()), "{token}");
    assert_eq!((made["expires_in"].as_u64(), made["token_type"].as_str()), (Some(3600), Some("Bearer")));
    let said = stack.introspect(token);
    for (name, value) in [
        ("active", json!(true)),
        ("iss", json!(OURS)),
        ("sub", json!("alice")),
        ("aud", json!("api")),
        ("client_id", json!("app")),
        ("scope", json!("read write")),
        ("sid", json!(sid)),
        ("jti", made["jti"].clone()),
        ("role", json!("admin")),
        ("token_type", json!("Bearer")),
        ("client_addresses", json!(["10.0.0.0/8"])),
        ("cnf", json!({ "x5t#S256": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU" })),
    ] {
        assert_eq!(said[name], value, "{name} in {said}");
    }
    assert_eq!(said["exp"].as_u64().unwrap() - said["auth_time"].as_u64().unwrap(), 3600);
    assert!(said["iat"].as_u64().unwrap().abs_diff(now()) <= 5);
    assert!(!stack.dead_for_filters(sid));
    let (status, ended) = stack.service.admin("DELETE", &format!("/v1/sessions/{sid}"), r#"{"reason":"left"}"#);
    assert_eq!((status, &ended["ended"]), (200, &json!([sid])), "{ended}");
    assert!(!stack.is_active(token));
    let timed = || stack.service.admin_text("GET", "/metrics", None, "").1;
    eventually(SOON, || timed().contains("portcullis_revocation_lag_seconds_count 1\n").then_some(()));
    assert!(stack.dead_for_filters(sid));
    assert_eq!(stack.service.admin("DELETE", &format!("/v1/sessions/{sid}"), "").0, 404);
    assert_eq!(stack.service.admin("GET", &format!("/v1/sessions/{sid}"), "").0, 404);
}

/// Half of a step, so that the idle timeout stays exact to within one: docs/decisions/0138.
#[test]
fn an_answer_says_how_long_it_may_be_kept() {
    let stack = stack();
    for (idle, seconds) in [(None, 60), (Some("2h"), 30), (Some("320s"), 10), (Some("64s"), 2), (Some("16s"), 0)] {
        let mut session = json!({ "subject": "alice" });
        if let Some(idle) = idle {
            session["idle_timeout"] = idle.into();
        }
        let made = stack.create(session);
        assert_eq!(stack.introspect(text(&made, "access_token"))["portcullis_keep_for"], seconds, "{idle:?}");
    }
    let claims = json!({ "subject": "alice", "claims": { "portcullis_keep_for": 600 } });
    assert_eq!(stack.service.admin("POST", "/v1/sessions", &claims.to_string()).0, 400);
}

#[test]
fn a_jwt_session_is_verified_by_the_published_keys_and_dies_with_its_session() {
    let stack = stack();
    let made = stack.create(json!({ "subject": "alice", "client_id": "app", "format": "jwt", "scope": "read" }));
    let (token, sid) = (text(&made, "access_token"), text(&made, "sid"));
    let (status, jwks) = stack.service.get("/.well-known/jwks.json");
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    assert_eq!((status, jwks["keys"].as_array().unwrap().len()), (200, 1), "{jwks}");
    assert!(jwks["keys"][0].get("d").is_none());
    let header: Value =
        serde_json::from_slice(&mint::from_base64url(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(header["kid"], jwks["keys"][0]["kid"]);
    let claims: Value =
        serde_json::from_slice(&mint::from_base64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!((text(&claims, "iss"), text(&claims, "sub"), text(&claims, "sid")), (OURS, "alice", sid));
    let said = stack.introspect(token);
    for name in ["iss", "sub", "aud", "client_id", "exp", "iat", "auth_time", "scope", "sid", "jti"] {
        assert_eq!(said[name], claims[name], "{name}");
    }
    // A key that was revoked ends what it signed, and a token its jti.
    let revoke = |kind: &str, id: &str| {
        let body = json!({ "kind": kind, "issuer": OURS, "id": id }).to_string();
        assert_eq!(stack.service.admin("POST", "/v1/revocations", &body).0, 201);
    };
    let another = stack.create(json!({ "subject": "bob", "format": "jwt" }));
    revoke("token", text(&another, "jti"));
    assert!(!stack.is_active(text(&another, "access_token")) && stack.is_active(token));
    revoke("key", text(&jwks["keys"][0], "kid"));
    assert!(!stack.is_active(token));
}

#[test]
fn whatever_ends_a_user_client_issuer_or_session_ends_its_introspection_and_refresh() {
    for (kind, id) in [("user", "alice"), ("client", "app"), ("session", ""), ("issuer", "")] {
        let stack = stack();
        let made = stack.create_refreshable();
        let id = if kind == "session" { text(&made, "sid") } else { id };
        let mut body = json!({ "kind": kind, "issuer": OURS });
        if kind != "issuer" {
            body["id"] = id.into();
        }
        assert!(stack.is_active(text(&made, "access_token")));
        assert_eq!(stack.service.admin("POST", "/v1/revocations", &body.to_string()).0, 201);
        assert!(!stack.is_active(text(&made, "access_token")), "{kind}");
        let (status, problem) = stack.refresh(text(&made, "refresh_token"));
        assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"), "{kind}");
    }
}

#[test]
fn what_is_not_a_token_of_ours_is_not_active() {
    let stack = stack();
    let made = stack.create_refreshable();
    let token = text(&made, "access_token");
    let parsed = OpaqueToken::parse(Purpose::Access, token.as_bytes()).unwrap();
    let other = stack.create(json!({ "subject": "mallory" }));
    let theirs = OpaqueToken::parse(Purpose::Access, text(&other, "access_token").as_bytes()).unwrap();
    let minted = SigningKey::generate(Alg::ES256, "x");
    let forged =
        minted.mint(&json!({ "iss": OURS, "sub": "alice", "sid": made["sid"], "jti": "x", "exp": now() + 60 }));
    for bad in [
        // Right form and checksum, and somebody guessed or changed the rest.
        OpaqueToken { random: [0; 32], ..parsed }.write(),
        OpaqueToken { tag: [0; 16], ..parsed }.write(),
        OpaqueToken { sid: parsed.sid, ..theirs }.write(),
        OpaqueToken { purpose: Purpose::Refresh, ..parsed }.write(),
        text(&made, "refresh_token").to_owned(),
        token[..token.len() - 1].to_owned(),
        format!("{token}x"),
        forged,
        "a.b.c".to_owned(),
        "x".repeat(100_000),
    ] {
        assert!(!stack.is_active(&bad), "{bad}");
    }
    assert!(stack.is_active(token));
}

#[test]
fn a_session_that_lies_unused_ends_and_one_that_is_used_does_not() {
    let stack = stack();
    let idle = json!({ "subject": "alice", "idle_timeout": "2s" });
    let (used, unused) = (stack.create(idle.clone()), stack.create(idle));
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while std::time::Instant::now() < until {
        assert!(stack.is_active(text(&used, "access_token")));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!stack.is_active(text(&unused, "access_token")));
    assert_eq!(stack.service.admin("GET", &format!("/v1/sessions/{}", text(&unused, "sid")), "").0, 404);
    eventually(Duration::from_secs(6), || {
        // Looking is not using.
        (stack.service.admin("GET", &format!("/v1/sessions/{}", text(&used, "sid")), "").0 == 404).then_some(())
    });
}

#[test]
fn a_session_ends_with_its_lifetime_and_every_name_has_an_expiry() {
    let stack = stack();
    let made = stack.create(json!({ "subject": "alice", "lifetime": "2s", "format": "jwt" }));
    let opaque = stack.create(json!({ "subject": "alice", "lifetime": "10s", "access_lifetime": "2s" }));
    assert!(stack.is_active(text(&made, "access_token")) && stack.is_active(text(&opaque, "access_token")));
    let endless = "local found = {} for _, name in ipairs(redis.call('KEYS', '*')) do \
         if redis.call('PTTL', name) == -1 and not string.find(name, ':sentinel$') \
         and not string.find(name, ':head$') and not string.find(name, ':log$') then table.insert(found, name) end \
         end return found";
    let endless = stack.redis.ask(&["EVAL", endless, "0"]);
    assert_eq!(endless, "*1\r\n$21\r\nportcullis:{00}:audit\r\n");
    eventually(SOON, || (!stack.is_active(text(&made, "access_token"))).then_some(()));
    eventually(SOON, || (!stack.is_active(text(&opaque, "access_token"))).then_some(()));
    assert_eq!(stack.service.admin("GET", &format!("/v1/sessions/{}", text(&opaque, "sid")), "").0, 200);
}

#[test]
fn a_dump_of_redis_names_nobody_and_holds_no_token() {
    let stack = stack();
    let made = stack.create(json!({
        "subject": "alice-liddell", "client_id": "app", "refresh": true, "claims": { "mail": "alice@example.org" },
    }));
    stack.service.admin("DELETE", "/v1/subjects/bob-builder/sessions", r#"{"reason":"a-private-reason"}"#);
    stack.redis.ask(&["SAVE"]);
    let dump = std::fs::read(stack.redis.directory().join("dump.rdb")).unwrap();
    let mut log = Vec::new();
    for entry in walk(stack.redis.directory()) {
        log.extend(std::fs::read(entry).unwrap());
    }
    for secret in [
        "alice-liddell",
        "alice@example.org",
        "bob-builder",
        "a-private-reason",
        text(&made, "access_token"),
        text(&made, "refresh_token"),
        &text(&made, "access_token")[26..],
    ] {
        for bytes in [&dump, &log] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn what_cannot_be_told_is_503_and_never_inactive() {
    let stack = stack();
    let made = stack.create_refreshable();
    let ask = |path: &str, form: &[(&str, &str)]| {
        let body = form_urlencoded::Serializer::new(format!("client_id=app&client_secret={SECRET}&"))
            .extend_pairs(form)
            .finish();
        stack.service.post(path, &[("content-type", "application/x-www-form-urlencoded")], &body)
    };
    let token = text(&made, "access_token");
    stack.redis.ask(&["FLUSHALL"]);
    for (path, form) in [
        ("/oauth2/introspect", vec![("token", token)]),
        ("/oauth2/revoke", vec![("token", token)]),
        ("/oauth2/token", vec![("grant_type", "refresh_token"), ("refresh_token", text(&made, "refresh_token"))]),
    ] {
        let (status, body, headers) = ask(path, &form);
        assert_eq!((status, body.contains("temporarily_unavailable")), (503, true), "{path} {body}");
        assert!(headers.contains_key("retry-after"));
    }
    assert_eq!(stack.service.admin("POST", "/v1/sessions", r#"{"subject":"alice"}"#).0, 503);
}

#[test]
fn a_session_that_somebody_tampered_with_is_no_session() {
    let stack = stack();
    let (alice, mallory) = (stack.create(json!({ "subject": "alice" })), stack.create(json!({ "subject": "mallory" })));
    let names = stack.redis.ask(&["KEYS", "portcullis:*:s:*"]);
    let names: Vec<&str> = names.lines().filter(|line| line.starts_with("portcullis:")).collect();
    assert_eq!(names.len(), 2);
    // Mallory can write to Redis, and puts Alice's data into the place of a session of Mallory's own.
    let copy = "redis.call('HSET', ARGV[2], 'd', redis.call('HGET', ARGV[1], 'd'))";
    stack.redis.ask(&["EVAL", copy, "0", names[0], names[1]]);
    let said = [&alice, &mallory]
        .map(|made| stack.as_client("app", SECRET, "/oauth2/introspect", &[("token", text(made, "access_token"))]));
    assert_eq!(said.iter().filter(|(status, _)| *status == 503).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|(status, said)| *status == 200 && said["active"] == true).count(), 1, "{said:?}");
}
