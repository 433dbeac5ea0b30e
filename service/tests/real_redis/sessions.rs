//! Sessions from their making to their end, and what attackers try with their tokens.
use std::path::PathBuf;
use std::time::Duration;

use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use service::{KeySource, SessionOptions};
use wire::opaque_token::{self, OpaqueToken, Purpose};
use wire::{Answer, Kind};

use crate::support::*;

pub const OURS: &str = "https://sessions.example";
pub const SECRET: &str = "a-client-secret-of-at-least-32-bytes";
const OTHER_SECRET: &str = "another-secret-of-at-least-32-bytes!";
const SOON: Duration = Duration::from_secs(5);

struct Stack {
    redis: Redis,
    service: Running,
    dir: tempfile::TempDir,
}

pub fn session_options(dir: &tempfile::TempDir) -> SessionOptions {
    let clients = json!({ "clients": [
        { "client_id": "app", "secret_files": ["app"], "may": ["introspect", "refresh", "revoke"] },
        { "client_id": "other", "secret_files": ["other"], "may": ["introspect", "refresh", "revoke"] },
        { "client_id": "gateway", "secret_files": ["app"], "may": ["introspect"] },
        { "client_id": "mute", "secret_files": ["app"], "may": [] },
    ]});
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("app", SECRET);
    write("other", OTHER_SECRET);
    write("clients.json", &clients.to_string());
    SessionOptions {
        issuer: OURS.into(),
        audience: vec!["api".into()],
        lifetime: Duration::from_secs(12 * 3600),
        access_lifetime: Duration::from_secs(300),
        refresh_grace: Duration::from_secs(1),
        signing_keys: vec![KeySource::File(signing_key(dir, "signing.pem", Alg::ES256).0)],
        token_sessions: 4,
        token_timeout: Duration::from_secs(3),
        clients: Some(dir.path().join("clients.json")),
        secrets: vec![],
    }
}

fn signing_key(dir: &tempfile::TempDir, name: &str, alg: Alg) -> (PathBuf, String) {
    let key = SigningKey::generate(alg, "x");
    let path = dir.path().join(name);
    // As careful operators do: the file is all there or not at all.
    std::fs::write(dir.path().join("new"), key.private_pem().unwrap()).unwrap();
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    (path, key.thumbprint())
}

fn stack() -> Stack {
    stack_with(|_| {})
}

fn stack_with(change: impl FnOnce(&mut SessionOptions)) -> Stack {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut sessions = session_options(&dir);
    change(&mut sessions);
    let service = Running::start(service::Options { sessions: Some(sessions), ..options(&redis) });
    Stack { redis, service, dir }
}

impl Stack {
    fn create(&self, body: Value) -> Value {
        let (status, made) = self.service.admin("POST", "/v1/sessions", &body.to_string());
        assert_eq!(status, 201, "{made}");
        made
    }

