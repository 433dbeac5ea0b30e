//! Sessions whose JWTs a token of SoftHSM signs: the real service, the real module, and keys that never leave it.
use std::time::Duration;

use harness::{Directory, Redis, Request, Response, Service, ServiceOptions, SoftHsm, exchange, wait_until};
use serde_json::{Value, json};

const ISSUER: &str = "https://sessions.example";
const SECRET: &str = "a-client-secret-of-at-least-32-bytes";
const PIN: &str = "1234567890";
/// The service sees a lost token at once, and tries again after 1, 2, 4 … seconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// Fields drop in this order.
struct Stack {
    redis: Redis,
    hsm: SoftHsm,
    directory: Directory,
}

impl Stack {
    /// A token `ours` with these keys.
    async fn new(name: &str, keys: &[&str]) -> Self {
        let directory = Directory::new(name);
        let (redis, hsm) = (Redis::start(&directory).await, SoftHsm::new(&directory));
        let stack = Self { redis, hsm, directory };
        stack.make(keys);
        stack.directory.write("pin", format!("{PIN}\n"));
        stack.directory.write("app", SECRET);
        let clients = json!({ "clients": [
            { "client_id": "app", "secret_files": ["app"], "may": ["refresh", "introspect"] },
        ]});
        stack.directory.write("clients.json", clients.to_string());
        stack
    }

    /// The same with a module that does as it is told.
    async fn faulty(name: &str) -> Self {
        let mut stack = Self::new(name, &["p256:p"]).await;
        stack.hsm.make_faulty(&stack.directory);
        stack
    }

    fn make(&self, keys: &[&str]) {
        self.hsm.make(env!("CARGO_BIN_EXE_token"), "ours", PIN, keys);
    }

    fn uri(&self, object: &str) -> String {
        self.uri_with("token=ours", object)
    }

    fn uri_with(&self, token: &str, object: &str) -> String {
        let pin = self.directory.path().join("pin");
        format!("pkcs11:{token};object={object}?module-path={}&pin-source=file:{}", self.hsm.module(), pin.display())
    }

    fn options(&self, keys: &[&str]) -> ServiceOptions {
        let mut options = ServiceOptions::new(self.redis.url());
        let clients = self.directory.path().join("clients.json").display().to_string();
        let fixed = ["--session-issuer", ISSUER, "--session-audience", "api", "--clients-file", &clients];
        options.arguments = fixed.map(str::to_owned).to_vec();
        options.arguments.extend(keys.iter().flat_map(|key| ["--signing-key".to_owned(), (*key).to_owned()]));
        options.environment = self.hsm.environment();
        options
    }

    async fn start(&self, keys: &[&str]) -> Service {
        Service::start(&self.directory, self.options(keys)).await
    }

    /// Why the service does not start with this key.
    async fn refusal(&self, key: &str) -> String {
        let Err(log) = Service::try_start(&self.directory, self.options(&[key])).await else {
            panic!("the service starts with {key}")
        };
        log.lines().last().unwrap_or_default().to_owned()
    }

    /// What the filter's own code says of the token, with what the service publishes: another library than the one that the
    /// service verifies with.
    async fn admits(&self, service: &Service, token: &str) -> bool {
        let set = self.directory.write("jwks.json", jwks(service).await.to_string());
        let filter = json!({
            "issuers": [{
                "name": "sessions", "issuer": ISSUER, "audiences": ["api"], "algorithms": ["RS256", "ES256", "EdDSA"],
                "jwks": { "cluster": "idp", "uri": "http://idp/jwks" },
            }],
            "tokens": { "headers": [{ "name": "authorization", "scheme": "Bearer" }] },
            "rules": [{ "name": "api", "match": { "path": { "prefix": "/" } }, "access": "required" }],
        });
        let filter = self.directory.write("filter.json", filter.to_string());
        let set = format!("sessions={}", set.display());
        let arguments = [
            "explain",
            "--json",
            "--answer=live",
            "--config",
            filter.to_str().unwrap(),
            "--jwks",
            &set,
            "--token",
            token,
        ];
        let (out, err, _) = Service::portcullis(&arguments);
        let said: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        assert!(["admitted", "refused"].contains(&said["verdict"].as_str().unwrap_or_default()), "{said}");
        said["verdict"] == "admitted"
    }
}

async fn jwks(service: &Service) -> Value {
    let answer = exchange(service.address(), &Request::get("/.well-known/jwks.json")).await.unwrap();
    assert_eq!(answer.status, 200);
    answer.json()
}

