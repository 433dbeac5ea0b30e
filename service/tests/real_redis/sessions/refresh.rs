//! Refresh tokens: exchanged, raced for and stolen.
use super::*;

#[test]
fn a_refresh_gives_new_tokens_and_the_old_access_token_lives_to_its_end() {
    let stack = stack();
    let made = stack.create_refreshable();
    assert_eq!(made["expires_in"], 300);
    let (status, second) = stack.refresh(text(&made, "refresh_token"));
    assert_eq!(status, 200, "{second}");
    assert_eq!(second["sid"], made["sid"]);
    assert_ne!(second["refresh_token"], made["refresh_token"]);
    assert_ne!(second["jti"], made["jti"]);
    assert!(stack.is_active(text(&made, "access_token")) && stack.is_active(text(&second, "access_token")));
    // A session keeps so many access tokens, so the first is dropped at last.
    let mut last = second;
    for _ in 0..3 {
        last = stack.refresh(text(&last, "refresh_token")).1;
    }
    assert!(!stack.is_active(text(&made, "access_token")) && stack.is_active(text(&last, "access_token")));
    // Fewer scopes, never others.
    let form = |scope: &'static str, token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", scope)];
        stack.as_client("app", SECRET, "/oauth2/token", &form)
    };
    let (status, problem) = form("read admin", text(&last, "refresh_token"));
    assert_eq!((status, text(&problem, "error")), (400, "invalid_scope"));
    let (status, less) = form("read", text(&last, "refresh_token"));
    assert_eq!((status, less["scope"].as_str()), (200, Some("read")), "{less}");
    assert_eq!(stack.introspect(text(&less, "access_token"))["scope"], "read");
    let (_, again) = stack.refresh(text(&less, "refresh_token"));
    assert_eq!(again["scope"], "read write");
}

#[test]
fn reuse_of_a_refresh_token_ends_the_session_and_is_remembered() {
    let stack = stack_with(|options| options.refresh_grace = Duration::ZERO);
    let made = stack.create_refreshable();
    let (_, second) = stack.refresh(text(&made, "refresh_token"));
    std::thread::sleep(Duration::from_millis(5));
    let (status, problem) = stack.refresh(text(&made, "refresh_token"));
    assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"), "{problem}");
    for tokens in [&made, &second] {
        assert!(!stack.is_active(text(tokens, "access_token")));
        assert_eq!(stack.refresh(text(tokens, "refresh_token")).0, 400);
    }
    assert!(stack.dead_for_filters(text(&made, "sid")));
    let entry = stack.audited("refresh.reuse");
    assert_eq!((text(&entry, "by"), text(&entry, "sid")), ("client:app", text(&made, "sid")));
    // As the filter sees a JWT session: by its sid alone.
    let jwt = stack.create(json!({ "subject": "bob", "client_id": "app", "refresh": true, "format": "jwt" }));
    stack.refresh(text(&jwt, "refresh_token"));
    std::thread::sleep(Duration::from_millis(5));
    stack.refresh(text(&jwt, "refresh_token"));
    assert!(stack.dead_for_filters(text(&jwt, "sid")) && !stack.is_active(text(&jwt, "access_token")));
}

#[test]
fn of_two_refreshes_at_once_one_wins_and_the_session_lives() {
    let stack = stack_with(|options| options.refresh_grace = Duration::from_secs(10));
    for _ in 0..10 {
        let made = stack.create_refreshable();
        let token = text(&made, "refresh_token");
        let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| stack.refresh(token))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 200);
        assert_eq!((won.len(), lost.len()), (1, 3), "{answers:?}");
        for (status, problem) in lost {
            assert_eq!((*status, text(problem, "error")), (400, "invalid_grant"));
            assert!(text(problem, "error_description").contains("a moment ago"), "{problem}");
        }
        assert!(stack.is_active(text(&won[0].1, "access_token")));
        assert_eq!(stack.refresh(text(&won[0].1, "refresh_token")).0, 200);
    }
}

#[test]
fn after_the_grace_the_loser_of_a_race_is_a_thief() {
    let stack = stack_with(|options| options.refresh_grace = Duration::from_secs(1));
    let made = stack.create_refreshable();
    let (_, second) = stack.refresh(text(&made, "refresh_token"));
    let (_, raced) = stack.refresh(text(&made, "refresh_token"));
    assert!(text(&raced, "error_description").contains("a moment ago"), "{raced}");
    eventually(SOON, || {
        let (_, problem) = stack.refresh(text(&made, "refresh_token"));
        (!text(&problem, "error_description").contains("a moment ago")).then_some(())
    });
    assert!(!stack.is_active(text(&second, "access_token")));
    // An older one than the one before is no race, at any time.
    let made = stack.create_refreshable();
    let (_, second) = stack.refresh(text(&made, "refresh_token"));
    let (_, third) = stack.refresh(text(&second, "refresh_token"));
    stack.refresh(text(&made, "refresh_token"));
    assert!(!stack.is_active(text(&third, "access_token")));
}

