//! Opaque tokens over time: a real Envoy against a real RFC 7662 server, well, slow, broken and under a flood. The
//! table of cases says what single replies mean.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::mesh::{CHECK_TIMEOUT, FRESHNESS, unix_now};
use harness::{Answer, Connection, Mesh, MeshOptions, RawServer, Reply, Request, Response, Seen, Upstream, wait_until};
use mint::random_id;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

mod jwts;
mod opaque;
mod outages;
mod under_load;

const OPAQUE_ISSUER: &str = "https://opaque.example";
const CLIENT_ID: &str = "gateway";
const CLIENT_SECRET: &str = "never-to-be-seen-in-a-log";
/// The longest that a change at the server may take beyond the freshness.
const GRACE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(10);

/// An introspection server (RFC 7662) whose reply about each token can be changed at any time.
struct Server {
    state: Arc<Mutex<State>>,
    http: Upstream,
}

#[derive(Default)]
struct State {
    /// The response for each token that is active.
    active: HashMap<String, Value>,
    /// Before an answer about a token that is, or is not, active.
    delay: (Duration, Duration),
    /// In the place of every answer.
    instead: Option<Answer>,
    /// When each question came, how long its answer took, and about which token it was.
    asked: Vec<(Instant, Duration, String)>,
}

impl Server {
    async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let http = Upstream::answering(move |seen| answer(&mut shared.lock().unwrap(), &seen)).await;
        Self { state, http }
    }

    /// A new active token of its own session and user.
    fn token(&self) -> String {
        self.token_with(&json!({}))
    }

    /// With these members added or replaced; null takes one away.
    fn token_with(&self, members: &Value) -> String {
        let now = unix_now();
        let mut response = json!({
            "active": true, "token_type": "Bearer", "aud": "api", "iat": now, "exp": now + 600, "sub": random_id(),
            "sid": random_id(), "client_id": "app",
        });
        for (name, value) in members.as_object().unwrap() {
            response[name] = value.clone();
        }
        response.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let token = made_up();
        self.state.lock().unwrap().active.insert(token.clone(), response);
        token
    }

    fn end(&self, token: &str) {
        self.state.lock().unwrap().active.remove(token);
    }

    fn delay(&self, active: Duration, unknown: Duration) {
        self.state.lock().unwrap().delay = (active, unknown);
    }

    fn say_instead(&self, answer: Option<Answer>) {
        self.state.lock().unwrap().instead = answer;
    }

    fn asked(&self, token: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|(.., asked)| asked == token).count()
    }

    /// The most questions that were open at one moment.
    fn most_at_once(&self) -> usize {
        let state = self.state.lock().unwrap();
        let open_at =
            |moment: Instant| state.asked.iter().filter(|(at, took, _)| *at <= moment && moment < *at + *took).count();
        state.asked.iter().map(|(at, ..)| open_at(*at)).max().unwrap_or_default()
    }
}

/// RFC 7662 section 2, with the client's authentication of RFC 6749 section 2.3.1.
fn answer(state: &mut State, seen: &Seen) -> Answer {
    let credentials = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    let is_form = seen.header("content-type") == Some("application/x-www-form-urlencoded");
    if seen.method != "POST" || seen.path != "/oauth2/introspect" || !is_form {
        return Answer::new(404, "");
    }
    if seen.header("authorization") != Some(&credentials) {
        return Answer::new(401, "").header("www-authenticate", "Basic");
    }
    let body = String::from_utf8_lossy(&seen.body).into_owned();
    let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default().to_owned();
    let active = state.active.get(&token).cloned();
    let delay = if active.is_some() { state.delay.0 } else { state.delay.1 };
    state.asked.push((Instant::now(), delay, token));
    if let Some(answer) = &state.instead {
        return answer.clone();
    }
    Answer::json(200, &active.unwrap_or_else(|| json!({ "active": false }))).after(delay)
}

/// A token of the right form that the server does not know.
fn made_up() -> String {
    format!("op_{}", random_id())
}

fn options(server: SocketAddr) -> MeshOptions {
    let mut options = MeshOptions { idp: Some(server), ..MeshOptions::default() };
    let issuer = json!({
        "name": "opaque", "issuer": OPAQUE_ISSUER, "audiences": ["api"],
        "introspection": {
            "cluster": "idp", "path": "/oauth2/introspect", "client_id": CLIENT_ID, "client_secret_env": "CLIENT_SECRET",
            "freshness": format!("{}ms", FRESHNESS.as_millis()), "timeout": format!("{}ms", CHECK_TIMEOUT.as_millis()),
            "format": { "shape": { "prefix": "op_" } },
        },
    });
    options.filter["issuers"].as_array_mut().unwrap().push(issuer);
    options.environment = vec![("CLIENT_SECRET".into(), CLIENT_SECRET.into())];
    options
}

fn code(response: &Response) -> String {
    response.json()["code"].as_str().unwrap_or_default().to_owned()
}

async fn start(name: &str) -> (Server, Mesh) {
    let server = Server::start().await;
    let mesh = Mesh::start_with(name, options(server.http.address())).await;
    (server, mesh)
}

/// With one worker, so that one virtual machine does everything.
async fn start_alone(name: &str) -> (Server, Mesh) {
    let server = Server::start().await;
    let mesh = Mesh::start_with(name, MeshOptions { concurrency: 1, ..options(server.http.address()) }).await;
    (server, mesh)
}

/// Sends `count` requests at once, each on a connection of its own.
async fn at_once(mesh: &Mesh, count: usize, request: impl Fn(usize) -> Request) -> Vec<Response> {
    let mut all = JoinSet::new();
    for number in 0..count {
        let (address, request) = (mesh.envoy.address(), request(number));
        all.spawn(async move { harness::exchange(address, &request).await.expect("Envoy answers") });
    }
    all.join_all().await
}
