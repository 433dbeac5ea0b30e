//! The whole stack against a real Keycloak, as `make keycloak` sets it up: Java and the server are needed, so this is no
//! part of `make test`. Each step asserts and prints one line.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey, from_base64url, random_id};
use serde_json::{Value, json};
use tests::mesh::{FRESHNESS, unix_now};
use tests::{
    Directory, Mesh, MeshOptions, Process, Redis, Request, Response, Service, ServiceOptions, exchange, project,
    wait_until,
};

/// A JVM on a machine that is busy.
const STARTS: Duration = Duration::from_secs(180);
/// What a logout may take to be seen, from Keycloak's answer on: the freshness of verdicts, and a slow machine.
const SEEN: Duration = Duration::from_secs(3);
/// The same for what Keycloak sends from its queue, which it looks at each half second here.
const PUSHED: Duration = Duration::from_secs(10);
/// Of the filter's key source: how long invented key ids can hold up a new key.
const COOL_DOWN: Duration = Duration::from_secs(2);
const REALM: &str = "/realms/shop";
const SECRET: &str = "a-secret-of-the-clients-of-the-tests";
const REDIRECT: &str = "http://127.0.0.1/back";
/// Keycloak's bootstrap administrator, and the password of everybody.
const ADMIN: &str = "admin";
const PASSWORD: &str = "correct-horse";

struct Keycloak {
    process: Process,
    address: SocketAddr,
}

/// What the token endpoint answers.
struct Tokens {
    access: String,
    refresh: String,
    id: String,
}

/// The cookies of one.
#[derive(Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    fn keep(&mut self, response: &Response) {
        for (_, value) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = value.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    fn cookie(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl Keycloak {
    async fn start(directory: &Directory) -> Self {
        let mut command = Command::new(project().join("tests/keycloak/server/bin/kc.sh"));
        command
            .args([
                "start",
                "--optimized",
                "--cache=local",
                "--http-enabled=true",
                "--http-host=127.0.0.1",
                "--http-port=0",
            ])
            .arg("--hostname-strict=false")
            // Events are for our service, which is on this machine and without TLS.
            .arg("--spi-ssf-transmitter--default--allow-insecure-push-targets=true")
            .arg("--spi-ssf-transmitter--default--outbox-drainer-interval=500ms")
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD);
        let mut process = Process::start("keycloak", command, directory.path());
        let mut address = None;
        wait_until(STARTS, async || {
            let log = process.log();
            let listens = log.split_once("Listening on: http://").map(|(_, rest)| rest.lines().next().unwrap_or(rest));
            address = listens.and_then(|listens| listens.trim().trim_end_matches('.').parse().ok());
            address.is_some() || !process.is_running()
        })
        .await;
        let Some(address) = address else { panic!("Keycloak does not start:\n{}", process.log_tail()) };
        Self { process, address }
    }

    fn issuer(&self) -> String {
        format!("http://{}{REALM}", self.address)
    }

    async fn send(&self, request: Request) -> Response {
        let request = request.header("host", self.address.to_string());
        exchange(self.address, &request).await.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log_tail()))
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Response {
        let mut request = Request::new("POST", path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.send(request.body(pairs.join("&"))).await
    }

    /// The admin API. A new token each time: they live for a minute.
    async fn admin(&self, method: &str, path: &str, body: &Value) -> Response {
        let fields =
            [("grant_type", "password"), ("client_id", "admin-cli"), ("username", ADMIN), ("password", PASSWORD)];
        let said = self.form("/realms/master/protocol/openid-connect/token", &fields, &[]).await;
        let token = said.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", said.text())).to_owned();
        let mut request = Request::new(method, &format!("/admin/realms{path}")).bearer(&token);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = self.send(request).await;
        let what = format!("{method} {path}: {} {}", response.status, response.text());
        assert!((200..300).contains(&response.status), "{what}\n{}", self.process.log_tail());
        response
    }

    async fn token(&self, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Tokens {
        let response = self.form(&format!("{REALM}/protocol/openid-connect/token"), fields, headers).await;
        let said = response.json();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(response.status, 200, "{}\n{}", response.text(), self.process.log_tail());
        Tokens { access: text("access_token"), refresh: text("refresh_token"), id: text("id_token") }
    }

    /// With the user's password (RFC 6749 section 4.3).
    async fn log_in(&self, client: &str, user: &str, scope: &str) -> Tokens {
        self.log_in_with(client, user, scope, &[]).await
    }

    async fn log_in_with(&self, client: &str, user: &str, scope: &str, headers: &[(&str, &str)]) -> Tokens {
        let fields = [("grant_type", "password"), ("username", user), ("password", PASSWORD), ("scope", scope)];
        self.token(&[&fields[..], &[("client_id", client), ("client_secret", SECRET)]].concat(), headers).await
    }

    /// As a browser does: the login page, its form, the code (RFC 6749 section 4.1). A browser with a session at Keycloak
    /// is given the code at once.
    async fn log_in_at_the_page(&self, browser: &mut Browser, client: &str, user: &str, scope: &str) -> Tokens {
        let query = format!("response_type=code&client_id={client}&redirect_uri={}", encoded(REDIRECT));
        let page = format!("{REALM}/protocol/openid-connect/auth?{query}&scope={}", encoded(scope));
        let mut page = self.send(Request::get(&page).header("cookie", browser.cookie())).await;
        browser.keep(&page);
        if page.header("location").is_none() {
            let html = page.text();
            let action = html.split_once("action=\"").and_then(|(_, rest)| rest.split_once('"'));
            let action = action.unwrap_or_else(|| panic!("no form: {} {html}", page.status)).0.replace("&amp;", "&");
            let path = action.strip_prefix(&format!("http://{}", self.address)).expect("a form for Keycloak itself");
            let fields = [("username", user), ("password", PASSWORD), ("credentialId", "")];
            page = self.form(path, &fields, &[("cookie", &browser.cookie())]).await;
            browser.keep(&page);
        }
        let location = page.header("location").unwrap_or_else(|| panic!("{} {}", page.status, page.text()));
        let code = location.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).expect("a code");
        let fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT)];
        self.token(&[&fields[..], &[("client_id", client), ("client_secret", SECRET)]].concat(), &[]).await
    }

    /// The user logs out at the application, which tells Keycloak, which tells us before it answers.
    async fn log_out(&self, client: &str, tokens: &Tokens) {
        let fields = [("client_id", client), ("client_secret", SECRET), ("refresh_token", &tokens.refresh)];
        let response = self.form(&format!("{REALM}/protocol/openid-connect/logout"), &fields, &[]).await;
        assert_eq!(response.status, 204, "{}", response.text());
    }

    /// A new key that signs from now on, everything but refresh tokens. The old ones stay published.
    async fn rotate(&self, alg: Alg, priority: u32) {
        let provider = if alg == Alg::ES256 { "ecdsa-generated" } else { "rsa-generated" };
        let mut config = json!({ "priority": [priority.to_string()], "enabled": ["true"], "active": ["true"] });
        if alg == Alg::ES256 {
            config["ecdsaEllipticCurveKey"] = json!(["P-256"]);
        } else {
            config["algorithm"] = json!([alg.name()]);
            config["keySize"] = json!(["2048"]);
        }
        let component = json!({
            "name": random_id(), "providerId": provider, "providerType": "org.keycloak.keys.KeyProvider", "config": config,
        });
        self.admin("POST", "/shop/components", &component).await;
        self.admin("PUT", "/shop", &json!({ "realm": "shop", "defaultSignatureAlgorithm": alg.name() })).await;
    }

    async fn user_id(&self, name: &str) -> String {
        let users = self.admin("GET", &format!("/shop/users?exact=true&username={name}"), &Value::Null).await.json();
        users[0]["id"].as_str().expect("a user").to_owned()
    }
}

