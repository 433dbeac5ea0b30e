//! One refused request after the other, each for another cause: the client's document, the line in Envoy's log and
//! `portcullis explain --live` agree on it.
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::mesh::{ISSUER, Keys, claims, claims_with};
use harness::{Answer, Mesh, MeshOptions, Request, Response, Service, Upstream, wait_until};
use mint::{Alg, SigningKey, random_id, to_base64url};
use serde_json::{Value, json};
use wire::{Kind, Secret};

const INSTANCE: &str = "urn:portcullis:request:";
const PUBLISHED: &str = "https://published.example";
const DEADLINE: Duration = Duration::from_secs(15);

struct Stack {
    mesh: Mesh,
    idp: Upstream,
    idp_is_slow: Arc<AtomicBool>,
    published: SigningKey,
}

impl Stack {
    async fn start(name: &str) -> Self {
        let published = SigningKey::generate(Alg::EdDSA, "published");
        let set = json!({ "keys": [published.public_jwk().unwrap()] });
        let idp_is_slow = Arc::new(AtomicBool::new(false));
        let is_slow = Arc::clone(&idp_is_slow);
        // Of opaque tokens it knows none.
        let idp = Upstream::answering(move |seen| match seen.path.as_str() {
            "/keys" => Answer::json(200, &set),
            "/introspect" if is_slow.load(Ordering::SeqCst) => Answer::new(500, ""),
            "/introspect" => Answer::json(200, &json!({ "active": false })),
            _ => Answer::new(404, ""),
        })
        .await;
        let mut options = MeshOptions { idp: Some(idp.address()), ..MeshOptions::default() };
        let issuer = |name: &str, path: &str| {
            json!({
                "name": name, "issuer": format!("https://{name}.example"), "audiences": ["api"], "algorithms": ["EdDSA"],
                "jwks": { "cluster": "idp", "uri": format!("http://idp.example{path}") },
            })
        };
        let opaque = json!({
            "name": "opaque", "issuer": "https://opaque.example", "audiences": ["api"],
            "introspection": {
                "cluster": "idp", "path": "/introspect", "client_auth": "none", "timeout": "3s", "freshness": "3s",
                "format": { "shape": { "prefix": "op_" } },
            },
        });
        let issuers = options.filter["issuers"].as_array_mut().unwrap();
        issuers.extend([issuer("published", "/keys"), issuer("absent", "/nowhere"), opaque]);
        let rule = |name: &str, member: &str, value: Value| {
            json!({
                "name": name, "match": { "path": { "prefix": format!("/{name}") } }, "access": "required", member: value,
            })
        };
        let rules = options.filter["rules"].as_array_mut().unwrap();
        rules.push(rule("scoped", "scopes", json!({ "all": ["write"] })));
        rules.push(rule("admins", "claims", json!([{ "claim": "role", "one_of": ["admin"] }])));
        let filter = options.filter.to_string();
        let key_shared = mint::to_base64url(options.keys.shared.secret().unwrap_or_default());
        let mesh = Mesh::start_with(name, options).await;
        mesh.directory.write("filter.json", filter);
        mesh.directory.write("key-shared", key_shared);
        Self { mesh, idp, idp_is_slow, published }
    }

