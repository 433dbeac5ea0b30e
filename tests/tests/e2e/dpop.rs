//! Proofs of possession (RFC 9449) are used up once: on all workers of a proxy, at all proxies of a service, and also when
//! the service is restarted. Nonces, and sessions of our own that are bound to a key.
use std::time::Duration;

use futures_util::future::join_all;
use harness::mesh::{claims_with, unix_now};
use harness::{
    Directory, Envoy, EnvoyOptions, Mesh, MeshOptions, Redis, Request, Response, ServiceOptions, exchange, wait_until,
};
use mint::{Alg, Proof, SigningKey};
use serde_json::{Value, json};

const ORIGIN: &str = "https://api.example";
const REPLAYED: (u16, &str) = (401, "DPOP_PROOF_REPLAYED");
const PASSED: (u16, &str) = (200, "");

fn with_dpop(mut options: MeshOptions, dpop: &Value) -> MeshOptions {
    options.filter["dpop"] = json!({ "origins": [ORIGIN] });
    options.filter["dpop"].as_object_mut().unwrap().extend(dpop.as_object().unwrap().clone());
    let fleet = json!({
        "name": "fleet", "match": { "path": { "prefix": "/fleet" } }, "access": "required",
        "dpop": { "replay": "fleet" },
    });
    options.filter["rules"].as_array_mut().unwrap().insert(0, fleet);
    options
}

/// A client with its key and a token that is bound to it.
struct Client {
    key: SigningKey,
    token: String,
}

impl Client {
    fn new(mesh: &Mesh) -> Self {
        let key = SigningKey::generate(Alg::ES256, "client");
        let token = mesh.keys.first.mint(&claims_with(&json!({ "cnf": { "jkt": key.thumbprint() } })));
        Self { key, token }
    }

    fn request(&self, path: &str, nonce: Option<&str>) -> Request {
        request(&self.key, path, &self.token, nonce)
    }
}

fn request(key: &SigningKey, path: &str, token: &str, nonce: Option<&str>) -> Request {
    let url = format!("{ORIGIN}{path}");
    let proof = Proof { method: "GET", url: &url, token: Some(token), nonce, iat: unix_now() };
    let request = Request::get(path).header("authorization", format!("DPoP {token}"));
    request.header("dpop", key.prove(&proof).unwrap())
}

fn seen(response: &Response) -> (u16, String) {
    let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
    (response.status, code)
}

async fn send(address: std::net::SocketAddr, request: &Request) -> (u16, String) {
    seen(&exchange(address, request).await.expect("Envoy answers"))
}