#[test]
fn who_knows_a_sid_cannot_end_the_session_with_a_refresh_token_of_its_own_making() {
    let stack = stack_with(|options| options.refresh_grace = Duration::ZERO);
    let made = stack.create_refreshable();
    let ours = OpaqueToken::parse(Purpose::Refresh, text(&made, "refresh_token").as_bytes()).unwrap();
    for forged in [
        OpaqueToken { random: [7; 32], ..ours },
        OpaqueToken { random: [7; 32], tag: [7; 16], ..ours },
        OpaqueToken {
            purpose: Purpose::Refresh,
            ..OpaqueToken::parse(Purpose::Access, text(&made, "access_token").as_bytes()).unwrap()
        },
    ] {
        let (status, problem) = stack.refresh(&forged.write());
        assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"));
    }
    // Nor can another client, with the true one.
    let form = [("grant_type", "refresh_token"), ("refresh_token", text(&made, "refresh_token"))];
    let (status, problem) = stack.as_client("other", OTHER_SECRET, "/oauth2/token", &form);
    assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"), "{problem}");
    let (status, problem) =
        stack.as_client("other", OTHER_SECRET, "/oauth2/revoke", &[("token", text(&made, "access_token"))]);
    assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"), "{problem}");
    assert!(stack.is_active(text(&made, "access_token")));
    assert_eq!(stack.refresh(text(&made, "refresh_token")).0, 200);
}

#[test]
fn a_reused_refresh_token_gets_nothing_also_when_redis_does_not_confirm() {
    let stack = stack_with(|options| options.refresh_grace = Duration::ZERO);
    // One replica is asked for, and there is none: everything is written and nothing confirmed.
    let sessions = SessionOptions { refresh_grace: Duration::ZERO, ..session_options(&stack.dir) };
    let confirm_timeout = Duration::from_millis(100);
    let unconfirmed =
        Running::start(service::Options { sessions, min_replicas: 1, confirm_timeout, ..options(&stack.redis) });
    let refresh = |token: &str| {
        let body = format!("client_id=app&client_secret={SECRET}&grant_type=refresh_token&refresh_token={token}");
        let (status, text, _) =
            unconfirmed.post("/oauth2/token", &[("content-type", "application/x-www-form-urlencoded")], &body);
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let made = stack.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": "jwt" }));
    // Refusing the one that is current would leave its client without any.
    let (status, second) = refresh(text(&made, "refresh_token"));
    assert_eq!(status, 200, "{second}");
    std::thread::sleep(Duration::from_millis(5));
    // A JWT needs no record in Redis to be good: whoever stole the first token must not get one.
    let (status, problem) = refresh(text(&made, "refresh_token"));
    assert_eq!((status, text(&problem, "error")), (400, "invalid_grant"), "{problem}");
    eventually(SOON, || stack.dead_for_filters(text(&made, "sid")).then_some(()));
    assert_eq!(refresh(text(&second, "refresh_token")).0, 503, "its end is not confirmed either");
}

#[test]
fn a_stolen_session_ends_also_when_redis_never_said_that_it_was_stolen() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let sessions = SessionOptions { refresh_grace: Duration::ZERO, ..session_options(&dir) };
    let confirm_timeout = Duration::from_millis(300);
    let service = Running::start(service::Options { sessions, confirm_timeout, ..options(&redis) });
    let stack = Stack { redis, service, dir };
    let made = stack.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": "jwt" }));
    assert_eq!(stack.refresh(text(&made, "refresh_token")).0, 200);
    let body = format!(
        "client_id=app&client_secret={SECRET}&grant_type=refresh_token&refresh_token={}",
        text(&made, "refresh_token")
    );
    stack.ask_and_hang_up(stack.service.at.listen, "POST /oauth2/token", &body);
    // In one piece: what waited is done after all of it, when nobody listens for its reply any more.
    let mut busy = std::net::TcpStream::connect(("127.0.0.1", stack.redis.port)).unwrap();
    std::io::Write::write_all(&mut busy, b"CLIENT UNPAUSE\r\nEVAL \"for i = 1, 15e7 do end\" 0\r\n").unwrap();
    eventually(SOON * 6, || stack.dead_for_filters(text(&made, "sid")).then_some(()));
}

#[test]
fn a_refresh_token_needs_a_client_that_may_refresh() {
    let stack = stack();
    for client in ["gateway", "nobody"] {
        let body = json!({ "subject": "a", "refresh": true, "client_id": client }).to_string();
        assert_eq!(stack.service.admin("POST", "/v1/sessions", &body).1["field"], "client_id");
    }
    let keyless = stack_with(|options| options.signing_keys.clear());
    let (status, problem) = keyless.service.admin("POST", "/v1/sessions", r#"{"subject":"a","format":"jwt"}"#);
    assert_eq!((status, problem["field"].as_str()), (400, Some("format")), "{problem}");
}
