//! Opaque tokens over time: a real Envoy against a real RFC 7662 server, well, slow, broken and under a flood. What single
//! answers mean is in the table of cases.
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mint::random_id;
use serde_json::{Value, json};
use tests::mesh::{CHECK_TIMEOUT, FRESHNESS, unix_now};
use tests::{
    Answer, Connection, Host, Mesh, MeshOptions, RawServer, Reply, Request, Response, Seen, Upstream, wait_until,
};
use tokio::task::JoinSet;

const OPAQUE_ISSUER: &str = "https://opaque.example";
const CLIENT_ID: &str = "gateway";
const CLIENT_SECRET: &str = "never-to-be-seen-in-a-log";
/// What a change at the server may take beyond the freshness.
const GRACE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// An introspection server (RFC 7662): what it says of each token can be changed at any time.
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

/// Of the right form, and nobody's.
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

/// With one worker: what it does is done by one virtual machine.
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
        all.spawn(async move { tests::exchange(address, &request).await.expect("Envoy answers") });
    }
    all.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_ends_is_refused_on_every_worker_within_the_freshness_and_comes_back_as_fast() {
    let (server, mesh) = start("opaque-ended").await;
    let token = server.token();
    let mut connections = mesh.connections(1).await;
    for connection in &mut connections {
        assert_eq!(connection.send(&Request::get("/api").bearer(&token)).await.unwrap().status, 200);
    }
    let asked = server.asked(&token);
    let least = if Host::is_native() { 1 } else { 2 };
    assert!((least..=3).contains(&asked), "each of two workers asks once and remembers: {asked}");

    let response = server.state.lock().unwrap().active[&token].clone();
    server.end(&token);
    let ended = Instant::now();
    let mut last_pass = ended;
    while ended.elapsed() < FRESHNESS + GRACE {
        for connection in &mut connections {
            let at = Instant::now();
            let seen = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            match (seen.status, code(&seen).as_str()) {
                (200, _) => last_pass = at,
                (401, "SESSION_UNKNOWN") => {}
                other => panic!("{other:?}"),
            }
        }
    }
    println!("the last to pass was sent {} ms after the end", (last_pass - ended).as_millis());
    assert!(last_pass - ended < FRESHNESS, "an answer counts from when it was asked for");

    // A "no" is remembered for just as long: many requests are few questions.
    let before = server.asked(&token);
    let start = Instant::now();
    while start.elapsed() < FRESHNESS {
        for connection in &mut connections {
            assert_eq!(connection.send(&Request::get("/api").bearer(&token)).await.unwrap().status, 401);
        }
    }
    let questions = server.asked(&token) - before;
    assert!(questions <= 4, "{questions} questions of two workers in one freshness");
    server.state.lock().unwrap().active.insert(token.clone(), response);
    for connection in &mut connections {
        let request = Request::get("/api").bearer(&token);
        let passes = wait_until(FRESHNESS + GRACE, async || connection.send(&request).await.unwrap().status == 200);
        assert!(passes.await, "it is active again");
    }
    let active = mesh.envoy.stats("portcullis.introspections").await;
    let count = |result: &str| active.iter().find(|(name, _)| name.ends_with(result)).map(|(_, count)| *count);
    assert!(count("issuer.opaque.result.active") >= Some(4), "{active:?}");
    assert!(count("issuer.opaque.result.inactive") >= Some(2), "{active:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_many_wait_for_is_asked_about_once_and_their_bodies_wait_with_them() {
    let (server, mesh) = start_alone("opaque-shared").await;
    server.delay(Duration::from_millis(200), Duration::ZERO);
    let token = server.token();
    // The first one goes away while all wait: its question must not go with it.
    let mut first = Connection::open(mesh.envoy.address()).await.unwrap();
    let gone = Request::get("/api").bearer(&token).to_bytes();
    tokio::time::timeout(Duration::from_millis(50), first.send_bytes(&gone, false)).await.unwrap_err();
    assert!(wait_until(PATIENCE, async || server.asked(&token) == 1).await);
    drop(first);
    let before = mesh.upstream.requests();
    let post = |_| Request::new("POST", "/api").bearer(&token).body("x".repeat(10_000));
    let responses = at_once(&mesh, 50, post).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert!(responses.iter().all(|response| response.json()["body_bytes"] == 10_000));
    assert_eq!(server.asked(&token), 1);
    assert_eq!(mesh.upstream.requests() - before, 50, "and the one that went away reached nobody");

    // Refused ones do not leak their body either.
    let bad = made_up();
    server.delay(Duration::ZERO, Duration::from_millis(200));
    let responses = at_once(&mesh, 20, |_| Request::new("POST", "/api").bearer(&bad).body("x".repeat(10_000))).await;
    assert!(responses.iter().all(|response| code(response) == "SESSION_UNKNOWN"));
    assert_eq!((server.asked(&bad), mesh.upstream.requests() - before), (1, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_tokens_starves_no_good_one() {
    let server = Server::start().await;
    let mut options = MeshOptions { concurrency: 1, ..options(server.http.address()) };
    options.filter["limits"] = json!({ "waiting_requests": 128 });
    let mesh = Mesh::start_with("opaque-flood", options).await;
    let good: Vec<String> = (0..8).map(|_| server.token()).collect();
    for token in &good {
        assert_eq!(mesh.get(token).await.status, 200);
    }
    // A server that takes its time over what it does not know.
    server.delay(Duration::from_millis(5), Duration::from_millis(300));
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for _ in 0..200 {
        let (address, stop) = (mesh.envoy.address(), Arc::clone(&stop));
        flood.spawn(async move {
            let mut seen: HashMap<(u16, String), u64> = HashMap::new();
            let mut connection = Connection::open(address).await.expect("Envoy listens");
            while !stop.load(Ordering::SeqCst) {
                let response = connection.send(&Request::get("/api").bearer(&made_up())).await.expect("Envoy answers");
                *seen.entry((response.status, code(&response))).or_default() += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            seen
        });
    }
    // Full, so that what comes now has to have a place of its own.
    let overload = "wasmcustom.portcullis.introspections.issuer.opaque.result.overload";
    assert!(wait_until(PATIENCE, async || mesh.envoy.stat(overload).await > 0).await);
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    let mut sent = 0;
    // Each token has to be asked about again during the flood, and again.
    while good.iter().any(|token| server.asked(token) < 3) {
        assert!(start.elapsed() < PATIENCE, "they are not asked about");
        for token in &good {
            let response = mesh.get(token).await;
            assert_eq!(response.status, 200, "{}", response.text());
            slowest = slowest.max(response.took);
            sent += 1;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut flood_saw: HashMap<(u16, String), u64> = HashMap::new();
    for seen in flood.join_all().await {
        seen.into_iter().for_each(|(what, count)| *flood_saw.entry(what).or_default() += count);
    }
    println!(
        "{sent} good requests, the slowest {slowest:?}; the flood saw {flood_saw:?}; {} at once",
        server.most_at_once()
    );
    let expected = HashSet::from([(401, "SESSION_UNKNOWN".to_owned()), (503, "STORE_UNAVAILABLE".to_owned())]);
    assert_eq!(flood_saw.keys().cloned().collect::<HashSet<_>>(), expected);
    assert!(server.most_at_once() <= 64, "{}", server.most_at_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_the_server_is_503_in_time_and_never_a_pass_and_tells_no_secret() {
    let (server, mut mesh) = start_alone("opaque-trouble").await;
    let active = json!({ "active": true, "aud": "api" });
    let huge = json!({ "active": true, "aud": "api", "x": "x".repeat(1_000_000) });
    let page = Answer::new(200, active.to_string()).header("content-type", "text/html");
    let troubles = [
        ("huge", Answer::json(200, &huge), "not_understood"),
        ("a page", page, "not_understood"),
        ("401", Answer::json(401, &active), "client_refused"),
        ("500", Answer::json(500, &active), "server_error"),
        ("slow", Answer::json(200, &active).after(CHECK_TIMEOUT * 3), "no_answer"),
    ];
    let mut tokens = Vec::new();
    for (name, answer, reason) in troubles {
        server.say_instead(Some(answer));
        let token = server.token();
        let metric = format!("wasmcustom.portcullis.introspections.issuer.opaque.result.{reason}");
        let before = mesh.envoy.stat(&metric).await;
        for _ in 0..2 {
            let response = mesh.get(&token).await;
            assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"), "{name}");
            assert!(response.header("retry-after").is_some());
            assert!(response.took < CHECK_TIMEOUT + GRACE, "{name}: {:?}", response.took);
        }
        assert!(wait_until(PATIENCE, async || mesh.envoy.stat(&metric).await == before + 2).await, "{name}: {reason}");
        // Nothing is remembered of it: the next answer counts at once.
        server.say_instead(None);
        assert_eq!(mesh.get(&token).await.status, 200, "{name}");
        tokens.push(token);
    }
    let log = mesh.envoy_log();
    assert!(log.contains("does not accept the filter's client credentials"), "the log says what to do");
    let encoded = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    for secret in tokens.iter().map(String::as_str).chain([CLIENT_SECRET, &encoded]) {
        assert!(!log.contains(secret), "the log has a secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_or_is_not_there_is_503() {
    let cut = |_: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
        Reply::bytes(format!("{head}{{\"active\":true}}")).closing()
    };
    let server = RawServer::start(cut).await;
    let mesh = Mesh::start_with("opaque-cut", options(server.address())).await;
    let response = mesh.get(&made_up()).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    drop(server);
    let response = mesh.get(&made_up()).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    // The JWTs of the other issuers need no introspection server.
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let failed = mesh.envoy.stat("wasmcustom.portcullis.introspections.issuer.opaque.result.no_answer").await;
    assert_eq!(failed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_refuses_at_once() {
    let server = Server::start().await;
    let mut options = options(server.http.address());
    let issuers = options.filter["issuers"].as_array_mut().unwrap();
    issuers.last_mut().unwrap()["introspection"]["cluster"] = json!("nowhere");
    let mesh = Mesh::start_with("opaque-no-cluster", options).await;
    for _ in 0..3 {
        let response = mesh.get(&server.token()).await;
        assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    }
    assert_eq!(mesh.envoy.stat("wasmcustom.portcullis.introspections.issuer.opaque.result.not_sent").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_end_opaque_tokens_that_the_server_still_calls_active() {
    let (server, mesh) = start("opaque-revoked").await;
    let (session, user) = (random_id(), random_id());
    let tokens = [
        server.token_with(&json!({ "sid": session })),
        server.token_with(&json!({ "sub": user })),
        server.token_with(&json!({ "sub": user, "iat": null, "exp": null })),
    ];
    for token in &tokens {
        let response = mesh.get(token).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    mesh.revoke(&["session", "--issuer", OPAQUE_ISSUER, "--id", &session]).await;
    mesh.revoke(&["user", "--issuer", OPAQUE_ISSUER, "--id", &user]).await;
    for token in &tokens {
        let is_ended = wait_until(FRESHNESS + GRACE, async || code(&mesh.get(token).await) == "SESSION_REVOKED");
        assert!(is_ended.await, "within the freshness");
    }
    assert_eq!(mesh.get(&server.token()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_known_waits_for_introspection_and_check_at_once() {
    let (server, mesh) = start_alone("opaque-anticipated").await;
    let token = server.token();
    assert_eq!(mesh.get(&token).await.status, 200);
    // The service counts what it has answered, and at once.
    let admin = mesh.service.as_ref().unwrap().admin_address();
    let checks = async || {
        let metrics = tests::exchange(admin, &Request::get("/metrics")).await.unwrap().text();
        let answered = "portcullis_checks_total{result=\"answered\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(answered)?.parse::<u64>().ok()).expect("a counter")
    };
    assert_eq!((server.asked(&token), checks().await), (1, 1), "a new one has to wait for one and then the other");
    // Both answers are stale then.
    tokio::time::sleep(FRESHNESS).await;
    server.delay(CHECK_TIMEOUT - Duration::from_millis(100), Duration::ZERO);
    let request = Request::get("/api").bearer(&token);
    let address = mesh.envoy.address();
    let waiting = tokio::spawn(async move { tests::exchange(address, &request).await.unwrap() });
    assert!(wait_until(PATIENCE, async || checks().await == 2).await);
    assert!(!waiting.is_finished(), "the check went out before the introspection was answered");
    let response = waiting.await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!((server.asked(&token), checks().await), (2, 2), "and was not asked again");
}

/// The issuer of the mesh's JWTs has them introspected too.
async fn start_with_jwts(name: &str, concurrency: u32) -> (Server, Mesh) {
    let server = Server::start().await;
    let mut options = MeshOptions { concurrency, ..options(server.http.address()) };
    let issuers = options.filter["issuers"].as_array_mut().unwrap();
    let mut introspection = issuers.last().unwrap()["introspection"].clone();
    introspection.as_object_mut().unwrap().remove("format");
    introspection["of"] = json!("jwt");
    issuers[0]["introspection"] = introspection;
    let mesh = Mesh::start_with(name, options).await;
    (server, mesh)
}

/// A JWT that the server calls active, and its claims.
fn active_jwt(server: &Server, mesh: &Mesh) -> (String, Value) {
    let claims = tests::mesh::claims();
    let token = mesh.keys.first.mint(&claims);
    let mut response = claims.clone();
    response["active"] = json!(true);
    server.state.lock().unwrap().active.insert(token.clone(), response);
    (token, claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_jwt_is_asked_about_and_what_the_server_ends_is_refused_on_every_worker_within_the_freshness() {
    let (server, mesh) = start_with_jwts("introspected-jwt", 2).await;
    let (token, _) = active_jwt(&server, &mesh);
    let mut connections = mesh.connections(1).await;
    for _ in 0..3 {
        for connection in &mut connections {
            let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
    let asked = server.asked(&token);
    let least = if Host::is_native() { 1 } else { 2 };
    assert!((least..=4).contains(&asked), "each of two workers asks and remembers: {asked}");
    server.end(&token);
    let ended = Instant::now();
    for connection in &mut connections {
        loop {
            let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            if response.status == 401 {
                assert_eq!(code(&response), "SESSION_UNKNOWN");
                break;
            }
            assert!(ended.elapsed() < FRESHNESS + GRACE, "passes {:?} after its end", ended.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // The rule without a check asks too.
    let response = mesh.send(&Request::get("/unchecked").bearer(&token)).await;
    assert_eq!((response.status, code(&response).as_str()), (401, "SESSION_UNKNOWN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_is_not_good_by_itself_is_never_sent_to_the_server() {
    let (server, mesh) = start_with_jwts("introspected-jwt-unverified", 1).await;
    let now = unix_now();
    let sign = |members: &Value| mesh.keys.first.mint(&tests::mesh::claims_with(members));
    let good = sign(&json!({}));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let refused = [
        (format!("{input}.{other}{}", &signature[1..]), "SIG_MISMATCH"),
        (sign(&json!({ "exp": now - 400 })), "JWT_EXPIRED"),
        (sign(&json!({ "aud": "other" })), "INVALID_AUDIENCE"),
        (sign(&json!({ "cnf": { "jkt": "AAAA" } })), "BINDING_MISMATCH"),
    ];
    for (token, expected) in &refused {
        assert_eq!(code(&mesh.get(token).await), *expected);
    }
    assert_eq!(server.state.lock().unwrap().asked.len(), 0);
    // And the good one is asked about, which the server does not know.
    assert_eq!(code(&mesh.get(&good).await), "SESSION_UNKNOWN");
    assert_eq!(server.asked(&good), 1);
    assert_eq!(code(&mesh.get(&good).await), "SESSION_UNKNOWN", "a refusal is remembered");
    assert_eq!(server.asked(&good), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_introspected_jwt_is_checked_at_the_same_time_and_refused_when_it_is_revoked() {
    let (server, mesh) = start_with_jwts("introspected-jwt-revoked", 1).await;
    let (token, claims) = active_jwt(&server, &mesh);
    let user = claims["sub"].as_str().unwrap();
    mesh.revoke(&["user", "--issuer", tests::mesh::ISSUER, "--id", user]).await;
    let is_ended = wait_until(FRESHNESS + GRACE, async || code(&mesh.get(&token).await) == "SESSION_REVOKED");
    assert!(is_ended.await);
    assert!(server.asked(&token) >= 1);

    let admin = mesh.service.as_ref().unwrap().admin_address();
    let checks = async || {
        let metrics = tests::exchange(admin, &Request::get("/metrics")).await.unwrap().text();
        let answered = "portcullis_checks_total{result=\"answered\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(answered)?.parse::<u64>().ok()).expect("a counter")
    };
    let before = checks().await;
    let (other, _) = active_jwt(&server, &mesh);
    server.delay(CHECK_TIMEOUT - Duration::from_millis(100), Duration::ZERO);
    let request = Request::get("/api").bearer(&other);
    let address = mesh.envoy.address();
    let waiting = tokio::spawn(async move { tests::exchange(address, &request).await.unwrap() });
    assert!(wait_until(PATIENCE, async || checks().await > before).await);
    assert!(!waiting.is_finished(), "the check went out before the introspection was answered");
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_whose_server_is_slow_or_broken_is_503_and_a_client_that_leaves_keeps_nothing() {
    let (server, mesh) = start_with_jwts("introspected-jwt-trouble", 1).await;
    let (token, _) = active_jwt(&server, &mesh);
    server.say_instead(Some(Answer::new(500, "")));
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    server.say_instead(None);
    server.delay(CHECK_TIMEOUT * 2, Duration::ZERO);
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    // The client goes before the answer comes. The answer alone makes nothing of a JWT.
    server.delay(Duration::from_millis(100), Duration::ZERO);
    let mut leaves = Connection::open(mesh.envoy.address()).await.unwrap();
    let asked = server.asked(&token);
    let request = Request::get("/api").bearer(&token);
    let sent = leaves.send(&request);
    assert!(tokio::time::timeout(Duration::from_millis(30), sent).await.is_err());
    drop(leaves);
    assert!(wait_until(PATIENCE, async || server.asked(&token) > asked).await);
    server.delay(Duration::ZERO, Duration::ZERO);
    let is_back = wait_until(PATIENCE, async || mesh.get(&token).await.status == 200).await;
    assert!(is_back, "and it passes when the server is well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_could_ask_two_servers_about_one_token_does_not_start() {
    let server = Server::start().await;
    let mut options = options(server.http.address());
    let mut twin = options.filter["issuers"].as_array().unwrap().last().unwrap().clone();
    twin["name"] = json!("twin");
    twin["issuer"] = json!("https://twin.example");
    options.filter["issuers"].as_array_mut().unwrap().push(twin);
    let log = Mesh::try_start("opaque-ambiguous", options).await.err().expect("it is refused");
    assert!(log.contains("rules[1].issuers: an opaque token could be for `opaque` or for `twin`"), "{log}");
}