fn is(seen: &(u16, String), expected: (u16, &str)) -> bool {
    (seen.0, seen.1.as_str()) == expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_passes_once_on_all_workers_of_a_proxy() {
    let mesh = Mesh::start_with("dpop-workers", with_dpop(MeshOptions::default(), &json!({}))).await;
    let client = Client::new(&mesh);
    // One after another, on each worker.
    let once = client.request("/api", None);
    let mut all = Vec::new();
    for mut connection in mesh.connections(2).await {
        all.push(seen(&connection.send(&once).await.unwrap()));
    }
    assert!(is(&all[0], PASSED) && all[1..].iter().all(|seen| is(seen, REPLAYED)), "{all:?}");

    // All at once.
    for _ in 0..40 {
        let once = client.request("/api", None);
        let connections = mesh.connections(2).await;
        let sent = connections.into_iter().map(|mut connection| {
            let once = once.clone();
            async move { seen(&connection.send(&once).await.unwrap()) }
        });
        let all = join_all(sent).await;
        assert_eq!(all.iter().filter(|seen| is(seen, PASSED)).count(), 1, "{all:?}");
        assert_eq!(all.iter().filter(|seen| is(seen, REPLAYED)).count(), all.len() - 1, "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_passes_once_at_all_proxies_and_not_again_after_a_restart_of_the_service() {
    let options = with_dpop(MeshOptions::default(), &json!({}));
    let (filter, environment) =
        (options.filter.clone(), ("KEY_SHARED", options.keys.shared.secret().unwrap().to_vec()));
    let mut mesh = Mesh::start_with("dpop-fleet", options).await;
    let directory = Directory::new("dpop-fleet-other");
    let service = mesh.service.as_ref().unwrap().address();
    let mut other = EnvoyOptions::new(mesh.upstream.address(), service, Some(filter));
    other.environment = vec![
        ("PORTCULLIS_SECRET".to_owned(), MeshOptions::secret()),
        (environment.0.to_owned(), mint::to_base64url(environment.1)),
    ];
    let other = Envoy::start(&directory, other).await;
    let (here, there) = (mesh.envoy.address(), other.address());
    let client = Client::new(&mesh);

    for (first, second) in [(here, there), (there, here), (here, here)] {
        let once = client.request("/fleet", None);
        assert!(is(&send(first, &once).await, PASSED));
        let again = send(second, &once).await;
        assert!(is(&again, REPLAYED), "{again:?}");
    }
    // Where only the process remembers, another proxy does not know.
    let once = client.request("/api", None);
    assert!(is(&send(here, &once).await, PASSED) && is(&send(there, &once).await, PASSED));

    // All at once, at both.
    for _ in 0..20 {
        let once = client.request("/fleet", None);
        let all = join_all([here, there, here, there].map(|address| send(address, &once))).await;
        assert_eq!(all.iter().filter(|seen| is(seen, PASSED)).count(), 1, "{all:?}");
    }

    let before = client.request("/fleet", None);
    assert!(is(&send(here, &before).await, PASSED));
    mesh.service.as_mut().unwrap().process().stop();
    let meanwhile = client.request("/fleet", None);
    assert_eq!(send(here, &meanwhile).await.0, 503, "nobody can tell");
    mesh.service.as_mut().unwrap().restart().await;
    let passes = async || is(&send(here, &client.request("/fleet", None)).await, PASSED);
    assert!(wait_until(Duration::from_secs(10), passes).await, "new proofs pass again");
    let after = send(there, &before).await;
    assert!(is(&after, REPLAYED), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_a_nonce_and_the_next_one_before_it_ends() {
    let options = with_dpop(MeshOptions::default(), &json!({ "nonce": { "lifetime": "10s" } }));
    let mesh = Mesh::start_with("dpop-nonce", options).await;
    let client = Client::new(&mesh);
    let response = mesh.send(&client.request("/api", None)).await;
    assert_eq!(seen(&response), (401, "DPOP_NONCE_REQUIRED".to_owned()));
    let challenge = response.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("DPoP error=\"use_dpop_nonce\"") && challenge.contains("algs=\"ES256 "),
        "{challenge}"
    );
    let nonce = response.header("dpop-nonce").unwrap().to_owned();

    let response = mesh.send(&client.request("/api", Some(&nonce))).await;
    assert_eq!((response.status, response.header("dpop-nonce")), (200, None));
    assert!(response.upstream_saw("dpop").is_empty());
    let mut next = None;
    let comes = wait_until(Duration::from_secs(9), async || {
        let response = mesh.send(&client.request("/api", Some(&nonce))).await;
        assert_eq!(response.status, 200, "{}", response.text());
        next = response.header("dpop-nonce").map(str::to_owned);
        next.is_some()
    });
    assert!(comes.await, "in the last third of its lifetime");
    let response = mesh.send(&client.request("/api", next.as_deref())).await;
    assert_eq!((response.status, response.header("dpop-nonce")), (200, None));
}

const ISSUER: &str = "https://sessions.example";
const TOKEN_URL: &str = "https://sessions.example/oauth2/token";
const SECRET: &str = "a-client-secret-of-at-least-32-bytes";

struct Sessions {
    mesh: Mesh,
    _redis: Redis,
}

impl Sessions {
    /// The filter verifies JWTs of the service and asks it about opaque tokens.
    async fn start() -> Self {
        let directory = Directory::new("dpop-sessions");
        let redis = Redis::start(&directory).await;
        let key = SigningKey::generate(Alg::ES256, "x");
        let key_file = directory.write("signing.pem", key.private_pem().unwrap());
        directory.write("app", SECRET);
        let may = ["refresh", "introspect"];
        let clients = json!({ "clients": [{ "client_id": "app", "secret_files": ["app"], "may": may }] });
        let clients = directory.write("clients.json", clients.to_string());
        let mut service = ServiceOptions::new(redis.url());
        let [key_file, clients] = [key_file, clients].map(|path| path.to_str().unwrap().to_owned());
        let more = ["--session-issuer", ISSUER, "--session-audience", "api", "--signing-key", &key_file];
        let more = more.into_iter().chain(["--clients-file", &clients, "--token-url", TOKEN_URL]);
        service.arguments = more.map(str::to_owned).collect();
        let mut jwk = key.public_jwk().unwrap();
        jwk.insert("kid".into(), key.thumbprint().into());
        let options = MeshOptions {
            service: Some(service),
            environment: vec![("CLIENT_SECRET".into(), SECRET.into())],
            ..MeshOptions::default()
        };
        let mut options = with_dpop(options, &json!({}));
        let introspection = json!({
            "cluster": "session_service", "path": "/oauth2/introspect", "client_id": "app",
            "client_secret_env": "CLIENT_SECRET", "format": "portcullis",
        });
        let issuer = json!({
            "name": "sessions", "issuer": ISSUER, "audiences": ["api"], "algorithms": ["ES256"],
            "keys": [{ "jwk": jwk }], "introspection": introspection,
        });
        options.filter["issuers"].as_array_mut().unwrap().push(issuer);
        let mesh = Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"));
        Self { mesh, _redis: redis }
    }

    async fn create(&self, format: &str, jkt: Option<String>) -> Value {
        let service = self.mesh.service.as_ref().unwrap();
        let mut body = json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": format });
        if let Some(jkt) = jkt {
            body["binding"] = json!({ "jkt": jkt });
        }
        let request = Request::new("POST", "/v1/sessions")
            .bearer(&service.options().admin_token)
            .header("content-type", "application/json")
            .body(body.to_string());
        let response = exchange(service.admin_address(), &request).await.unwrap();
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()
    }

    async fn post(&self, path: &str, form: &str, proof: Option<String>) -> (u16, Value) {
        let request = Request::new("POST", path).header("content-type", "application/x-www-form-urlencoded");
        let request = match proof {
            Some(proof) => request.header("dpop", proof),
            None => request,
        };
        let form = format!("{form}&client_id=app&client_secret={SECRET}");
        let address = self.mesh.service.as_ref().unwrap().address();
        let response = exchange(address, &request.body(form)).await.unwrap();
        (response.status, response.json())
    }

    async fn refresh(&self, tokens: &Value, proof: Option<String>) -> (u16, Value) {
        let token = tokens["refresh_token"].as_str().unwrap();
        self.post("/oauth2/token", &format!("grant_type=refresh_token&refresh_token={token}"), proof).await
    }

    async fn passes(&self, tokens: &Value, key: &SigningKey) -> bool {
        let token = tokens["access_token"].as_str().unwrap();
        let bearer = self.mesh.get(token).await;
        assert_eq!(seen(&bearer), (401, "DPOP_BINDING_MISMATCH".to_owned()), "a bound token under Bearer");
        self.mesh.send(&request(key, "/api", token, None)).await.status == 200
    }
}

fn token_proof(key: &SigningKey, url: &str) -> String {
    key.prove(&Proof { method: "POST", url, token: None, nonce: None, iat: unix_now() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_bound_at_its_creation_or_by_a_proof_in_its_token_request() {
    let sessions = Sessions::start().await;
    let (key, thief) = (SigningKey::generate(Alg::ES256, "client"), SigningKey::generate(Alg::EdDSA, "thief"));
    for format in ["opaque", "jwt"] {
        let made = sessions.create(format, Some(key.thumbprint())).await;
        assert_eq!(made["token_type"], "DPoP");
        assert!(sessions.passes(&made, &key).await && !sessions.passes(&made, &thief).await, "{format}");
        // Each refresh proves the key.
        for proof in [None, Some(token_proof(&thief, TOKEN_URL)), Some(token_proof(&key, "https://sessions.example/"))]
        {
            let (status, problem) = sessions.refresh(&made, proof).await;
            assert_eq!((status, problem["error"].as_str()), (400, Some("invalid_dpop_proof")), "{format}");
        }
        let proof = token_proof(&key, TOKEN_URL);
        let (status, next) = sessions.refresh(&made, Some(proof.clone())).await;
        assert_eq!((status, next["token_type"].as_str()), (200, Some("DPoP")), "{format}: {next}");
        assert!(sessions.passes(&next, &key).await && !sessions.passes(&next, &thief).await, "{format}");
        let (status, problem) = sessions.refresh(&next, Some(proof)).await;
        assert_eq!((status, problem["error"].as_str()), (400, Some("invalid_dpop_proof")), "{format}: used before");

        // One that is bound to nothing: the proof binds the new access token.
        let made = sessions.create(format, None).await;
        assert_eq!(made["token_type"], "Bearer");
        assert_eq!(sessions.mesh.get(made["access_token"].as_str().unwrap()).await.status, 200);
        let (status, next) = sessions.refresh(&made, Some(token_proof(&key, TOKEN_URL))).await;
        assert_eq!((status, next["token_type"].as_str()), (200, Some("DPoP")), "{format}: {next}");
        assert!(sessions.passes(&next, &key).await && !sessions.passes(&next, &thief).await, "{format}");
        let token = next["access_token"].as_str().unwrap();
        let (_, active) = sessions.post("/oauth2/introspect", &format!("token={token}"), None).await;
        assert_eq!(
            (&active["token_type"], &active["cnf"]["jkt"]),
            (&json!("DPoP"), &json!(key.thumbprint())),
            "{format}"
        );
        let (status, last) = sessions.refresh(&next, None).await;
        assert_eq!((status, last["token_type"].as_str()), (200, Some("Bearer")), "{format}: {last}");
    }
}
