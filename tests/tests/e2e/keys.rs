//! Keys that an issuer publishes, and changes, while requests go on: a real Envoy against a provider that may misbehave.
//! Figures are printed with `--nocapture`; docs/keys.md quotes them.
use harness::mesh::{ISSUER, OTHER_ISSUER, claims, claims_with};
use harness::{Answer, Connection, Directory, FilterHost, Mesh, MeshOptions, Request, Response, Upstream, wait_until};
use mint::{Alg, SigningKey, to_base64url};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

mod changes;
mod formats;
mod outages;
mod refresh;
mod under_load;

/// A rule without revocation checks: these tests are about keys alone.
const PATH: &str = "/unchecked";
const KEYS: &str = "/keys";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const TIMEOUT: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);
/// Both workers and the main thread.
fn virtual_machines() -> u64 {
    if FilterHost::is_native() { 1 } else { 3 }
}

/// An identity provider whose reply at each path can be changed at any time.
struct Provider {
    address: SocketAddr,
    says: Arc<Mutex<HashMap<String, Answer>>>,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    /// How often it said that the caller has the newest already.
    unchanged: Arc<AtomicUsize>,
    server: Option<Upstream>,
}

impl Provider {
    async fn start(keys: &[&SigningKey]) -> Self {
        let mut provider = Self::absent();
        provider.publish(KEYS, keys);
        provider.come().await;
        provider
    }

    /// With an address where no server listens yet.
    fn absent() -> Self {
        // Free again as soon as it is known: no other process takes a port that the kernel has just given out.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { address, says: Arc::default(), seen: Arc::default(), unchanged: Arc::default(), server: None }
    }

    async fn come(&mut self) {
        let (says, seen, unchanged) = (Arc::clone(&self.says), Arc::clone(&self.seen), Arc::clone(&self.unchanged));
        let server = Upstream::answering_on(self.address, move |request| {
            seen.lock().unwrap().push((Instant::now(), request.path.clone()));
            let answer = says.lock().unwrap().get(&request.path).cloned().unwrap_or_else(|| Answer::new(404, ""));
            let etag = answer.headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.as_str());
            if etag.is_some() && etag == request.header("if-none-match") {
                unchanged.fetch_add(1, Ordering::SeqCst);
                return Answer { status: 304, body: Vec::new().into(), ..answer };
            }
            answer
        });
        self.server = Some(server.await);
    }

    fn say(&self, path: &str, answer: Answer) {
        self.says.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn publish(&self, path: &str, keys: &[&SigningKey]) {
        self.say(path, Answer::json(200, &set(keys)));
    }

    fn fetches(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|(_, seen)| seen == path).count()
    }

    fn last_fetch(&self) -> Instant {
        self.seen.lock().unwrap().last().expect("a fetch").0
    }
}

fn set(keys: &[&SigningKey]) -> Value {
    json!({ "keys": keys.iter().map(|key| key.public_jwk().unwrap()).collect::<Vec<_>>() })
}

fn key(kid: &str) -> SigningKey {
    SigningKey::generate(Alg::EdDSA, kid)
}

/// The first issuer's keys are fetched, the other one's are in the configuration. There is no revocation service.
fn options(provider: &Provider, jwks: &Value) -> MeshOptions {
    let check_address = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
    let mut options = MeshOptions { check_address, idp: Some(provider.address), ..MeshOptions::default() };
    options.filter["issuers"][0]["jwks"] = with(
        &json!({ "cluster": "idp", "uri": format!("http://idp.example{KEYS}"), "timeout": format!("{}ms", TIMEOUT.as_millis()) }),
        jwks,
    );
    options.filter["issuers"][0].as_object_mut().unwrap().remove("keys");
    options
}

fn with(object: &Value, members: &Value) -> Value {
    let mut object = object.clone();
    for (name, value) in members.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}

fn get(token: &str) -> Request {
    Request::get(PATH).bearer(token)
}

/// A token with an unknown key id.
fn unknown(kid: &str) -> String {
    let part = |value: Value| to_base64url(value.to_string());
    format!("{}.{}.{}", part(json!({ "alg": "EdDSA", "kid": kid })), part(claims()), to_base64url([1; 64]))
}

fn is(response: &Response, status: u16, code: &str) -> bool {
    response.status == status && response.json()["code"] == code
}

/// Waits until each of the connections, and so each worker, lets this key's tokens pass.
async fn until_passes(connections: &mut [Connection], key: &SigningKey) {
    let token = key.mint(&claims());
    for connection in connections {
        let passes = wait_until(DEADLINE, async || connection.send(&get(&token)).await.unwrap().status == 200);
        assert!(passes.await, "{}", connection.send(&get(&token)).await.unwrap().text());
    }
}