/// As `encodeURIComponent` does.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A part of a JWT: 0 is the header, 1 the claims.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).and_then(from_base64url).expect("a JWT");
    serde_json::from_slice(&part).expect("JSON")
}

fn realm(service: SocketAddr) -> Value {
    let audience = |key: &str, value: &str| {
        json!({
            "name": value, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": { key: value, "access.token.claim": "true", "lightweight.claim": "true", "introspection.token.claim": "true" },
        })
    };
    let client = |name: &str, attributes: &Value| {
        json!({
            "clientId": name, "secret": SECRET, "publicClient": false, "directAccessGrantsEnabled": true,
            "redirectUris": [REDIRECT], "attributes": attributes,
            "protocolMappers": [
                audience("included.custom.audience", "api"), audience("included.client.audience", "gateway"),
            ],
        })
    };
    let told = json!({
        "backchannel.logout.url": format!("http://{service}/oauth2/backchannel-logout"),
        "backchannel.logout.session.required": "true",
    });
    let with = |name: &str| {
        let mut attributes = told.clone();
        attributes[name] = json!("true");
        attributes
    };
    let user = |name: &str| {
        json!({
            "username": name, "enabled": true, "email": format!("{name}@example.com"), "emailVerified": true,
            "firstName": name, "lastName": "Example",
            "credentials": [{ "type": "password", "value": PASSWORD, "temporary": false }],
            "realmRoles": ["offline_access", "default-roles-shop"],
        })
    };
    json!({
        "realm": "shop", "enabled": true, "sslRequired": "none",
        "eventsEnabled": true, "adminEventsEnabled": true, "eventsListeners": ["jboss-logging", "ssf-events"],
        "attributes": { "ssf.transmitterEnabled": "true" },
        "clients": [
            client("web", &told), client("quiet", &json!({})),
            client("light", &with("client.use.lightweight.access.token.enabled")),
            client("bound", &with("dpop.bound.access.tokens")),
            { "clientId": "gateway", "secret": SECRET, "publicClient": false },
            {
                "clientId": "signals", "secret": SECRET, "publicClient": false,
                "attributes": {
                    "ssf.enabled": "true", "ssf.defaultSubjects": "ALL", "ssf.streamAudience": "portcullis",
                    "ssf.validPushUrls": format!("http://{service}/*"),
                },
            },
        ],
        "users": [user("alice"), user("bob"), user("carol"), user("dave")],
    })
}