    fn create_refreshable(&self) -> Value {
        self.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "scope": "read write" }))
    }

    fn as_client(&self, client: &str, secret: &str, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("client_id", client), ("client_secret", secret)])
            .extend_pairs(form)
            .finish();
        self.post(path, &[("content-type", "application/x-www-form-urlencoded")], &body)
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, text, _) = self.service.post(path, headers, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn introspect(&self, token: &str) -> Value {
        let (status, said) = self.as_client("gateway", SECRET, "/oauth2/introspect", &[("token", token)]);
        assert_eq!(status, 200, "{said}");
        said
    }

    fn is_active(&self, token: &str) -> bool {
        let said = self.introspect(token);
        let active = said["active"].as_bool().unwrap();
        // RFC 7662 section 2.2: nothing more is said of what is not active.
        assert!(active || said == json!({ "active": false }), "{said}");
        active
    }

    fn refresh(&self, token: &str) -> (u16, Value) {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.as_client("app", SECRET, "/oauth2/token", &form)
    }

    /// Sends a request whose writes have to wait a moment, and is gone before they are done.
    fn ask_and_hang_up(&self, at: std::net::SocketAddr, line: &str, body: &str) {
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        // The OAuth endpoints take one way to authenticate.
        let request = match line.contains("/oauth2/") {
            true => request.replace(&format!("authorization: Bearer {ADMIN}\r\n"), ""),
            false => request,
        };
        self.redis.ask(&["CLIENT", "PAUSE", "700", "WRITE"]);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        // Not sooner than that: a request that was never begun ends nothing.
        let waits = || !self.redis.ask(&["INFO", "clients"]).contains("blocked_clients:0");
        eventually(SOON, || waits().then_some(()));
    }

    fn dead_for_filters(&self, sid: &str) -> bool {
        let key = secret(1).derive().revocation_key(Kind::Session, OURS, sid.as_bytes());
        self.service.check(&[key]) == Ok(vec![Answer::Dead])
    }

    fn audit(&self) -> Vec<Value> {
        let (status, page) = self.service.admin("GET", "/v1/audit?limit=1000", "");
        assert_eq!(status, 200, "{page}");
        page["entries"].as_array().unwrap().clone()
    }

    fn audited(&self, action: &str) -> Value {
        let entries = self.audit();
        let found = entries.iter().find(|entry| entry["action"] == action);
        found.unwrap_or_else(|| panic!("no {action} in {entries:?}")).clone()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

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
fn a_client_revokes_by_either_token_and_nonsense_is_no_error() {
    let stack = stack();
    for name in ["access_token", "refresh_token"] {
        let made = stack.create_refreshable();
        let (status, body) = stack.as_client(
            "app",
            SECRET,
            "/oauth2/revoke",
            &[("token", text(&made, name)), ("token_type_hint", "nonsense")],
        );
        assert_eq!((status, body.as_str()), (200, Some("")), "{name}");
        assert!(!stack.is_active(text(&made, "access_token")) && stack.dead_for_filters(text(&made, "sid")), "{name}");
        assert_eq!(stack.refresh(text(&made, "refresh_token")).0, 400);
        assert_eq!(stack.as_client("app", SECRET, "/oauth2/revoke", &[("token", text(&made, name))]).0, 200);
    }
    assert_eq!(stack.as_client("app", SECRET, "/oauth2/revoke", &[("token", "nonsense")]).0, 200);
    assert_eq!(text(&stack.audited("session.end"), "by"), "client:app");
}

#[test]
fn the_endpoints_want_a_known_client_a_form_and_each_parameter_once() {
    let stack = stack();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let credentials = format!("client_id=app&client_secret={SECRET}");
    let with = |rest: &str| format!("{credentials}&{rest}");
    for path in ["/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"] {
        for (expected, headers, body) in [
            ((401, "invalid_client"), vec![form], "token=x".to_owned()),
            ((401, "invalid_client"), vec![form], "client_id=app&client_secret=wrong&token=x".to_owned()),
            ((401, "invalid_client"), vec![form], format!("client_id=nobody&client_secret={SECRET}&token=x")),
            ((401, "invalid_client"), vec![form], format!("client_id=other&client_secret={SECRET}&token=x")),
            ((401, "invalid_client"), vec![form, ("authorization", "Basic YXBwOndyb25n")], "token=x".to_owned()),
            ((401, "invalid_client"), vec![form, ("authorization", "Bearer x")], "token=x".to_owned()),
            ((400, "invalid_request"), vec![form, ("authorization", "Basic YXBwOndyb25n")], with("token=x")),
            ((400, "invalid_request"), vec![("content-type", "application/json")], with("token=x")),
            ((400, "invalid_request"), vec![], with("token=x")),
            ((400, "invalid_request"), vec![form], with("token=x&token=y")),
            ((406, "invalid_request"), vec![form, ("accept", "text/html")], with("token=x")),
            ((400, "invalid_request"), vec![form], with("")),
        ] {
            let (status, problem) = stack.post(path, &headers, &body);
            assert_eq!((status, text(&problem, "error")), expected, "{path} {headers:?} {body}");
        }
        let (status, _, headers) = stack.service.post(path, &[form], "token=x");
        assert_eq!(status, 401);
        assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(stack.service.get(path).0, 405);
        // It is refused before all of it is sent: who is still sending may see no more than a closed connection.
        let status = stack.service.post_status(path, &[form], &"x".repeat(300_000));
        assert!(matches!(status, None | Some(413)), "{status:?}");
        let (_, problem) = stack.as_client("mute", SECRET, path, &[("token", "x"), ("grant_type", "refresh_token")]);
        assert_eq!(text(&problem, "error"), "unauthorized_client");
    }
    let grant = [("grant_type", "password")];
    let (_, problem) = stack.as_client("app", SECRET, "/oauth2/token", &grant);
    assert_eq!(text(&problem, "error"), "unsupported_grant_type");
}

#[test]
fn a_client_may_authenticate_by_basic_and_its_new_secret_is_known_soon() {
    use base64::Engine as _;
    let stack = stack();
    let basic = |secret: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("gateway:{secret}"));
        let authorization = format!("Basic {pair}");
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("authorization", authorization.as_str())];
        stack.post("/oauth2/introspect", &headers, "token=x").0
    };
    assert_eq!(basic(SECRET), 200);
    std::fs::write(stack.dir.path().join("app"), OTHER_SECRET).unwrap();
    eventually(SOON, || (basic(OTHER_SECRET) == 200).then_some(()));
    assert_eq!(basic(SECRET), 401);
    // A file that is broken for a moment changes nothing.
    std::fs::write(stack.dir.path().join("clients.json"), "{").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(basic(OTHER_SECRET), 200);
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
         if redis.call('PTTL', name) == -1 and not string.find(name, ':sentinel$') then table.insert(found, name) end \
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
fn subjects_are_listed_by_pages_and_ended_one_all_but_one_and_all() {
    let stack = stack();
    let made: Vec<Value> = (0..5).map(|_| stack.create(json!({ "subject": "a b/c" }))).collect();
    let other = stack.create(json!({ "subject": "bob" }));
    let path = "/v1/subjects/a%20b%2Fc/sessions";
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = stack.service.admin("GET", &format!("{path}?limit=2{cursor}"), "");
        assert_eq!(status, 200, "{page}");
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 2 && sessions.iter().all(|session| session["subject"] == "a b/c"));
        listed.extend(sessions.iter().map(|session| text(session, "sid").to_owned()));
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut expected: Vec<String> = made.iter().map(|made| text(made, "sid").to_owned()).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    assert_eq!(stack.service.admin("DELETE", &format!("/v1/sessions/{}", text(&made[0], "sid")), "").0, 200);
    // Who mistypes the one that stays ends none.
    let wrong = format!("{path}?except={}", text(&other, "sid"));
    assert_eq!(stack.service.admin("DELETE", &wrong, "").1["field"], "except");
    let kept = text(&made[4], "sid");
    let (status, ended) = stack.service.admin("DELETE", &format!("{path}?except={kept}"), "");
    assert_eq!((status, ended["ended"].as_array().map(Vec::len)), (200, Some(3)), "{ended}");
    for made in &made {
        assert_eq!(stack.is_active(text(made, "access_token")), text(made, "sid") == kept);
        assert_eq!(stack.dead_for_filters(text(made, "sid")), text(made, "sid") != kept);
    }
    let (_, ended) = stack.service.admin("DELETE", path, "");
    assert_eq!(ended["ended"], json!([kept]));
    let user = secret(1).derive().revocation_key(Kind::User, OURS, b"a b/c");
    assert_eq!(stack.service.check(&[user]), Ok(vec![Answer::Before(ended["before"].as_u64().unwrap())]));
    assert!(made.iter().all(|made| !stack.is_active(text(made, "access_token"))));
    assert!(stack.is_active(text(&other, "access_token")));
    assert_eq!(stack.service.admin("GET", &format!("{path}?colour=red"), "").1["field"], "colour");
    assert_eq!(stack.service.admin("GET", &format!("{path}?limit=201"), "").1["field"], "limit");
}