    /// Runs `portcullis explain --json`.
    fn explain(&self, more: &[String]) -> Value {
        let path = |name: &str| self.mesh.directory.path().join(name);
        let service = self.mesh.service.as_ref().unwrap().address();
        let output = Command::new(Service::binary())
            .args(["explain", "--json", "--config"])
            .arg(path("filter.json"))
            .args(["--live", &format!("--cluster=session_service=http://{service}")])
            .arg(format!("--cluster=idp=http://{}", self.idp.address()))
            .args(more)
            .env("PORTCULLIS_SECRET", MeshOptions::secret())
            .env("KEY_SHARED", std::fs::read_to_string(path("key-shared")).unwrap())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// From the request itself.
    async fn explain_request(&self, request: &Request) -> Value {
        let mut words = vec![format!("--method={}", request.method), format!("--path={}", request.path)];
        words.push("--host=test.example".to_owned());
        for (name, value) in &request.headers {
            words.push(format!("--header={name}: {}", String::from_utf8_lossy(value)));
        }
        // The servers that it asks run in this process.
        tokio::task::block_in_place(|| self.explain(&words))
    }

    /// From the client's document and Envoy's log.
    async fn explain_problem(&self, response: &Response, log: &str) -> Value {
        let problem = self.mesh.directory.write("problem.json", response.text());
        let log = self.mesh.directory.write("given.log", log);
        let words = [format!("--problem={}", problem.display()), format!("--log={}", log.display())];
        tokio::task::block_in_place(|| self.explain(&words))
    }

    /// The line of the filter about a request.
    async fn line(&mut self, id: &str) -> (Value, String) {
        let mut found = None;
        wait_until(DEADLINE, async || {
            let log = self.mesh.envoy_log();
            found = log.lines().find_map(|line| {
                let (head, rest) = line.split_once("portcullis: refused {")?;
                assert!(head.contains("[warning]"), "Istio's proxies would not log it: {line}");
                let text = format!("{{{rest}");
                let line: Value = serde_json::Deserializer::from_str(&text).into_iter().next()?.ok()?;
                (line["request_id"] == id).then_some((line, log.clone()))
            });
            found.is_some()
        })
        .await;
        found.unwrap_or_else(|| panic!("no line of {id}: {}", self.mesh.envoy_log()))
    }

    /// Sends it, and compares everything that is said about it. Returns the line.
    async fn refuses(&mut self, request: &Request, code: &str, cause: &str) -> Value {
        let response = self.mesh.send(request).await;
        let body = response.json();
        assert_eq!(body["code"], code, "{cause}: {}", response.text());
        let id = body["instance"].as_str().and_then(|instance| instance.strip_prefix(INSTANCE)).expect("an instance");
        let (line, log) = self.line(id).await;
        assert_eq!((&line["code"], &line["cause"]), (&json!(code), &json!(cause)), "{line}");
        assert_eq!(line["status"], response.status, "{line}");
        assert_eq!((&line["method"], line["path"].as_str()), (&json!(request.method), request.path.split('?').next()));
        let said = self.explain_request(request).await;
        let told = (&said["verdict"], &said["code"], said["cause"].as_str().map(|it| it.split(": ").next().unwrap()));
        assert_eq!(told, (&json!("refused"), &json!(code), Some(cause)), "{said}");
        let said = self.explain_problem(&response, &log).await;
        let told = (&said["verdict"], &said["code"], &said["cause"]);
        assert_eq!(told, (&json!("refused"), &json!(code), &json!(cause)), "{said}");
        line
    }

    fn revoked(&self, says: &Value) -> bool {
        says["steps"].as_array().unwrap().iter().any(|step| {
            step["step"] == "revocation" && step["says"].as_str().is_some_and(|says| says.contains("is revoked"))
        })
    }
}

fn get(path: &str, claims: &Value, key: &SigningKey) -> Request {
    Request::get(path).bearer(&key.mint(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_the_document_and_explain_agree_on_each_cause() {
    let mut stack = Stack::start("refusals").await;
    let now = harness::mesh::unix_now();
    // Owned, so that the stack can be changed meanwhile.
    let first = std::mem::replace(&mut stack.mesh.keys, Keys::generate()).first;
    let published = std::mem::replace(&mut stack.published, SigningKey::generate(Alg::EdDSA, "unused"));
    let api = |members: Value| get("/api", &claims_with(&members), &first);
    let good = first.mint(&claims());
    let forged = format!("{}{}", &good[..good.len() - 86], to_base64url([7; 64]));
    let none =
        format!("{}.{}.", to_base64url(json!({ "alg": "none" }).to_string()), to_base64url(claims().to_string()));
    let other_key = SigningKey::generate(Alg::EdDSA, "stranger");
    let cookie = |request: Request| request.header("cookie", format!("session={good}"));
    let no_exp = {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove("exp");
        claims
    };
    let cases: Vec<(&str, &str, Request)> = vec![
        ("TOKEN_MISSING", "no source has a token", Request::get("/api?access_token=secret")),
        ("TOKEN_MALFORMED", "the token has fewer than three segments", Request::get("/api").bearer("garbage")),
        ("TOKEN_AMBIGUOUS", "there is more than one token", cookie(Request::get("/api").bearer(&good))),
        ("ALG_NOT_ALLOWED", "the header's alg is none", Request::get("/api").bearer(&format!("{none}AAAA"))),
        ("KEY_UNKNOWN", "no key has the token's kid", get("/api", &claims(), &other_key)),
        ("SIG_MISMATCH", "no key of the issuer verifies the signature", Request::get("/api").bearer(&forged)),
        ("JWT_EXPIRED", "exp has passed", api(json!({ "iat": now - 900, "exp": now - 300 }))),
        ("JWT_NOT_YET_VALID", "nbf, iat or auth_time lies in the future", api(json!({ "nbf": now + 500 }))),
        (
            "JWT_TOO_LONG_LIVED",
            "the time from its issue to exp is over max_lifetime",
            api(json!({ "exp": now + 9_000_000 })),
        ),
        ("INVALID_ISSUER", "iss is not configured", api(json!({ "iss": format!("{ISSUER}/") }))),
        ("INVALID_AUDIENCE", "aud names nobody here", api(json!({ "aud": "billing" }))),
        ("INVALID_CLAIM", "exp is missing", get("/api", &no_exp, &first)),
        (
            "SCOPE_INSUFFICIENT",
            "the token lacks a scope that the rule requires",
            get("/scoped", &claims_with(&json!({ "scope": "read" })), &first),
        ),
        ("CLAIM_INSUFFICIENT", "a claim is not what the rule requires", get("/admins", &claims(), &first)),
        (
            "SESSION_UNKNOWN",
            "the introspection server says that it is not active",
            Request::get("/api").bearer(&format!("op_{}", random_id())),
        ),
        ("BINDING_MISMATCH", "the token is bound to no certificate", get("/bound", &claims(), &first)),
        ("ROUTE_UNMATCHED", "no rule matches the method, path and host", Request::get("/elsewhere")),
        ("PATH_SUSPICIOUS", "the path has a semicolon, where some backends end a segment", Request::get("/api;x")),
        (
            "ORIGIN_NOT_ALLOWED",
            "a cookie on an unsafe method or upgrade needs a listed Origin",
            cookie(Request::new("POST", "/browser")),
        ),
        (
            "KEYS_UNAVAILABLE",
            "the issuer's keys were never fetched",
            get("/api", &claims_with(&json!({ "iss": "https://absent.example" })), &first),
        ),
        (
            "KEY_UNKNOWN",
            "no key has the token's kid",
            get("/api", &claims_with(&json!({ "iss": PUBLISHED })), &other_key),
        ),
    ];
    for (code, cause, request) in &cases {
        let line = stack.refuses(request, code, cause).await;
        assert!(!line.to_string().contains("secret"), "{line}");
    }

    let expired = stack.refuses(&cases[6].2, cases[6].0, cases[6].1).await;
    assert_eq!((&expired["kid"], &expired["issuer"]), (&json!("first"), &json!(ISSUER)), "{expired}");
    assert_eq!((&expired["audience"], &expired["verified"]), (&json!(["api"]), &json!(false)), "{expired}");
    assert!(expired["expires_in"].as_i64().unwrap() <= -300 && expired["age"].as_i64().unwrap() >= 900, "{expired}");

    // A good token, of an issuer whose keys are fetched.
    let request = get("/api", &claims_with(&json!({ "iss": PUBLISHED })), &published);
    let passes = wait_until(DEADLINE, async || stack.mesh.send(&request).await.status == 200);
    assert!(passes.await);
    assert_eq!(stack.explain_request(&request).await["verdict"], "admitted");

    for kind in [Kind::Session, Kind::User] {
        let claims = claims();
        let request = get("/api", &claims, &first);
        assert_eq!(stack.mesh.send(&request).await.status, 200);
        let id = if kind == Kind::Session { &claims["sid"] } else { &claims["sub"] };
        let revoked = stack.mesh.revoke(&[kind.name(), "--issuer", ISSUER, "--id", id.as_str().unwrap()]).await;
        let token = first.mint(&claims);
        assert!(stack.mesh.becomes_everywhere(&token, 403).await, "{revoked}");
        let line = stack.refuses(&request, "SESSION_REVOKED", "the service says that it was revoked").await;
        let by = (&line["revoked_by"], &line["revocation"], &line["verified"]);
        assert_eq!(by, (&json!(kind.name()), &revoked["key"], &json!(true)), "{line}");
        let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
        let subject = derived.revocation_key(Kind::User, ISSUER, claims["sub"].as_str().unwrap().as_bytes());
        assert_eq!(line["subject"], subject.to_string(), "{line}");
        // Without the token, the service still says so; and once it is lifted, that it is not.
        let response = stack.mesh.send(&request).await;
        let (_, log) = stack.line(response.json()["instance"].as_str().unwrap().trim_start_matches(INSTANCE)).await;
        let said = stack.explain_problem(&response, &log).await;
        assert!(stack.revoked(&said), "{said}");
        stack.mesh.revoke(&["lift", revoked["key"].as_str().unwrap()]).await;
        assert!(!stack.revoked(&stack.explain_problem(&response, &log).await));
    }

    // The servers behind it fail, one after the other.
    stack.idp_is_slow.store(true, Ordering::SeqCst);
    let opaque = Request::get("/api").bearer(&format!("op_{}", random_id()));
    stack.refuses(&opaque, "STORE_UNAVAILABLE", "the introspection server answers with an error").await;
    let fresh = || get("/api", &claims(), &first);
    stack.mesh.redis.as_mut().unwrap().process().pause();
    stack.refuses(&fresh(), "SESSION_STORE_LATENCY", "Redis answers too slowly").await;
    stack.mesh.redis.as_mut().unwrap().process().resume();
    let recovers = wait_until(DEADLINE, async || stack.mesh.send(&fresh()).await.status == 200);
    assert!(recovers.await);
    stack.mesh.redis.as_mut().unwrap().process().kill();
    let refused = wait_until(DEADLINE, async || stack.mesh.send(&fresh()).await.json()["code"] == "REDIS_CONN_REFUSED");
    assert!(refused.await);
    stack.refuses(&fresh(), "REDIS_CONN_REFUSED", "Redis refused the service").await;
    stack.mesh.service.as_mut().unwrap().process().kill();
    stack.refuses(&fresh(), "STORE_UNAVAILABLE", "the service does not answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_a_forged_token_cannot_write_a_line_of_its_own() {
    let mut stack = Stack::start("refusals-forged").await;
    let evil = "https://x\"}\n[critical] all is well\u{1b}[2J\u{202e}";
    let claims = claims_with(&json!({ "iss": evil, "aud": ["a\nb", "x".repeat(3000)] }));
    let request = get("/api", &claims, &stack.published);
    let response = stack.mesh.send(&request).await;
    let body = response.json();
    let (line, log) = stack.line(body["instance"].as_str().unwrap().trim_start_matches(INSTANCE)).await;
    assert_eq!((&line["code"], &line["issuer"]), (&json!("INVALID_ISSUER"), &json!(evil)), "{line}");
    assert_eq!(line["audience"][1].as_str().map(str::len), Some(203));
    assert!(!log.contains("\n[critical] all is well") && !log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log}");
    // An id that a client chose is repeated only in plain characters.
    for id in ["a b", "\"", "x\u{e9}", &"x".repeat(65)] {
        let response = stack.mesh.send(&Request::get("/api").header("x-request-id", id)).await;
        let instance = response.json()["instance"].as_str().unwrap_or(INSTANCE).to_owned();
        let rest = instance.strip_prefix(INSTANCE).unwrap();
        assert!(rest.len() <= 64 && !rest.contains(['"', ' ', 'é']), "{instance}");
    }
}
