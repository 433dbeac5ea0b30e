//! The steps of the test, in order.
use super::*;

/// The longest that a logout may take to be seen, from Keycloak's answer on: the freshness of verdicts, and a slow machine.
const SEEN: Duration = Duration::from_secs(3);

/// The same for events that Keycloak sends from its queue, which it reads every half second here.
const PUSHED: Duration = Duration::from_secs(10);

fn code(response: &Response) -> String {
    response.json()["code"].as_str().unwrap_or_default().to_owned()
}

/// `GET /api`: the status, and the code of a refusal.
async fn got(mesh: &Mesh, token: &str) -> (u16, String) {
    let response = mesh.get(token).await;
    (response.status, code(&response))
}

async fn passes(mesh: &Mesh, token: &str, what: &str) {
    let response = mesh.get(token).await;
    assert_eq!(response.status, 200, "{what}: {}\n{}", response.text(), part(token, 1));
}

async fn is_refused(mesh: &Mesh, token: &str, with: &str, what: &str) {
    let (status, code) = got(mesh, token).await;
    assert_eq!(code, with, "{what}: {status}\n{}", part(token, 1));
}

/// How long it takes until every worker refuses this token.
async fn ends(mesh: &Mesh, token: &str, with: &str, within: Duration, what: &str) -> Duration {
    let start = Instant::now();
    let mut last = (0, String::new());
    let ended = wait_until(within, async || {
        last = got(mesh, token).await;
        last.1 == with
    });
    assert!(ended.await, "{what}: still {last:?} after {within:?}");
    let took = start.elapsed();
    assert!(mesh.becomes_everywhere(token, last.0).await, "{what}: a worker lets it pass");
    took
}

pub(super) fn say(step: &str, what: &str) {
    println!("keycloak: {step:<14} {what}");
}