#[test]
fn one_session_that_cannot_be_ended_keeps_no_other_from_it() {
    let stack = stack();
    let names = || {
        let names = stack.redis.ask(&["KEYS", "portcullis:*:s:*"]);
        names.lines().filter(|line| line.starts_with("portcullis:")).map(str::to_owned).collect::<Vec<_>>()
    };
    let stays = stack.create(json!({ "subject": "alice" }));
    let of_stays = names();
    let made: Vec<Value> = (0..20).map(|_| stack.create(json!({ "subject": "alice" }))).collect();
    for name in names().iter().filter(|name| !of_stays.contains(name)).take(3) {
        stack.redis.ask(&["HSET", name, "d", "broken"]);
    }
    let path = format!("/v1/subjects/alice/sessions?except={}", text(&stays, "sid"));
    let (status, problem) = stack.service.admin("DELETE", &path, "");
    assert_eq!((status, text(&problem, "code")), (503, "store_failed"), "{problem}");
    let dead = made.iter().filter(|made| stack.dead_for_filters(text(made, "sid"))).count();
    assert_eq!((dead, stack.is_active(text(&stays, "access_token"))), (17, true));
}

#[test]
fn sessions_outlive_the_rotation_of_their_secret_until_it_is_gone() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let with = |secrets: &[u8]| {
        let secrets = secrets.iter().map(|byte| secret(*byte)).collect();
        let sessions = Some(SessionOptions { secrets, ..session_options(&dir) });
        Running::start(service::Options { sessions, ..options(&redis) })
    };
    let mut stack = Stack { service: with(&[18]), redis: Redis::start(), dir: tempfile::tempdir().unwrap() };
    let old = stack.create_refreshable();
    stack.service = with(&[19, 18]);
    let new = stack.create_refreshable();
    assert!(stack.is_active(text(&old, "access_token")) && stack.is_active(text(&new, "access_token")));
    let (_, page) = stack.service.admin("GET", "/v1/subjects/alice/sessions", "");
    assert_eq!(page["sessions"].as_array().unwrap().len(), 2, "{page}");
    let (status, refreshed) = stack.refresh(text(&old, "refresh_token"));
    assert_eq!(status, 200);
    assert_eq!(stack.audit().len(), 3);
    stack.service = with(&[19]);
    assert!(!stack.is_active(text(&refreshed, "access_token")) && stack.is_active(text(&new, "access_token")));
    assert_eq!(stack.refresh(text(&refreshed, "refresh_token")).0, 400);
    // What a key is needed for that is gone is shown as unreadable, and stops nothing.
    let entries = stack.audit();
    assert!(entries.iter().any(|entry| entry.get("action").is_none()), "{entries:?}");
}