/// The service, told by Keycloak.
async fn service(directory: &Directory, redis: &Redis, keycloak: &Keycloak) -> Service {
    let providers = json!({ "providers": [{
        "issuer": keycloak.issuer(), "audiences": ["web", "light", "bound", "portcullis"],
        "discovery": "openid-configuration", "algorithms": ["RS256", "ES256"], "logout": {}, "events": {},
    }] });
    let file = directory.write("providers.json", providers.to_string());
    let mut options = ServiceOptions::new(redis.url());
    options.arguments = vec!["--providers-file".to_owned(), file.display().to_string()];
    options.issuers.push(keycloak.issuer());
    Service::start(directory, options).await
}

/// An Envoy in front of the API. `introspects`: Keycloak is asked about each token as well.
async fn mesh(name: &str, keycloak: &Keycloak, service: &Service, introspects: bool) -> Mesh {
    let mut options =
        MeshOptions { asks: Some(service.address()), idp: Some(keycloak.address), ..MeshOptions::default() };
    let mut issuer = json!({
        "name": "keycloak", "provider": "keycloak", "issuer": keycloak.issuer(), "audiences": ["api"],
        "algorithms": ["RS256", "ES256"],
        "jwks": { "cluster": "idp", "discovery": true, "cool_down": format!("{}s", COOL_DOWN.as_secs()) },
    });
    if introspects {
        issuer["introspection"] = json!({
            "of": "jwt", "cluster": "idp", "path": format!("{REALM}/protocol/openid-connect/token/introspect"),
            "authority": keycloak.address.to_string(), "client_id": "gateway", "client_secret_env": "INTROSPECTION_SECRET",
            "freshness": "1s",
        });
        options.environment.push(("INTROSPECTION_SECRET".to_owned(), SECRET.to_owned()));
    }
    options.filter["issuers"].as_array_mut().expect("issuers").push(issuer);
    let rules = options.filter["rules"].as_array_mut().expect("rules");
    let path = json!({ "path": { "prefix": "/admin" } });
    rules.insert(
        0,
        json!({ "name": "admin", "match": path, "access": "required", "revocable_by": ["session", "user"] }),
    );
    Mesh::start_with(name, options).await
}

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

fn say(step: &str, what: &str) {
    println!("keycloak: {step:<14} {what}");
}

/// Strangers: tokens with key ids that nobody has, at the proxy and as logout tokens.
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java and Keycloak: run `make keycloak`"]
async fn a_real_keycloak_and_the_proxy_agree() {
    let directory = Directory::new("keycloak");
    let keycloak = Keycloak::start(&directory).await;
    let redis = Redis::start(&directory).await;
    let service = service(&directory, &redis, &keycloak).await;
    keycloak.admin("POST", "", &realm(service.address())).await;
    let mesh = mesh("keycloak-mesh", &keycloak, &service, false).await;
    say("start", &format!("Keycloak, its realm, and a stack that trusts {}", keycloak.issuer()));

    logins(&keycloak, &mesh).await;
    kinds_of_tokens(&keycloak, &mesh, &service).await;
    introspection(&keycloak, &service).await;
    logouts(&keycloak, &mesh).await;
    rotations(&keycloak, &mesh, &service).await;
    events(&keycloak, &mesh, &service).await;
}

async fn logins(keycloak: &Keycloak, mesh: &Mesh) {
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

async fn kinds_of_tokens(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
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
    // Whoever refreshes it cannot choose another name for it by asking for less scope.
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

async fn introspection(keycloak: &Keycloak, service: &Service) {
    let mesh = mesh("keycloak-introspecting", keycloak, service, true).await;
    let seen = FRESHNESS + SEEN;
    let (bob, light) = (keycloak.log_in("web", "bob", "openid").await, keycloak.log_in("light", "bob", "openid").await);
    let alice = keycloak.log_in("web", "alice", "openid").await;
    // A proxy that has just started fetches its keys with its first tick.
    assert!(wait_until(SEEN, async || got(&mesh, &bob.access).await.1 != "KEYS_UNAVAILABLE").await);
    for tokens in [&bob, &light, &alice] {
        passes(&mesh, &tokens.access, "a token that is active").await;
    }
    // Its own revocation (RFC 7009), of which it tells nobody.
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

async fn logouts(keycloak: &Keycloak, mesh: &Mesh) {
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

/// Twice in a row, and once more to another algorithm, while strangers name keys that nobody has. After each, the first
/// logout token with the new key must be carried out: Keycloak sends it once.
async fn rotations(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
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
async fn events(keycloak: &Keycloak, mesh: &Mesh, service: &Service) {
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