fn kids(jwks: &Value) -> Vec<&str> {
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect()
}

async fn create(service: &Service, format: &str) -> Response {
    let body = json!({ "subject": "alice", "client_id": "app", "format": format, "refresh": true });
    let request = Request::new("POST", "/v1/sessions").bearer(&service.options().admin_token).body(body.to_string());
    exchange(service.admin_address(), &request).await.unwrap()
}

async fn created(service: &Service) -> Value {
    let answer = create(service, "jwt").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn as_client(service: &Service, path: &str, form: &str) -> Response {
    let request = Request::new("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("{form}&client_id=app&client_secret={SECRET}"));
    exchange(service.address(), &request).await.unwrap()
}

async fn refresh(service: &Service, made: &Value) -> Response {
    let token = made["refresh_token"].as_str().unwrap();
    as_client(service, "/oauth2/token", &format!("grant_type=refresh_token&refresh_token={token}")).await
}

async fn ready(service: &Service) -> Value {
    let answer = exchange(service.address(), &Request::get("/readyz")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn metric(service: &Service, name: &str) -> f64 {
    let text = exchange(service.admin_address(), &Request::get("/metrics")).await.unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[tokio::test]
async fn each_kind_of_key_signs_in_its_token_and_verifies_with_the_published_set() {
    let stack = Stack::new("hsm-kinds", &["rsa:r", "p256:p", "ed25519:e"]).await;
    let uris = ["r", "p", "e"].map(|name| stack.uri(name));
    let mut published = Vec::new();
    for (first, alg) in ["RS256", "ES256", "EdDSA"].into_iter().enumerate() {
        let keys: Vec<&str> = uris[first..].iter().chain(&uris[..first]).map(String::as_str).collect();
        let service = stack.start(&keys).await;
        let made = created(&service).await;
        let token = text(&made, "access_token");
        assert!(stack.admits(&service, token).await, "{alg}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        assert!(!stack.admits(&service, &format!("{signed}.{other}{}", &signature[1..])).await, "{alg}");
        // The service's own verifier, and the refreshed token.
        let introspected = as_client(&service, "/oauth2/introspect", &format!("token={token}")).await;
        assert_eq!(introspected.json()["active"], true, "{}", introspected.text());
        let refreshed = refresh(&service, &made).await.json();
        assert!(stack.admits(&service, text(&refreshed, "access_token")).await);
        let set = jwks(&service).await;
        assert_eq!((set["keys"][0]["alg"].as_str(), kids(&set).len()), (Some(alg), 3), "{set}");
        for key in set["keys"].as_array().unwrap() {
            assert!(["d", "p", "q"].iter().all(|secret| key.get(secret).is_none()), "{key}");
        }
        let mut names: Vec<String> = kids(&set).into_iter().map(str::to_owned).collect();
        names.sort();
        published.push(names);
        assert_eq!(ready(&service).await, json!({ "ready": true }));
        assert_eq!(metric(&service, "portcullis_signatures_total{result=\"done\"}").await, 2.0);
    }
    // The names come from the keys, so no restart changes them.
    assert!(published.iter().all(|names| *names == published[0]), "{published:?}");
}

#[tokio::test]
async fn a_key_in_a_file_and_one_in_a_token_take_each_other_over() {
    let stack = Stack::new("hsm-rotation", &["p256:p"]).await;
    let pem = mint::SigningKey::generate(mint::Alg::EdDSA, "x");
    let file = stack.directory.write("signing.pem", pem.private_pem().unwrap());
    let (file, uri) = (file.to_str().unwrap(), stack.uri("p"));
    let old = created(&stack.start(&[file, &uri]).await).await;
    let service = stack.start(&[&uri, file]).await;
    let new = created(&service).await;
    for made in [&old, &new] {
        assert!(stack.admits(&service, text(made, "access_token")).await);
    }
    let set = jwks(&service).await;
    assert_eq!((set["keys"][0]["alg"].as_str(), set["keys"][1]["alg"].as_str()), (Some("ES256"), Some("EdDSA")));
    // The file is replaced while the token's key signs: the token's stays, both files' are published.
    let next = mint::SigningKey::generate(mint::Alg::RS256, "x");
    stack.directory.write("signing.pem", next.private_pem().unwrap());
    wait_until(DEADLINE, async || kids(&jwks(&service).await).len() == 3).await;
    let set = jwks(&service).await;
    assert_eq!(kids(&set).len(), 3, "{set}");
    assert!(stack.admits(&service, text(&created(&service).await, "access_token")).await);
    assert!(stack.admits(&service, text(&old, "access_token")).await);
}

#[tokio::test]
async fn what_cannot_sign_is_refused_at_the_start_with_the_name_of_what_is_wrong() {
    let keys = ["p256:p", "p384:other-curve", "mute:mute", "strange:strange", "p256:twin", "p256:twin"];
    let stack = Stack::new("hsm-refusals", &keys).await;
    let (module, pin) = (stack.hsm.module(), stack.directory.path().join("pin"));
    for (key, words) in [
        (stack.uri("nobody"), ["`object`", "no such private key"]),
        (stack.uri("twin"), ["`object`", "2 private keys"]),
        (stack.uri("other-curve"), ["`object`", "P-256"]),
        (stack.uri("mute"), ["`object`", "CKA_SIGN"]),
        (stack.uri("strange"), ["`object`", "does not verify"]),
        (stack.uri_with("token=theirs", "p"), ["`token`", "`ours`"]),
        (stack.uri_with("serial=00", "p"), ["`serial`", "`ours`"]),
        (stack.uri("p").replace(&module, "/nowhere/module.so"), ["`module-path`", "/nowhere/module.so"]),
        (stack.uri("p").replace(&module, "/etc/hostname"), ["`module-path`", "/etc/hostname"]),
        (stack.uri("p").replace(&pin.display().to_string(), "/nowhere/pin"), ["`pin-source`", "/nowhere/pin"]),
    ] {
        let why = stack.refusal(&key).await;
        assert!(words.iter().all(|word| why.contains(word)), "{key} gave {why}");
    }
    // The default help text of clap is not shown.
    let why = stack.refusal(&format!("{}&pin-value={PIN}", stack.uri("p"))).await;
    assert!(why.contains("`pin-value`") && !why.contains(PIN), "{why}");
    for (pin, word) in [("0987654321", "refused this PIN"), ("", "one line"), ("1\n2", "one line")] {
        stack.directory.write("pin", pin);
        let why = stack.refusal(&stack.uri("p")).await;
        assert!(why.contains("`pin-source`") && why.contains(word), "{pin} gave {why}");
        assert!(pin.is_empty() || !why.contains(&format!("{pin:?}")), "{why}");
    }
}

#[tokio::test]
async fn a_lost_token_is_503_for_jwts_alone_and_signs_again_when_it_is_back() {
    let stack = Stack::new("hsm-lost", &["p256:p"]).await;
    let mut service = stack.start(&[&stack.uri("p")]).await;
    let made = created(&service).await;
    stack.hsm.take_away();

    let answer = create(&service, "jwt").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("signing_unavailable")),
        "{}",
        answer.text()
    );
    let answer = refresh(&service, &made).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("temporarily_unavailable")));
    assert_eq!(answer.json()["error_description"], "signing_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(ready(&service).await, json!({ "ready": true, "signing": "unavailable" }));
    assert_eq!(metric(&service, "portcullis_signing_ready").await, 0.0);
    assert!(metric(&service, "portcullis_signatures_total{result=\"failed\"}").await >= 2.0);
    // All else goes on: issued tokens verify, opaque sessions are made.
    let token = text(&made, "access_token");
    assert!(stack.admits(&service, token).await);
    let introspected = as_client(&service, "/oauth2/introspect", &format!("token={token}")).await;
    assert_eq!(introspected.json()["active"], true);
    assert_eq!(create(&service, "opaque").await.status, 201);
    let log = service.process().log();
    assert!(log.contains("a token does not sign") && !log.contains(PIN), "{log}");

    stack.hsm.bring_back();
    wait_until(DEADLINE, async || ready(&service).await == json!({ "ready": true })).await;
    assert_eq!(ready(&service).await, json!({ "ready": true }), "{}", service.process().log_tail());
    assert_eq!(metric(&service, "portcullis_signing_ready").await, 1.0);
    assert!(stack.admits(&service, text(&created(&service).await, "access_token")).await);
    // The refresh that failed used nothing up.
    assert!(stack.admits(&service, text(&refresh(&service, &made).await.json(), "access_token")).await);
}

async fn refused(service: &Service) {
    let answer = create(service, "jwt").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("signing_unavailable")),
        "{}",
        answer.text()
    );
}

async fn recovers(service: &Service) {
    wait_until(DEADLINE, async || create(service, "jwt").await.status == 201).await;
    created(service).await;
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_never_when_it_is_the_last_try() {
    let stack = Stack::faulty("hsm-pin").await;
    stack.hsm.says("final try");
    let why = stack.refusal(&stack.uri("p")).await;
    assert!(why.contains("`pin-source`") && why.contains("CKF_USER_PIN_FINAL_TRY"), "{why}");
    assert_eq!(stack.hsm.calls('L'), 0);

    stack.hsm.says("");
    let service = stack.start(&[&stack.uri("p")]).await;
    created(&service).await;
    let logins = stack.hsm.calls('L');
    stack.directory.write("pin", "0987654321");
    // Logged in is logged in.
    created(&service).await;
    // A failed session is closed, and with its last session the login ends.
    stack.hsm.says("fail");
    refused(&service).await;
    stack.hsm.says("");
    refused(&service).await;
    assert_eq!(stack.hsm.calls('L'), logins + 1);
    for _ in 0..20 {
        refused(&service).await;
    }
    assert_eq!(stack.hsm.calls('L'), logins + 1);
    stack.directory.write("pin", PIN);
    recovers(&service).await;
}

#[tokio::test]
async fn two_wrong_pins_of_one_token_do_not_take_turns() {
    let stack = Stack::faulty("hsm-pins").await;
    stack.make(&["p256:q"]);
    stack.directory.write("other-pin", PIN);
    let other = stack.uri("q").replace("/pin", "/other-pin");
    let service = stack.start(&[&stack.uri("p"), &other]).await;
    created(&service).await;
    // A failure restarts the module, which ends the login of both keys; then each finds its wrong PIN.
    stack.directory.write("pin", "0987654321");
    stack.directory.write("other-pin", "1111111111");
    for (tries, word) in [(1, "fail"), (2, "")] {
        stack.hsm.says(word);
        wait_until(DEADLINE, async || {
            refused(&service).await;
            stack.hsm.calls('W') >= tries
        })
        .await;
    }
    for _ in 0..5 {
        refused(&service).await;
    }
    assert_eq!(stack.hsm.calls('W'), 2);
}

#[tokio::test]
async fn a_token_that_hangs_takes_so_many_sessions_and_so_long_and_nothing_else() {
    let stack = Stack::faulty("hsm-hangs").await;
    let uri = stack.uri("p");
    let mut options = stack.options(&[&uri]);
    options.arguments.extend(["--signing-sessions", "2", "--signing-timeout", "1s"].map(str::to_owned));
    let mut service = Service::start(&stack.directory, options).await;
    let all = async |count: usize| {
        let asked: Vec<_> = (0..count).map(|_| create(&service, "jwt")).collect();
        futures_util::future::join_all(asked).await
    };
    // Each waits its turn.
    assert!(all(30).await.iter().all(|answer| answer.status == 201));
    assert!(stack.hsm.calls('O') - stack.hsm.calls('C') <= 2);

    let before = stack.hsm.calls('S');
    stack.hsm.says("hang");
    let answers = all(100).await;
    assert!(answers.iter().all(|answer| answer.status == 503), "{}", answers[0].text());
    assert!(stack.hsm.calls('S') - before <= 2);
    assert!(metric(&service, "portcullis_signatures_total{result=\"busy\"}").await >= 1.0);
    assert!(metric(&service, "portcullis_signatures_total{result=\"timed_out\"}").await >= 1.0);
    assert_eq!(create(&service, "opaque").await.status, 201);
    assert_eq!(ready(&service).await, json!({ "ready": true, "signing": "unavailable" }));
    stack.hsm.says("");
    recovers(&service).await;
    assert!(stack.hsm.calls('O') - stack.hsm.calls('C') <= 2);

    // Nor does it hold up the end.
    stack.hsm.says("hang");
    refused(&service).await;
    assert!(service.process().stop(), "{}", service.process().log_tail());
}

#[tokio::test]
async fn what_a_token_signs_wrongly_is_given_to_nobody() {
    let stack = Stack::faulty("hsm-lies").await;
    let service = stack.start(&[&stack.uri("p")]).await;
    stack.hsm.says("lie");
    refused(&service).await;
    stack.hsm.says("");
    recovers(&service).await;
    stack.hsm.says("lie");
    let why = stack.refusal(&stack.uri("p")).await;
    assert!(why.contains("does not verify"), "{why}");
}