#[test]
fn who_hangs_up_does_not_keep_the_end_of_a_stolen_session_from_the_filters() {
    let stack = stack();
    let made = stack.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": "jwt" }));
    let old = text(&made, "refresh_token");
    let (_, newer) = stack.refresh(old);
    // The grace ends sooner if another one follows.
    assert_eq!(stack.refresh(text(&newer, "refresh_token")).0, 200);
    let body = format!("client_id=app&client_secret={SECRET}&grant_type=refresh_token&refresh_token={old}");
    stack.ask_and_hang_up(stack.service.at.listen, "POST /oauth2/token", &body);
    eventually(SOON, || stack.dead_for_filters(text(&made, "sid")).then_some(()));
}

#[test]
fn an_end_that_was_asked_for_is_carried_out_whoever_hangs_up() {
    let stack = stack();
    let made = |subject: &str| stack.create(json!({ "subject": subject, "client_id": "app", "format": "jwt" }));
    let is_dead = |made: &Value| eventually(SOON, || stack.dead_for_filters(text(made, "sid")).then_some(()));
    let (listen, admin) = (stack.service.at.listen, stack.service.at.admin);

    let revoked = made("alice");
    let body = format!("client_id=app&client_secret={SECRET}&token={}", text(&revoked, "access_token"));
    stack.ask_and_hang_up(listen, "POST /oauth2/revoke", &body);
    is_dead(&revoked);

    let ended = made("bob");
    stack.ask_and_hang_up(admin, &format!("DELETE /v1/sessions/{}", text(&ended, "sid")), "");
    is_dead(&ended);

    let (stays, others) = (made("carol"), [made("carol"), made("carol")]);
    let path = format!("DELETE /v1/subjects/carol/sessions?except={}", text(&stays, "sid"));
    stack.ask_and_hang_up(admin, &path, "");
    others.iter().for_each(is_dead);
    assert!(!stack.dead_for_filters(text(&stays, "sid")));

    // Of a bulk what came in, also what was not among the first to be written.
    let of = |subject: &str| json!({ "kind": "user", "issuer": OURS, "id": subject }).to_string();
    let lines = format!("{}{}{}\n", of("dave"), "\n".repeat(300), of("eve"));
    stack.ask_and_hang_up(admin, "POST /v1/revocations/bulk", &lines);
    for subject in ["dave", "eve"] {
        let key = secret(1).derive().revocation_key(Kind::User, OURS, subject.as_bytes());
        let is_over = || matches!(stack.service.check(&[key]).as_deref(), Ok([Answer::Before(_)]));
        eventually(SOON, || is_over().then_some(()));
    }

    // And what was done is remembered.
    let done = |action: &str, by: &str| {
        let is_it = |entry: &Value| entry["action"] == action && entry["by"] == by && entry["outcome"] == "done";
        eventually(SOON, || stack.audit().iter().any(is_it).then_some(()));
    };
    done("session.end", "client:app");
    done("session.end", "admin");
    done("session.end_all", "admin");
}