/// Tokens with unknown key ids, at the proxy and as logout tokens.
async fn noise(mesh: &Mesh, service: &Service, issuer: &str, number: usize) {
    for _ in 0..number {
        let stranger = SigningKey::generate(Alg::ES256, &random_id());
        let now = unix_now();
        let claims = json!({
            "iss": issuer, "aud": "api", "iat": now, "exp": now + 300, "sub": random_id(), "sid": random_id(),
        });
        is_refused(mesh, &stranger.mint(&claims), "KEY_UNKNOWN", "a stranger's token").await;
        let claims = json!({
            "iss": issuer, "aud": "web", "iat": now, "exp": now + 120, "jti": random_id(), "sid": random_id(),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let body = format!("logout_token={}", stranger.mint(&claims));
        let request = Request::new("POST", "/oauth2/backchannel-logout")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let response = exchange(service.address(), &request).await.expect("the service answers");
        assert_ne!(response.status, 200, "a stranger's logout token");
    }
}

pub(super) async fn logins(keycloak: &Keycloak, mesh: &Mesh) {
    let by_password = keycloak.log_in("web", "alice", "openid").await;
    let by_code = keycloak.log_in_at_the_page(&mut Browser::default(), "web", "alice", "openid").await;
    let alice = keycloak.user_id("alice").await;
    for token in [&by_password.access, &by_code.access] {
        let response = mesh.get(token).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.upstream_saw("x-user-id"), [alice.as_str()]);
    }
    assert!(part(&by_code.access, 1)["auth_time"].is_u64(), "{}", part(&by_code.access, 1));
    assert!(part(&by_password.access, 1)["auth_time"].is_null(), "{}", part(&by_password.access, 1));
    say("login", "by password and by code: both pass, and the upstream sees the user");
    for (token, what) in [(&by_code.id, "an ID token"), (&by_code.refresh, "a refresh token")] {
        let (status, code) = got(mesh, token).await;
        assert!(status == 401, "{what} {status} {code}");
    }
    say("login", "its ID token and its refresh token are refused");
}

pub(super) async fn kinds_of_tokens(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
    let light = keycloak.log_in("light", "alice", "openid").await;
    let claims = part(&light.access, 1);
    assert!(claims["sub"].is_null() && claims["sid"].is_string(), "{claims}");
    passes(mesh, &light.access, "a lightweight token").await;
    // Its user cannot be told from it, and the rule asks for that.
    let refused = mesh.send(&Request::get("/admin").bearer(&light.access)).await;
    assert_eq!(code(&refused), "CLAIM_INSUFFICIENT", "{}", refused.text());
    let whole = keycloak.log_in("web", "alice", "openid").await;
    assert_eq!(mesh.send(&Request::get("/admin").bearer(&whole.access)).await.status, 200);
    keycloak.log_out("light", &light).await;
    let took = ends(mesh, &light.access, "SESSION_REVOKED", SEEN, "a lightweight token").await;
    let refused = code(&refused);
    say(
        "lightweight",
        &format!("passes; {refused} where its user must be revocable; ends with its session, {took:.1?}"),
    );

    let mut browser = Browser::default();
    let online = keycloak.log_in_at_the_page(&mut browser, "web", "dave", "openid").await;
    let offline = keycloak.log_in_at_the_page(&mut browser, "web", "dave", "openid offline_access").await;
    assert_eq!(part(&offline.refresh, 1)["typ"], "Offline");
    passes(mesh, &offline.access, "an access token of an offline session").await;
    let (status, refused) = got(mesh, &offline.refresh).await;
    assert_eq!(status, 401, "an offline token is no access token: {refused}");
    // The browser's session and the offline one have one `sid`, and a logout of the first ends it alone.
    let sid = part(&offline.access, 1)["sid"].as_str().expect("a sid").to_owned();
    assert_eq!(part(&online.access, 1)["sid"], sid.as_str(), "{}", part(&online.access, 1));
    keycloak.admin("DELETE", &format!("/shop/sessions/{sid}"), &Value::Null).await;
    let took = ends(mesh, &online.access, "SESSION_REVOKED", SEEN, "a token of the browser's session").await;
    let refreshed = async |more: &[(&str, &str)]| {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", offline.refresh.as_str())];
        let client = [("client_id", "web"), ("client_secret", SECRET)];
        keycloak.token(&[&fields[..], &client, more].concat(), &[]).await
    };
    let later = refreshed(&[]).await;
    assert_eq!(part(&later.access, 1)["sid"], sid.as_str(), "{}", part(&later.access, 1));
    passes(mesh, &later.access, "an offline session after the browser's ended").await;
    service.revoke(&["session", "--issuer", &keycloak.issuer(), "--id", &format!("offline:{sid}")]).await;
    ends(mesh, &later.access, "SESSION_REVOKED", SEEN, "a token of the offline session").await;
    // A refresh with less scope does not give it another name.
    let less = refreshed(&[("scope", "openid")]).await;
    is_refused(mesh, &less.access, "SESSION_REVOKED", "a token of the offline session with less scope").await;
    say(
        "offline",
        &format!(
            "its access token passes, itself is refused ({refused}); the browser's logout ends the browser's ({took:.1?})"
        ),
    );

    let key = SigningKey::generate(Alg::ES256, "proof");
    let mut jwk = key.public_jwk().expect("a public key");
    jwk.retain(|name, _| matches!(name.as_str(), "kty" | "crv" | "x" | "y"));
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
    let url = format!("{}/protocol/openid-connect/token", keycloak.issuer());
    let proof = json!({ "jti": random_id(), "htm": "POST", "htu": url, "iat": unix_now() });
    let proof = key.sign(&header.to_string(), &proof.to_string());
    let bound = keycloak.log_in_with("bound", "alice", "openid", &[("dpop", &proof)]).await;
    assert_eq!(part(&bound.access, 1)["typ"], "DPoP");
    assert_eq!(part(&bound.access, 1)["cnf"]["jkt"], key.thumbprint().as_str(), "{}", part(&bound.access, 1));
    is_refused(mesh, &bound.access, "BINDING_MISMATCH", "a token that is bound to a key").await;
    let request = Request::get("/api").header("authorization", format!("DPoP {}", bound.access));
    let refused = mesh.send(&request.header("dpop", &proof)).await;
    assert_eq!(code(&refused), "TOKEN_MISSING", "{}", refused.text());
    say("DPoP", "a bound token is refused: BINDING_MISMATCH as Bearer, TOKEN_MISSING as DPoP");
}

pub(super) async fn introspection(keycloak: &Keycloak, service: &Service) {
    let mesh = mesh("keycloak-introspecting", keycloak, service, true).await;
    let seen = FRESHNESS + SEEN;
    let (bob, light) = (keycloak.log_in("web", "bob", "openid").await, keycloak.log_in("light", "bob", "openid").await);
    let alice = keycloak.log_in("web", "alice", "openid").await;
    // A proxy that has just started fetches its keys with its first tick.
    assert!(wait_until(SEEN, async || got(&mesh, &bob.access).await.1 != "KEYS_UNAVAILABLE").await);
    for tokens in [&bob, &light, &alice] {
        passes(&mesh, &tokens.access, "a token that is active").await;
    }
    // Keycloak's own revocation (RFC 7009), of which it sends no notice.
    let fields = [("client_id", "light"), ("client_secret", SECRET), ("token", &light.access)];
    let revoked = keycloak.form(&format!("{REALM}/protocol/openid-connect/revoke"), &fields, &[]).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    let by_itself = ends(&mesh, &light.access, "SESSION_UNKNOWN", seen, "a token that was revoked").await;
    passes(&mesh, &bob.access, "another session of that user").await;
    let id = keycloak.user_id("bob").await;
    keycloak.admin("PUT", &format!("/shop/users/{id}"), &json!({ "enabled": false })).await;
    let disabled = ends(&mesh, &bob.access, "SESSION_UNKNOWN", seen, "a token of a disabled user").await;
    keycloak.admin("PUT", &format!("/shop/users/{id}"), &json!({ "enabled": true })).await;
    passes(&mesh, &alice.access, "another user's token").await;
    say(
        "introspection",
        &format!("of JWTs: a revoked token ends ({by_itself:.1?}), a disabled user's too ({disabled:.1?})"),
    );
}

pub(super) async fn logouts(keycloak: &Keycloak, mesh: &Mesh) {
    let (desktop, phone) =
        (keycloak.log_in("web", "bob", "openid").await, keycloak.log_in("web", "bob", "openid").await);
    for tokens in [&desktop, &phone] {
        passes(mesh, &tokens.access, "a session").await;
    }
    keycloak.log_out("web", &desktop).await;
    let by_user = ends(mesh, &desktop.access, "SESSION_REVOKED", SEEN, "a session that logged out").await;
    passes(mesh, &phone.access, "the user's other session").await;
    let sid = part(&phone.access, 1)["sid"].as_str().expect("a sid").to_owned();
    keycloak.admin("DELETE", &format!("/shop/sessions/{sid}"), &Value::Null).await;
    let by_admin = ends(mesh, &phone.access, "SESSION_REVOKED", SEEN, "a session that was ended").await;
    let again = keycloak.log_in("web", "bob", "openid").await;
    passes(mesh, &again.access, "the next login").await;
    say(
        "logout",
        &format!("by the user in {by_user:.1?}, by an admin in {by_admin:.1?}; no other session, nor the next, ends"),
    );
}

/// Twice in a row, and once more to another algorithm, while forged tokens name unknown keys. After each, the first
/// logout token with the new key must be carried out: Keycloak sends it once.
pub(super) async fn rotations(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
    let issuer = keycloak.issuer();
    let mut olds = vec![keycloak.log_in("web", "carol", "openid").await];
    passes(mesh, &olds[0].access, "before any rotation").await;
    for (alg, priority) in [(Alg::RS256, 200), (Alg::RS256, 300), (Alg::ES256, 400), (Alg::ES256, 500)] {
        noise(mesh, service, &issuer, 10).await;
        keycloak.rotate(alg, priority).await;
        noise(mesh, service, &issuer, 10).await;
        let (new, gone) =
            (keycloak.log_in("web", "carol", "openid").await, keycloak.log_in("web", "carol", "openid").await);
        let header = part(&new.access, 0);
        assert_eq!(header["alg"], alg.name());
        assert!(olds.iter().all(|old| part(&old.access, 0)["kid"] != header["kid"]), "no rotation: {header}");
        keycloak.log_out("web", &gone).await;
        let start = Instant::now();
        let mut last = String::new();
        let known = wait_until(COOL_DOWN + SEEN, async || {
            last = got(mesh, &new.access).await.1;
            last.is_empty()
        });
        assert!(known.await, "the new key is not known: {last}");
        let known = start.elapsed();
        let ended = ends(mesh, &gone.access, "SESSION_REVOKED", PUSHED, "a logout right after a rotation").await;
        for old in &olds {
            passes(mesh, &old.access, "a token of the key before").await;
        }
        olds.push(new);
        say(
            "rotation",
            &format!("to a new {} key, amid noise: known in {known:.1?}, its first logout in {ended:.1?}", alg.name()),
        );
    }
}

/// Keycloak's Shared Signals transmitter, which is experimental there and has to be switched on.
pub(super) async fn events(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
    let stream = json!({
        "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": format!("http://{}/ssf/events", service.address()) },
        "events_requested": ["CaepSessionRevoked"],
    });
    keycloak.admin("POST", "/shop/ssf/clients/signals/stream", &stream).await;
    // At a client that is told nothing itself.
    let (one, two) =
        (keycloak.log_in("quiet", "carol", "openid").await, keycloak.log_in("quiet", "carol", "openid").await);
    let other = keycloak.log_in("quiet", "alice", "openid").await;
    for tokens in [&one, &two, &other] {
        passes(mesh, &tokens.access, "a session").await;
    }
    let id = keycloak.user_id("carol").await;
    keycloak.admin("POST", &format!("/shop/users/{id}/logout"), &json!({})).await;
    let took = ends(mesh, &one.access, "SESSION_REVOKED", PUSHED, "a user whom an admin logged out").await;
    let metrics =
        exchange(service.admin_address(), &Request::get("/metrics")).await.expect("the service answers").text();
    let ended = r#"portcullis_provider_events_total{endpoint="caep",result="ended"} 1"#;
    assert!(metrics.lines().any(|line| line == ended), "{metrics}");
    ends(mesh, &two.access, "SESSION_REVOKED", SEEN, "the user's other session").await;
    passes(mesh, &other.access, "another user").await;
    // A user comes back as of the next second.
    tokio::time::sleep(Duration::from_secs(8)).await;
    passes(mesh, &keycloak.log_in("quiet", "carol", "openid").await.access, "the next login").await;
    say(
        "events",
        &format!("\"Sign out\" of a user by an admin, by SSF: both sessions end in {took:.1?}, the next login passes"),
    );
}
