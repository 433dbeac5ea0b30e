//! Sessions that the service makes, through the real Envoy and the tool: admitted until they are ended.
use std::time::Duration;

use harness::{Directory, Mesh, MeshOptions, Redis, Request, Service, ServiceOptions, exchange};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

const ISSUER: &str = "https://sessions.example";
const SECRET: &str = "a-client-secret-of-at-least-32-bytes";

pub struct Sessions {
    pub mesh: Mesh,
    _redis: Redis,
}

impl Sessions {
    async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// `more`: of the service's command line.
    pub async fn start_with(name: &str, more: &[&str]) -> Self {
        let directory = Directory::new(name);
        let redis = Redis::start(&directory).await;
        let key = SigningKey::generate(Alg::ES256, "x");
        let key_file = directory.write("signing.pem", key.private_pem().unwrap());
        directory.write("app", SECRET);
        let clients = json!({ "clients": [{ "client_id": "app", "secret_files": ["app"], "may": ["refresh"] }] });
        let clients = directory.write("clients.json", clients.to_string());
        let mut service = ServiceOptions::new(redis.url());
        let [key_file, clients] = [key_file, clients].map(|path| path.to_str().unwrap().to_owned());
        service.arguments = ["--session-issuer", ISSUER, "--session-audience", "api", "--signing-key", &key_file]
            .into_iter()
            .chain(["--clients-file", &clients, "--refresh-grace", "0s"])
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        let mut jwk = key.public_jwk().unwrap();
        jwk.insert("kid".into(), key.thumbprint().into());
        let mut options = MeshOptions { service: Some(service), ..MeshOptions::default() };
        let issuer = json!({
            "name": "sessions", "issuer": ISSUER, "audiences": ["api"], "algorithms": ["ES256"], "keys": [{ "jwk": jwk }],
        });
        options.filter["issuers"].as_array_mut().unwrap().push(issuer);
        let mesh = Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"));
        Self { mesh, _redis: redis }
    }

    pub fn service(&self) -> &Service {
        self.mesh.service.as_ref().unwrap()
    }

    /// The tool's answers, one a line.
    pub fn tool(&self, arguments: &[&str]) -> Vec<Value> {
        let url = format!("http://{}", self.service().admin_address());
        let token_file = self.service().admin_token_file();
        let common = ["--json", "--service", &url, "--token-file", token_file.to_str().unwrap()];
        let (out, err, code) = Service::portcullis(&[arguments, &common[..]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn create(&self, more: &[&str]) -> Value {
        let base = ["session", "create", "--subject", "alice", "--format", "jwt", "--client-id", "app"];
        self.tool(&[&base[..], more].concat()).remove(0)
    }

    async fn refresh(&self, made: &Value) -> (u16, Value) {
        let token = made["refresh_token"].as_str().unwrap();
        let body = format!("grant_type=refresh_token&refresh_token={token}&client_id=app&client_secret={SECRET}");
        let request = Request::new("POST", "/oauth2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let answer = exchange(self.service().address(), &request).await.unwrap();
        (answer.status, answer.json())
    }

    pub async fn status(&self, made: &Value) -> u16 {
        self.mesh.get(made["access_token"].as_str().unwrap()).await.status
    }

    /// Every worker comes to refuse it.
    pub async fn ends(&self, made: &Value) {
        let token = made["access_token"].as_str().unwrap();
        assert!(self.mesh.becomes_everywhere(token, 403).await);
        for mut connection in self.mesh.connections(1).await {
            let response = connection.send(&Request::get("/api").bearer(token)).await.unwrap();
            assert_eq!(response.status, 403, "{}", response.text());
            assert_eq!(response.json()["code"], "SESSION_REVOKED");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_admitted_until_the_tool_ends_it_and_the_audit_says_who_did() {
    let sessions = Sessions::start("sessions-tool").await;
    let (first, second, third) = (sessions.create(&[]), sessions.create(&[]), sessions.create(&["--reason", "login"]));
    for made in [&first, &second, &third] {
        assert_eq!(sessions.status(made).await, 200);
    }
    let sid = |made: &Value| made["sid"].as_str().unwrap().to_owned();
    assert_eq!(sessions.tool(&["session", "list", "--subject", "alice"]).len(), 3);
    assert_eq!(sessions.tool(&["session", "show", &sid(&third)])[0]["reason"], "login");
    sessions.tool(&["session", "end", &sid(&first), "--reason", "stolen laptop"]);
    sessions.ends(&first).await;
    sessions.tool(&["session", "end", "--subject", "alice", "--except", &sid(&third)]);
    sessions.ends(&second).await;
    assert_eq!(sessions.status(&third).await, 200);
    sessions.tool(&["session", "end", "--subject", "alice"]);
    sessions.ends(&third).await;
    let audit = sessions.tool(&["audit", "--since", "1h"]);
    let ended = audit.iter().find(|entry| entry["action"] == "session.end").unwrap();
    assert_eq!(
        (&ended["reason"], &ended["by"], &ended["sub"]),
        (&json!("stolen laptop"), &json!("admin"), &json!("alice"))
    );
    assert!(!audit.iter().any(|entry| entry.to_string().contains(first["access_token"].as_str().unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_refresh_token_ends_the_session_in_the_proxy() {
    let sessions = Sessions::start("sessions-stolen").await;
    let made = sessions.create(&["--refresh"]);
    let (status, thief) = sessions.refresh(&made).await;
    assert_eq!((status, sessions.status(&thief).await), (200, 200));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (status, problem) = sessions.refresh(&made).await;
    assert_eq!((status, &problem["error"]), (400, &json!("invalid_grant")));
    sessions.ends(&thief).await;
    assert_eq!(sessions.refresh(&thief).await.0, 400);
}