#[test]
fn a_service_that_stops_finishes_what_was_begun_for_who_hung_up() {
    let mut stack = stack();
    let made = stack.create(json!({ "subject": "alice" }));
    let sid = text(&made, "sid").to_owned();
    stack.ask_and_hang_up(stack.service.at.admin, &format!("DELETE /v1/sessions/{sid}"), "");
    // Ends the old service while its writes still wait.
    let sessions = Some(session_options(&stack.dir));
    stack.service = Running::start(service::Options { sessions, ..options(&stack.redis) });
    assert!(stack.dead_for_filters(&sid));
}

#[test]
fn a_reused_refresh_token_gets_nothing_also_when_redis_does_not_confirm() {
    let stack = stack_with(|options| options.refresh_grace = Duration::ZERO);
    // One replica is asked for, and there is none: everything is written and nothing confirmed.
    let sessions = Some(SessionOptions { refresh_grace: Duration::ZERO, ..session_options(&stack.dir) });
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
    let sessions = Some(SessionOptions { refresh_grace: Duration::ZERO, ..session_options(&dir) });
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
    std::io::Write::write_all(&mut busy, b"CLIENT UNPAUSE\r\nEVAL \"for i = 1, 4e8 do end\" 0\r\n").unwrap();
    eventually(SOON * 2, || stack.dead_for_filters(text(&made, "sid")).then_some(()));
}

#[test]
fn a_session_that_is_being_made_while_its_subjects_list_is_full_is_in_it() {
    let stack = stack();
    // What this one writes is there at once, and goes on when the replica has it.
    let (replica, waiting) = (Redis::start(), session_options(&stack.dir));
    stack.redis.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    replica.ask(&["REPLICAOF", "127.0.0.1", &stack.redis.port.to_string()]);
    eventually(SOON, || stack.redis.ask(&["INFO", "replication"]).contains("state=online").then_some(()));
    let confirm_timeout = Duration::from_secs(8);
    let redis_timeout = Duration::from_secs(1);
    let options = service::Options {
        sessions: Some(waiting),
        min_replicas: 1,
        confirm_timeout,
        redis_timeout,
        ..options(&stack.redis)
    };
    let waiting = Running::start(options);
    let first = stack.create(json!({ "subject": "alice" }));
    let names = stack.redis.ask(&["KEYS", "portcullis:*:u:*"]);
    let name = names.lines().find(|line| line.starts_with("portcullis:")).unwrap();
    let fill = "for n = 1, 998 do redis.call('ZADD', KEYS[1], 1e15, string.format('%020dAA', n)) end";
    stack.redis.ask(&["EVAL", fill, "1", name]);
    replica.signal("STOP");
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| waiting.admin("POST", "/v1/sessions", r#"{"subject":"alice"}"#));
        let waits = || !stack.redis.ask(&["INFO", "clients"]).contains("blocked_clients:0");
        eventually(SOON, || waits().then_some(()));
        // Full, or nearly, whichever of its two writes waits: each of these prunes, or makes the next one do so.
        (0..3).for_each(|_| drop(stack.create(json!({ "subject": "alice" }))));
        replica.signal("CONT");
        slow.join().unwrap()
    });
    assert_eq!(slow.0, 201, "{}", slow.1);
    assert!(stack.is_active(text(&slow.1, "access_token")));
    let path = format!("/v1/subjects/alice/sessions?except={}", text(&first, "sid"));
    let (status, ended) = stack.service.admin("DELETE", &path, "");
    assert_eq!((status, ended["ended"].as_array().map(Vec::len)), (200, Some(4)), "{ended}");
    assert!(!stack.is_active(text(&slow.1, "access_token")), "it was not in the list");
}

