//! Logging in and out at a real OpenID provider, as `make oidc` sets it up: Node and `oidc-provider` are needed, so this
//! is no part of `make test`.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{
    Directory, Mesh, MeshOptions, Process, Redis, Request, Response, START_DEADLINE, Service, ServiceOptions, exchange,
    project, wait_until,
};
use serde_json::{Value, json};

/// The longest that a logout may take to be seen: the freshness of a mesh's verdicts, and a slow machine.
const SEEN: Duration = Duration::from_secs(5);
/// Our client at the provider, and one whose logouts go to a service that does not trust the provider's certificate.
const CLIENT: &str = "portcullis";
const DISTRUSTING: &str = "distrusting";

struct Provider {
    process: Process,
    control: SocketAddr,
    issuer: String,
    keys: Vec<Value>,
    certificate: PathBuf,
}

impl Provider {
    async fn start(directory: &Directory) -> Self {
        let (certificate, key) = certificate(directory.path(), "provider");
        let ready = directory.path().join("provider.json");
        let mut command = Command::new("node");
        command
            .arg(project().join("tests/oidc/provider.mjs"))
            .args([&certificate, &key, &ready])
            .env("NODE_EXTRA_CA_CERTS", &certificate);
        let mut process = Process::start("provider", command, directory.path());
        let read = || serde_json::from_str::<Value>(&std::fs::read_to_string(&ready).ok()?).ok();
        wait_until(START_DEADLINE, async || read().is_some() || !process.is_running()).await;
        let Some(said) = read() else { panic!("the provider does not start:\n{}", process.log_tail()) };
        Self {
            process,
            control: said["control"].as_str().unwrap().parse().unwrap(),
            issuer: said["issuer"].as_str().unwrap().to_owned(),
            keys: said["jwks"]["keys"].as_array().unwrap().clone(),
            certificate,
        }
    }

    async fn step(&self, path: &str, body: &Value) -> Value {
        let text = body.to_string();
        let request = Request::new("POST", path).body(&text);
        let response = exchange(self.control, &request).await.expect("the provider answers");
        assert_eq!(response.status, 200, "{}\n{}", response.text(), self.process.log_tail());
        response.json()
    }

    async fn log_in(&self, client: &str, user: &str) -> (String, String) {
        let said = self.step("/login", &json!({ "client_id": client, "user": user })).await;
        let text = |name: &str| said[name].as_str().expect("a token and its session").to_owned();
        (text("session"), text("access_token"))
    }

    /// Whom the provider told, and how that went.
    async fn log_out(&self, session: &str) -> Value {
        self.step("/logout", &json!({ "session": session })).await["told"].clone()
    }
}

/// Self-signed for `localhost`, and no authority, so that it serves as a server's.
fn certificate(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

async fn service(directory: &Directory, redis: &Redis, provider: &Provider, client: &str, ca_file: &Path) -> Service {
    let providers = json!({ "providers": [{
        "issuer": provider.issuer, "audiences": [client], "discovery": "openid-configuration", "ca_file": ca_file,
        "logout": {},
    }] });
    let file = directory.write(&format!("{client}.json"), providers.to_string());
    let mut options = ServiceOptions::new(redis.url());
    options.arguments = vec!["--providers-file".to_owned(), file.display().to_string()];
    Service::start(directory, options).await
}

fn is_revoked(response: &Response) -> bool {
    response.status == 403 && response.json()["code"] == "SESSION_REVOKED"
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node and oidc-provider: run `make oidc`"]
async fn a_logout_at_the_provider_ends_the_session_at_the_proxy_and_no_other() {
    let directory = Directory::new("oidc");
    let provider = Provider::start(&directory).await;
    let redis = Redis::start(&directory).await;
    let ours = service(&directory, &redis, &provider, CLIENT, &provider.certificate).await;
    let (stranger, _) = certificate(directory.path(), "stranger");
    let apart = Directory::new("oidc-distrusting");
    let mut distrusting = service(&apart, &redis, &provider, DISTRUSTING, &stranger).await;
    let uri = |service: &Service| format!("http://{}/oauth2/backchannel-logout", service.address());
    provider.step("/clients", &json!({ CLIENT: uri(&ours), DISTRUSTING: uri(&distrusting) })).await;

    let mut options = MeshOptions { check_address: Some(ours.address()), ..MeshOptions::default() };
    let keys: Vec<_> = provider.keys.iter().map(|jwk| json!({ "jwk": jwk })).collect();
    let issuer = json!({
        "name": "provider", "issuer": provider.issuer, "audiences": ["api"], "algorithms": ["RS256"], "keys": keys,
    });
    options.filter["issuers"].as_array_mut().unwrap().push(issuer);
    let mesh = Mesh::start_with("oidc-mesh", options).await;

    let (desktop, on_desktop) = provider.log_in(CLIENT, "alice").await;
    let (phone, on_phone) = provider.log_in(CLIENT, "alice").await;
    let (bobs, of_bob) = provider.log_in(CLIENT, "bob").await;
    for token in [&on_desktop, &on_phone, &of_bob] {
        let response = mesh.get(token).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }

    let told = provider.log_out(&desktop).await;
    assert_eq!((told[0]["client_id"].as_str(), told[0]["ok"].as_bool()), (Some(CLIENT), Some(true)), "{told}");
    assert!(wait_until(SEEN, async || is_revoked(&mesh.get(&on_desktop).await)).await, "the session lives on");
    for token in [&on_phone, &of_bob] {
        assert_eq!(mesh.get(token).await.status, 200, "another session ended");
    }
    // On every worker, and for good.
    for mut connection in mesh.connections(1).await {
        assert!(is_revoked(&connection.send(&Request::get("/api").bearer(&on_desktop)).await.unwrap()));
    }
    let told = provider.log_out(&phone).await;
    assert_eq!(told[0]["ok"].as_bool(), Some(true), "{told}");
    assert!(wait_until(SEEN, async || is_revoked(&mesh.get(&on_phone).await)).await);
    assert_eq!(mesh.get(&of_bob).await.status, 200);
    drop(bobs);

    // Keys behind an untrusted certificate are not taken: 503, and no session ends.
    let (elsewhere, of_carol) = provider.log_in(DISTRUSTING, "carol").await;
    assert_eq!(mesh.get(&of_carol).await.status, 200);
    let told = provider.log_out(&elsewhere).await;
    assert_eq!(told[0]["ok"].as_bool(), Some(false), "{told}");
    assert!(told[0]["error"].as_str().is_some_and(|error| error.contains("503")), "{told}");
    assert!(distrusting.process().log().contains("invalid peer certificate"));
    assert_eq!(mesh.get(&of_carol).await.status, 200);
}
