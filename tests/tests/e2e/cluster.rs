//! A Redis Cluster, and Sentinels, that lose a primary while requests come: no ended session passes, what was
//! acknowledged stays in force, and all of it recovers by itself.
use harness::mesh::{FRESHNESS, ISSUER, claims, unix_now};
use harness::{
    Cluster, Connection, Directory, Mesh, MeshOptions, NODE_TIMEOUT, Redis, Request, Sentinels, Service,
    ServiceOptions, exchange, wait_until,
};
use mint::random_id;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::check::{CONTENT_TYPE, Needs, PATH, Question, StoreError};
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret};

mod buckets;
mod under_load;

/// The longest that a revocation may take beyond the freshness, from its acknowledgement.
const GRACE: Duration = Duration::from_millis(500);
/// How soon all must be well again: the silence after which a primary is replaced, the election, and a busy machine.
const RECOVERY: Duration = Duration::from_secs(20);
const CODES: [&str; 3] = ["REDIS_CONN_REFUSED", "SESSION_STORE_LATENCY", "STORE_UNAVAILABLE"];

/// A token of a session of its own.
struct Session {
    id: String,
    token: String,
    /// When its revocation was acknowledged.
    ended: Mutex<Option<Instant>>,
}

impl Session {
    fn of(mesh: &Mesh) -> Self {
        let mut claims = claims();
        let id = random_id();
        claims["sid"] = json!(id);
        Self { id, token: mesh.keys.first.mint(&claims), ended: Mutex::default() }
    }

    fn key(&self) -> RevocationKey {
        derived().revocation_key(Kind::Session, ISSUER, self.id.as_bytes())
    }

    /// Where its revocation lies, once there is one.
    fn entry(&self) -> String {
        let key = self.key();
        format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])
    }

    /// The answer of the service about this session alone. A filter also asks about its user and more, which lie on other
    /// servers.
    async fn check(&self, mesh: &Mesh) -> Result<Answer, StoreError> {
        answers(mesh, &[self.key()]).await.map(|answers| answers[0])
    }
}

/// The answers of the service about these keys, in one query.
async fn answers(mesh: &Mesh, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
    let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() };
    let question = Question::new(&derived(), nonce(), needs, keys).unwrap();
    let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(question.bytes());
    let answer = exchange(mesh.service.as_ref().unwrap().address(), &request).await.unwrap();
    question.read_reply(&derived(), answer.status, &answer.body).expect("an authentic reply").map(|reply| reply.answers)
}

fn derived() -> DerivedKeys {
    Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive()
}

/// Never the same twice.
fn nonce() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::SeqCst)).to_be_bytes()
}

async fn mesh_on(directory: Directory, urls: String, arguments: &[&str]) -> Mesh {
    let mut service = ServiceOptions { redis_timeout: None, ..ServiceOptions::new(urls) };
    service.arguments = arguments.iter().map(ToString::to_string).collect();
    let options = MeshOptions { service: Some(service), ..MeshOptions::timed() };
    Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"))
}

async fn cluster(name: &str) -> (Cluster, Mesh) {
    let directory = Directory::new(name);
    let cluster = Cluster::start(directory.path(), 3).await;
    // A shard without its replica confirms nothing, however long it is waited for.
    let arguments = ["--redis-mode", "cluster", "--min-replicas", "1", "--confirm-timeout", "300ms"];
    let mesh = mesh_on(directory, cluster.urls(), &arguments).await;
    (cluster, mesh)
}

/// The answer to one attempt at ending `session`.
async fn try_to_end(mesh: &Mesh, session: &Session) -> (u16, Value) {
    let service = mesh.service.as_ref().unwrap();
    let body = json!({ "kind": "session", "issuer": ISSUER, "id": session.id }).to_string();
    let request = Request::new("POST", "/v1/revocations").bearer(&service.options().admin_token).body(body);
    let answer = exchange(service.admin_address(), &request).await.unwrap();
    if answer.status == 201 {
        session.ended.lock().unwrap().get_or_insert_with(Instant::now);
    }
    (answer.status, answer.json())
}

/// Until it is written at least: a shard that lost its only replica cannot confirm anything. Then it is not known from
/// when it must hold, but it must in the end.
async fn write_end(mesh: &Mesh, session: &Session) {
    let mut last = Value::Null;
    let written = wait_until(RECOVERY, async || {
        let (status, answer) = try_to_end(mesh, session).await;
        last = answer;
        status == 201 || last["written"] == "yes"
    });
    assert!(written.await, "never written: {last}");
}

/// Until it is acknowledged, as an operator would.
async fn end(mesh: &Mesh, session: &Session) {
    let mut last = Value::Null;
    let ended = wait_until(RECOVERY, async || {
        let (status, answer) = try_to_end(mesh, session).await;
        assert!(status == 201 || status == 503, "{status} {answer}");
        last = answer;
        status == 201
    });
    assert!(ended.await, "never acknowledged: {last}");
}

async fn all_are(mesh: &Mesh, sessions: &[Session], status: u16, what: &str) {
    let start = Instant::now();
    for (at, session) in sessions.iter().enumerate() {
        let mut last = (0, String::new());
        let seen = wait_until(RECOVERY, async || {
            let response = mesh.get(&session.token).await;
            last = (response.status, response.text());
            last.0 == status
        });
        assert!(seen.await, "{what}: session {at} is never {status}: {last:?}");
    }
    println!("{what}: all {} are {status} after {} ms", sessions.len(), start.elapsed().as_millis());
}