#[test]
fn what_was_revoked_under_the_old_secret_alone_stays_revoked_while_secrets_rotate() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let with = |secrets: &[u8]| {
        let secrets = secrets.iter().map(|byte| secret(*byte)).collect();
        let sessions = Some(SessionOptions { secrets: vec![secret(18)], ..session_options(&dir) });
        Running::start(service::Options { sessions, secrets, ..options(&redis) })
    };
    let mut stack = Stack { service: with(&[1]), redis: Redis::start(), dir: tempfile::tempdir().unwrap() };
    let (alice, bob) = (stack.create_refreshable(), stack.create(json!({ "subject": "bob" })));
    let revocation = json!({ "kind": "session", "issuer": OURS, "id": text(&alice, "sid") });
    assert_eq!(stack.service.admin("POST", "/v1/revocations", &revocation.to_string()).0, 201);
    for secrets in [[1, 2], [2, 1]] {
        stack.service = with(&secrets);
        assert!(!stack.is_active(text(&alice, "access_token")), "{secrets:?}");
        assert_eq!(stack.refresh(text(&alice, "refresh_token")).0, 400, "{secrets:?}");
        assert!(stack.is_active(text(&bob, "access_token")), "{secrets:?}");
    }
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

#[test]
fn a_replaced_signing_key_is_published_then_signs_and_the_old_one_still_verifies() {
    let stack = stack();
    let kids = || {
        let jwks: Value = serde_json::from_str(&stack.service.get("/.well-known/jwks.json").1).unwrap();
        jwks["keys"].as_array().unwrap().iter().map(|key| text(key, "kid").to_owned()).collect::<Vec<_>>()
    };
    let old = stack.create(json!({ "subject": "alice", "format": "jwt" }));
    let first = kids();
    let (_, new) = signing_key(&stack.dir, "signing.pem", Alg::EdDSA);
    eventually(SOON, || (kids().len() == 2).then_some(()));
    assert_eq!(kids(), [first[0].clone(), new.clone()]);
    let signer = || {
        let made = stack.create(json!({ "subject": "alice", "format": "jwt" }));
        let header = text(&made, "access_token").split('.').next().unwrap().to_owned();
        let header: Value = serde_json::from_slice(&mint::from_base64url(&header).unwrap()).unwrap();
        text(&header, "kid").to_owned()
    };
    assert_eq!(signer(), first[0]);
    eventually(Duration::from_secs(10), || (signer() == new).then_some(()));
    assert!(stack.is_active(text(&old, "access_token")));
    std::fs::write(stack.dir.path().join("signing.pem"), "broken").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(signer(), new);
}

#[test]
fn too_many_sessions_of_one_subject_are_refused_and_dead_ones_do_not_count() {
    let stack = stack();
    stack.create(json!({ "subject": "alice" }));
    let names = stack.redis.ask(&["KEYS", "portcullis:*:u:*"]);
    let name = names.lines().find(|line| line.starts_with("portcullis:")).unwrap();
    // As if they had been made, and ended by lying unused.
    let fill = "for n = 1, 999 do redis.call('ZADD', KEYS[1], 1e15, string.format('%020dAA', n)) end";
    stack.redis.ask(&["EVAL", fill, "1", name]);
    stack.create(json!({ "subject": "alice" }));
    assert_eq!(stack.redis.ask(&["ZCARD", name]), ":2\r\n");
    let live = "for n = 1, 998 do local sid = string.format('%020dAA', n) redis.call('ZADD', KEYS[1], 1e15, sid) end";
    stack.redis.ask(&["EVAL", live, "1", name]);
    stack.create(json!({ "subject": "alice" }));
    assert_eq!(stack.redis.ask(&["ZCARD", name]), ":3\r\n");
}

#[test]
fn a_service_without_sessions_says_so() {
    let (_redis, service) = started();
    let (status, problem) = service.admin("POST", "/v1/sessions", r#"{"subject":"a"}"#);
    assert_eq!((status, text(&problem, "code")), (404, "no_sessions"));
    assert_eq!(service.get("/.well-known/jwks.json").0, 404);
    assert_eq!(service.post("/oauth2/introspect", &[], "").0, 404);
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
