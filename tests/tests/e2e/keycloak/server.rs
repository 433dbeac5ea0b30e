//! A Keycloak process, its admin API, its login page and its realm.
use super::*;

/// A JVM on a machine that is busy.
const STARTS: Duration = Duration::from_secs(180);

const REDIRECT: &str = "http://127.0.0.1/back";

/// Keycloak's bootstrap administrator, and the password of everybody.
const ADMIN: &str = "admin";

const PASSWORD: &str = "correct-horse";

pub(super) struct Keycloak {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

/// The answer of the token endpoint.
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) id: String,
}

/// The cookies of one.
#[derive(Default)]
pub(super) struct Browser(BTreeMap<String, String>);

impl Browser {
    pub(super) fn keep(&mut self, response: &Response) {
        for (_, value) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = value.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    pub(super) fn cookie(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl Keycloak {
    pub(super) async fn start(directory: &Directory) -> Self {
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

    pub(super) fn issuer(&self) -> String {
        format!("http://{}{REALM}", self.address)
    }

    pub(super) async fn send(&self, request: Request) -> Response {
        let request = request.header("host", self.address.to_string());
        exchange(self.address, &request).await.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log_tail()))
    }

    pub(super) async fn form(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Response {
        let mut request = Request::new("POST", path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.send(request.body(pairs.join("&"))).await
    }

    /// The admin API. A new token each time: they live for a minute.
    pub(super) async fn admin(&self, method: &str, path: &str, body: &Value) -> Response {
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

    pub(super) async fn token(&self, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Tokens {
        let response = self.form(&format!("{REALM}/protocol/openid-connect/token"), fields, headers).await;
        let said = response.json();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(response.status, 200, "{}\n{}", response.text(), self.process.log_tail());
        Tokens { access: text("access_token"), refresh: text("refresh_token"), id: text("id_token") }
    }

    /// With the user's password (RFC 6749 section 4.3).
    pub(super) async fn log_in(&self, client: &str, user: &str, scope: &str) -> Tokens {
        self.log_in_with(client, user, scope, &[]).await
    }

    pub(super) async fn log_in_with(&self, client: &str, user: &str, scope: &str, headers: &[(&str, &str)]) -> Tokens {
        let fields = [("grant_type", "password"), ("username", user), ("password", PASSWORD), ("scope", scope)];
        self.token(&[&fields[..], &[("client_id", client), ("client_secret", SECRET)]].concat(), headers).await
    }

    /// As a browser does: the login page, its form, the code (RFC 6749 section 4.1). A browser with a session at Keycloak
    /// is given the code at once.
    pub(super) async fn log_in_at_the_page(
        &self,
        browser: &mut Browser,
        client: &str,
        user: &str,
        scope: &str,
    ) -> Tokens {
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
    pub(super) async fn log_out(&self, client: &str, tokens: &Tokens) {
        let fields = [("client_id", client), ("client_secret", SECRET), ("refresh_token", &tokens.refresh)];
        let response = self.form(&format!("{REALM}/protocol/openid-connect/logout"), &fields, &[]).await;
        assert_eq!(response.status, 204, "{}", response.text());
    }

    /// A new key that signs from now on, everything but refresh tokens. The old ones stay published.
    pub(super) async fn rotate(&self, alg: Alg, priority: u32) {
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

    pub(super) async fn user_id(&self, name: &str) -> String {
        let users = self.admin("GET", &format!("/shop/users?exact=true&username={name}"), &Value::Null).await.json();
        users[0]["id"].as_str().expect("a user").to_owned()
    }
}

/// As `encodeURIComponent` does.
pub(super) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A part of a JWT: 0 is the header, 1 the claims.
pub(super) fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).and_then(from_base64url).expect("a JWT");
    serde_json::from_slice(&part).expect("JSON")
}

pub(super) fn realm(service: SocketAddr) -> Value {
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
