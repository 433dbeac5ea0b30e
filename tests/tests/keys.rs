//! Keys that an issuer publishes, and changes, while requests go on: a real Envoy against a provider that may misbehave.
//! Figures are printed with `--nocapture`; docs/keys.md quotes them.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey, to_base64url};
use serde_json::{Value, json};
use tests::mesh::{ISSUER, OTHER_ISSUER, claims, claims_with};
use tests::{Answer, Connection, Directory, Host, Mesh, MeshOptions, Request, Response, Upstream, wait_until};
use tokio::task::JoinHandle;

/// A rule that asks nobody about sessions: these tests are about keys alone.
const PATH: &str = "/unchecked";
const KEYS: &str = "/keys";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const TIMEOUT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// Both workers' and the main thread's. The dynamic module has one memory for all of them.
fn virtual_machines() -> u64 {
    if Host::is_native() { 1 } else { 3 }
}

/// An identity provider: what it says at each path can be changed at any time.
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

    /// With an address, and nobody there.
    fn absent() -> Self {
        // Free again as soon as it is known: nobody else takes a port that the kernel has just given out.
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

    fn go(&mut self) {
        self.server = None;
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

    /// The time from each fetch to the next.
    fn pauses(&self, path: &str) -> Vec<Duration> {
        let seen = self.seen.lock().unwrap();
        let at: Vec<Instant> = seen.iter().filter(|(_, seen)| seen == path).map(|(at, _)| *at).collect();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
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

/// The first issuer's keys are fetched, the other one's stand in the configuration. Nobody answers for sessions.
fn options(provider: &Provider, jwks: &Value) -> MeshOptions {
    let asks = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
    let mut options = MeshOptions { asks, idp: Some(provider.address), ..MeshOptions::default() };
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

/// A token that names a key which nobody has.
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
        let passes = wait_until(PATIENCE, async || connection.send(&get(&token)).await.unwrap().status == 200);
        assert!(passes.await, "{}", connection.send(&get(&token)).await.unwrap().text());
    }
}

/// A self-signed certificate of the key, in PEM, as Google publishes them for Firebase.
fn certificate(key: &SigningKey) -> String {
    let directory = Directory::new("certificate");
    let file = directory.path().join("key.pem");
    std::fs::write(&file, key.private_pem().unwrap()).unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-days",
            "1",
            "-subj",
            "/CN=securetoken",
            "-addext",
            "keyUsage=digitalSignature",
            "-key",
        ])
        .arg(&file)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_by_key_id_are_fetched_and_rotate_as_a_key_set_does() {
    let keys = [Alg::RS256, Alg::ES256, Alg::EdDSA].map(|alg| SigningKey::generate(alg, alg.name()));
    let map = |keys: &[&SigningKey]| -> Value {
        keys.iter()
            .map(|key| (key.kid().unwrap().to_owned(), json!(certificate(key))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let [rsa, p256, ed25519] = keys.each_ref();
    let provider = Provider::start(&[]).await;
    provider.say(KEYS, Answer::json(200, &map(&[rsa, p256])));
    let mut options = options(&provider, &json!({ "cool_down": "1s" }));
    options.filter["issuers"][0]["algorithms"] = json!(["RS256", "ES256", "EdDSA"]);
    let mut mesh = Mesh::start_with("certificates", options).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, rsa).await;
    until_passes(&mut connections, p256).await;

    let mut next = map(&[ed25519]);
    next["broken"] = json!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    provider.say(KEYS, Answer::json(200, &next));
    until_passes(&mut connections, ed25519).await;
    for gone in [rsa, p256] {
        let token = gone.mint(&claims());
        let is_refused = wait_until(PATIENCE, async || is(&mesh.send(&get(&token)).await, 401, "KEY_UNKNOWN")).await;
        assert!(is_refused, "its certificate has left the map");
    }
    assert!(mesh.envoy_log().contains("1 of 2 keys left out: kid broken: it is no single X.509 certificate"));
}

/// Clients that send new tokens without a pause until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Served>>,
}

#[derive(Debug, Default)]
struct Served {
    passed: u64,
    /// Status and code of what did not pass.
    refused: Vec<String>,
    slowest: Duration,
}

impl Load {
    fn start(connections: Vec<Connection>, token: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (stop, token) = (Arc::new(AtomicBool::new(false)), Arc::new(token));
        let mut tasks = Vec::new();
        for mut connection in connections {
            let (stop, token) = (Arc::clone(&stop), Arc::clone(&token));
            tasks.push(tokio::spawn(async move {
                let mut served = Served::default();
                while !stop.load(Ordering::SeqCst) {
                    let response = connection.send(&get(&token())).await.unwrap();
                    served.slowest = served.slowest.max(response.took);
                    match response.status {
                        200 => served.passed += 1,
                        status => served.refused.push(format!("{status} {}", response.json()["code"])),
                    }
                }
                served
            }));
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> Served {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Served::default();
        for task in self.tasks {
            let served = task.await.unwrap();
            all.passed += served.passed;
            all.refused.extend(served.refused);
            all.slowest = all.slowest.max(served.slowest);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_refuses_no_good_token_under_constant_load() {
    let (old, new) = (Arc::new(key("old")), Arc::new(key("new")));
    let provider = Provider::start(&[&old]).await;
    let mesh = Mesh::start_with("rotation", options(&provider, &json!({ "cool_down": "1s" }))).await;
    let mut connections = mesh.connections(2).await;
    until_passes(&mut connections, &old).await;

    let signers: Arc<Mutex<Vec<Arc<SigningKey>>>> = Arc::new(Mutex::new(vec![Arc::clone(&old)]));
    let signing = Arc::clone(&signers);
    let load = Load::start(connections, move || {
        let signers = signing.lock().unwrap().clone();
        let at = usize::try_from(Instant::now().elapsed().subsec_nanos()).unwrap_or(0);
        signers[at % signers.len()].mint(&claims())
    });
    let load_began = Instant::now();
    let mut watch = Connection::open(mesh.envoy.address()).await.unwrap();

    // The harshest provider: the new key signs in the moment in which it is published.
    provider.publish(KEYS, &[&old, &new]);
    signers.lock().unwrap().push(Arc::clone(&new));
    let first = watch.send(&get(&new.mint(&claims()))).await.unwrap();
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(wait_until(PATIENCE, async || provider.fetches(KEYS) >= 2).await);
    // Both sign, then the new one alone, then the old one leaves.
    wait_until(Duration::from_millis(1500), async || false).await;
    *signers.lock().unwrap() = vec![Arc::clone(&new)];
    let last_of_old = watch.send(&get(&old.mint(&claims()))).await.unwrap();
    assert_eq!(last_of_old.status, 200);
    wait_until(Duration::from_millis(100), async || false).await;
    provider.publish(KEYS, &[&new]);
    let old_token = old.mint(&claims());
    let gone = wait_until(PATIENCE, async || {
        watch.send(&get(&unknown(&mint::random_id()))).await.unwrap();
        is(&watch.send(&get(&old_token)).await.unwrap(), 401, "KEY_UNKNOWN")
    });
    assert!(gone.await, "the old key's tokens still pass");
    let served = load.stop().await;
    println!(
        "rotation: {} requests in {:?}, refused {:?}, slowest {:?}; the first token of the new key took {:?}; {} fetches",
        served.passed,
        load_began.elapsed(),
        served.refused,
        served.slowest,
        first.took,
        provider.fetches(KEYS)
    );
    assert!(served.refused.is_empty() && served.passed > 300, "{served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unknown_kids_cause_one_fetch() {
    const COUNT: usize = 10_000;
    let good = key("good");
    let provider = Provider::start(&[&good]).await;
    let mesh = Mesh::start_with("unknown", options(&provider, &json!({}))).await;
    let mut connections = mesh.connections(8).await;
    until_passes(&mut connections, &good).await;
    assert_eq!(provider.fetches(KEYS), 1, "one virtual machine fetches for all");

    let start = Instant::now();
    let share = COUNT.div_ceil(connections.len());
    let mut tasks = Vec::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for number in 0..share {
                let response = connection.send(&get(&unknown(&format!("{client}-{number}")))).await.unwrap();
                assert!(is(&response, 401, "KEY_UNKNOWN"), "{}", response.text());
                slowest = slowest.max(response.took);
            }
            slowest
        }));
    }
    let mut slowest = Duration::ZERO;
    for task in tasks {
        slowest = slowest.max(task.await.unwrap());
    }
    let took = start.elapsed();
    let caused = provider.fetches(KEYS) - 1;
    println!("unknown kids: {COUNT} in {took:?} caused {caused} fetches, the slowest answer took {slowest:?}");
    assert!(caused <= 1 && took < Duration::from_secs(20), "{caused} fetches in {took:?}");
    assert_eq!(mesh.send(&get(&good.mint(&claims()))).await.status, 200);
}

// A forged token that named the next key before its issuer published it kept that key refused for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_id_that_came_before_its_key_is_found_after_one_cool_down() {
    let (old, next) = (key("old"), key("next"));
    let provider = Provider::start(&[&old]).await;
    let mesh =
        Mesh::start_with("forged-kid", options(&provider, &json!({ "cool_down": "2s", "refresh": "10m" }))).await;
    let mut connections = mesh.connections(4).await;
    until_passes(&mut connections, &old).await;
    for connection in &mut connections {
        assert!(is(&connection.send(&get(&unknown("next"))).await.unwrap(), 401, "KEY_UNKNOWN"));
    }
    assert_eq!(provider.fetches(KEYS), 2, "the forged token caused one fetch");
    provider.publish(KEYS, &[&old, &next]);
    until_passes(&mut connections, &next).await;
    assert_eq!(provider.fetches(KEYS), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_a_flood_of_unknown_kids_takes_one_cool_down() {
    const FLOOD: usize = 10_000;
    const COOL_DOWN: Duration = Duration::from_secs(3);
    let (old, next) = (key("old"), key("next"));
    let provider = Provider::start(&[&old]).await;
    let mesh = Mesh::start_with("flooded", options(&provider, &json!({ "cool_down": "3s", "refresh": "10m" }))).await;
    let mut connections = mesh.connections(4).await;
    until_passes(&mut connections, &old).await;

    // The next key's id comes first of all, and again and again among the others.
    let sent = Arc::new(AtomicUsize::new(0));
    let flood: Vec<_> = mesh
        .connections(8)
        .await
        .into_iter()
        .enumerate()
        .map(|(client, mut connection)| {
            let sent = Arc::clone(&sent);
            tokio::spawn(async move {
                while sent.fetch_add(1, Ordering::Relaxed) < FLOOD {
                    let number = sent.load(Ordering::Relaxed);
                    let kid = if number % 50 < 8 { "next".to_owned() } else { format!("{client}-{number}") };
                    let response = connection.send(&get(&unknown(&kid))).await.unwrap();
                    // Once the key is known, the forged signature is what is wrong.
                    assert!(
                        is(&response, 401, "KEY_UNKNOWN") || is(&response, 403, "SIG_MISMATCH"),
                        "{}",
                        response.text()
                    );
                }
            })
        })
        .collect();
    let flooded =
        wait_until(PATIENCE, async || sent.load(Ordering::Relaxed) > FLOOD / 10 && provider.fetches(KEYS) > 1);
    assert!(flooded.await, "the flood caused no fetch");

    provider.publish(KEYS, &[&old, &next]);
    let published = Instant::now();
    until_passes(&mut connections, &next).await;
    let took = published.elapsed();
    for task in flood {
        task.await.unwrap();
    }
    println!("flood: {FLOOD} unknown kids, the next key served after {took:?}, {} fetches", provider.fetches(KEYS));
    // The bound that docs/keys.md states, and the time of a fetch and of a busy machine.
    assert!(took < COOL_DOWN + Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_costs_503_before_the_first_set_and_after_max_stale_and_nothing_between() {
    let good = key("good");
    let mut provider = Provider::absent();
    provider.publish(KEYS, &[&good]);
    let mesh = Mesh::start_with("down", options(&provider, &json!({ "refresh": "10s", "max_stale": "10s" }))).await;
    let mut connections = mesh.connections(1).await;
    let token = good.mint(&claims());
    let deadline = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < deadline {
        for connection in &mut connections {
            let response = connection.send(&get(&token)).await.unwrap();
            assert!(is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
            assert!(response.header("retry-after").is_some());
        }
        let other = mesh.keys.first.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
        assert_eq!(mesh.send(&get(&other)).await.status, 200, "another issuer is not touched");
    }

    let recover = async |provider: &mut Provider, connections: &mut [Connection]| {
        provider.come().await;
        let up = Instant::now();
        for connection in connections {
            let passes = wait_until(PATIENCE, async || {
                let response = connection.send(&get(&token)).await.unwrap();
                assert!(response.status == 200 || is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
                response.status == 200
            });
            assert!(passes.await);
        }
        up.elapsed()
    };
    let after_start = recover(&mut provider, &mut connections).await;
    assert!(after_start < Duration::from_secs(3), "{after_start:?}");

    let fetched = provider.last_fetch();
    provider.go();
    let mut refused = vec![None; connections.len()];
    let mut passed = 0u64;
    while refused.iter().any(Option::is_none) {
        assert!(fetched.elapsed() < Duration::from_secs(12), "{refused:?}");
        for (connection, refused) in connections.iter_mut().zip(&mut refused) {
            let response = connection.send(&get(&token)).await.unwrap();
            let age = fetched.elapsed();
            if response.status == 200 {
                passed += 1;
                assert!(refused.is_none() && age < Duration::from_millis(10_100), "{age:?}");
            } else {
                assert!(is(&response, 503, "KEYS_UNAVAILABLE") && age > Duration::from_millis(9_900), "{age:?}");
                refused.get_or_insert(age);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after_stale = recover(&mut provider, &mut connections).await;
    println!(
        "provider down: up after the start, {after_start:?}; down with max_stale 10 s, {passed} passed, then 503 from {:?}; up again, {after_stale:?}",
        refused.iter().flatten().min()
    );
    assert!(after_stale < Duration::from_secs(3), "{after_stale:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_keeps_no_good_token_waiting_and_a_new_kid_no_longer_than_the_timeout() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[&good]).await;
    let jwks = json!({ "refresh": "10s", "cool_down": "1s" });
    let mesh = Mesh::start_with("hangs", options(&provider, &jwks)).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;

    provider.say(KEYS, Answer::new(200, "").after(Duration::from_secs(60)));
    let signer = Arc::new(good);
    let load = Load::start(mesh.connections(1).await, move || signer.mint(&claims()));
    let mut slowest_unknown = Duration::ZERO;
    for connection in &mut connections {
        // The second of them may come while the first one's fetch is still under way, and wait for that one.
        let response = connection.send(&get(&unknown(&mint::random_id()))).await.unwrap();
        assert!(is(&response, 401, "KEY_UNKNOWN"), "{}", response.text());
        slowest_unknown = slowest_unknown.max(response.took);
    }
    let served = load.stop().await;
    println!("provider hangs: {served:?}; the slowest unknown kid {slowest_unknown:?}");
    assert!(served.refused.is_empty() && served.passed > 100, "{served:?}");
    assert!(served.slowest < Duration::from_millis(500), "{served:?}");
    let at_most = TIMEOUT + Duration::from_millis(700);
    assert!(slowest_unknown > Duration::from_millis(500) && slowest_unknown < at_most, "{slowest_unknown:?}");

    // Nobody's lease is left behind.
    provider.publish(KEYS, &[&next]);
    until_passes(&mut connections, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_set_survives_whatever_the_provider_says_and_one_issuer_touches_no_other() {
    let (main, other) = (key("main"), key("other"));
    let provider = Provider::start(&[&main]).await;
    provider.publish("/other-keys", &[&other]);
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": "https://idp.example/other-keys" });
    provider.say(DISCOVERY, Answer::json(200, &document(OTHER_ISSUER)));
    let mut options = options(&provider, &json!({ "cool_down": "1s" }));
    options.filter["issuers"][1].as_object_mut().unwrap().remove("keys");
    options.filter["issuers"][1]["jwks"] = json!({ "cluster": "idp", "discovery": true, "cool_down": "1s" });
    let mesh = Mesh::start_with("garbage", options).await;
    let of_main = main.mint(&claims());
    let of_other = other.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
    let mut connections = mesh.connections(1).await;
    for token in [&of_main, &of_other] {
        for connection in &mut connections {
            let passes = wait_until(PATIENCE, async || connection.send(&get(token)).await.unwrap().status == 200);
            assert!(passes.await);
        }
    }
    assert_eq!((provider.fetches(DISCOVERY), provider.fetches("/other-keys")), (1, 1), "discovery leads to the set");
    // A key is its own issuer's alone.
    let crossed = mesh.send(&get(&main.mint(&claims_with(&json!({ "iss": OTHER_ISSUER }))))).await;
    assert!(is(&crossed, 401, "KEY_UNKNOWN"), "{}", crossed.text());

    let intruder = key("intruder");
    let mut huge = set(&[&intruder]);
    huge["padding"] = "x".repeat(1 << 20).into();
    let twice = set(&[&intruder]).to_string().replacen('{', r#"{"keys":[],"#, 1);
    let bad_sets = [
        ("garbage", Answer::new(200, "<html>sign in</html>")),
        ("status 500", Answer::json(500, &set(&[&intruder]))),
        ("a redirect", Answer::new(302, "").header("location", "/elsewhere")),
        ("a huge body", Answer::json(200, &huge)),
        ("a member that is there twice", Answer::new(200, twice)),
        ("nothing", Answer::new(200, "")),
    ];
    let evil = json!({ "issuer": ISSUER, "jwks_uri": "https://idp.example/keys" });
    let bad_documents = [("another issuer's document", Answer::json(200, &evil)), ("none", Answer::new(404, ""))];
    let cases = bad_sets
        .into_iter()
        .map(|(what, answer)| (what, KEYS, ISSUER, answer))
        .chain(bad_documents.into_iter().map(|(what, answer)| (what, DISCOVERY, OTHER_ISSUER, answer)));
    for (what, path, issuer, answer) in cases {
        provider.say(path, answer);
        let before = provider.fetches(path);
        let asked = wait_until(PATIENCE, async || {
            let token = with(&claims(), &json!({ "iss": issuer }));
            let response = mesh.send(&get(&intruder.mint(&token))).await;
            assert!(is(&response, 401, "KEY_UNKNOWN"), "{what}: {}", response.text());
            provider.fetches(path) > before
        });
        assert!(asked.await, "{what}");
        for connection in &mut connections {
            for token in [&of_main, &of_other] {
                let response = connection.send(&get(token)).await.unwrap();
                assert_eq!(response.status, 200, "{what}: {}", response.text());
            }
        }
    }
    let failed = mesh.envoy.stats("portcullis.key_fetches").await;
    println!("bad answers: {failed:?}");
}

/// Takes a key away and measures until its tokens, verified and cached on both workers, pass nowhere. Returns the
/// longest time from the provider's answer to the last pass.
async fn measure_removal(mesh: &Mesh, provider: &Provider, removed: &SigningKey, kept: &SigningKey) -> Duration {
    let mut connections = mesh.connections(2).await;
    until_passes(&mut connections, removed).await;
    until_passes(&mut connections, kept).await;
    let (bad, good) = (removed.mint(&claims()), kept.mint(&claims()));
    for connection in &mut connections {
        for _ in 0..3 {
            assert_eq!(connection.send(&get(&bad)).await.unwrap().status, 200, "cached");
        }
    }
    let before = provider.fetches(KEYS);
    provider.publish(KEYS, &[kept]);
    // One worker learns of an unknown key; the others must follow.
    connections[0].send(&get(&unknown(&mint::random_id()))).await.unwrap();
    assert!(wait_until(PATIENCE, async || provider.fetches(KEYS) > before).await);
    let fetched = provider.last_fetch();
    let mut last_pass = Duration::ZERO;
    for connection in &mut connections {
        let refused = wait_until(PATIENCE, async || {
            let response = connection.send(&get(&bad)).await.unwrap();
            if response.status == 200 {
                last_pass = last_pass.max(fetched.elapsed());
            }
            is(&response, 401, "KEY_UNKNOWN")
        });
        assert!(refused.await);
        assert_eq!(connection.send(&get(&good)).await.unwrap().status, 200);
    }
    assert_eq!(provider.fetches(KEYS), before + 1, "one virtual machine fetched for all");
    last_pass
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_keys_tokens_stop_on_all_workers_within_a_second_of_the_fetch() {
    let (removed, kept) = (key("removed"), key("kept"));
    let provider = Provider::start(&[&removed, &kept]).await;
    let mesh = Mesh::start_with("removed", options(&provider, &json!({}))).await;
    let lag = measure_removal(&mesh, &provider, &removed, &kept).await;
    println!("removed key: the last token passed {lag:?} after the provider's answer");
    assert!(lag < Duration::from_secs(1), "{lag:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_virtual_machine_fetches_for_all_without_a_vm_id_too() {
    let (removed, kept) = (key("removed"), key("kept"));
    let provider = Provider::start(&[&removed, &kept]).await;
    let mut options = options(&provider, &json!({}));
    options.edit = |bootstrap| {
        assert!(Host::is_native() || bootstrap.contains("vm_id: portcullis"));
        bootstrap.replace("vm_id: portcullis", "vm_id: \"\"")
    };
    let mesh = Mesh::start_with("no-vm-id", options).await;
    let lag = measure_removal(&mesh, &provider, &removed, &kept).await;
    println!("removed key, no vm_id: the last token passed {lag:?} after the provider's answer");
    assert!(lag < Duration::from_secs(1), "{lag:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_max_age_brings_a_removal_without_anybody_asking() {
    let (removed, kept) = (key("removed"), key("kept"));
    let provider = Provider::start(&[]).await;
    provider.say(KEYS, Answer::json(200, &set(&[&removed, &kept])).header("cache-control", "public, max-age=1"));
    let mesh = Mesh::start_with("max-age", options(&provider, &json!({ "refresh": "1h" }))).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &removed).await;
    provider.publish(KEYS, &[&kept]);
    let removed_at = Instant::now();
    let token = removed.mint(&claims());
    for connection in &mut connections {
        let refused = wait_until(Duration::from_secs(12), async || {
            is(&connection.send(&get(&token)).await.unwrap(), 401, "KEY_UNKNOWN")
        });
        assert!(refused.await);
    }
    println!("max-age 1 s: refused {:?} after the removal", removed_at.elapsed());
    // A third one may come when it is refused: its key is an unknown one then.
    let at: Vec<Instant> = provider.seen.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let between = at[1] - at[0];
    assert!(between > Duration::from_secs(7) && between < Duration::from_millis(10_500), "{between:?}");
    assert!(at.len() <= 3, "{}", at.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_each_virtual_machine_fetches_for_itself() {
    let good = key("good");
    let provider = Provider::start(&[&good]).await;
    let mut options = options(&provider, &json!({}));
    options.filter.as_object_mut().unwrap().remove("revocation");
    for rule in options.filter["rules"].as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().remove("revocation");
    }
    let mesh = Mesh::start_with("no-secret", options).await;
    until_passes(&mut mesh.connections(1).await, &good).await;
    let age = async || {
        let text = mesh.envoy.prometheus().await;
        let line = text.lines().find(|line| line.starts_with("portcullis_keys_age_seconds{issuer=\""))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    assert!(wait_until(PATIENCE, async || age().await.is_some_and(|age| age >= 1)).await, "the keys do not age");
    let all = wait_until(PATIENCE, async || provider.fetches(KEYS) as u64 >= virtual_machines());
    assert!(all.await, "{}", provider.fetches(KEYS));
    assert_eq!(provider.fetches(KEYS) as u64, virtual_machines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_update_keeps_the_keys_that_are_held() {
    let good = Arc::new(key("good"));
    let provider = Provider::start(&[&good]).await;
    let options = MeshOptions { listener_from_file: true, ..options(&provider, &json!({})) };
    let mesh = Mesh::start_with("update", options).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;

    // A connection for each request: the old listener's stay with the old configuration.
    let (address, stop) = (mesh.envoy.address(), Arc::new(AtomicBool::new(false)));
    let (signer, stopped) = (Arc::clone(&good), Arc::clone(&stop));
    let load = tokio::spawn(async move {
        let mut seen: HashMap<(u16, bool), u64> = HashMap::new();
        while !stopped.load(Ordering::SeqCst) {
            let token = signer.mint(&claims_with(&json!({ "role": "r" })));
            let response = tests::exchange(address, &get(&token)).await.unwrap();
            let is_new = response.upstream_saw("x-new") == ["r"];
            *seen.entry((response.status, is_new)).or_default() += 1;
        }
        seen
    });
    mesh.envoy.update_listener(r#"\"header\":\"x-role\""#, r#"\"header\":\"x-new\""#);
    let updated = wait_until(PATIENCE, async || {
        let token = good.mint(&claims_with(&json!({ "role": "r" })));
        mesh.send(&get(&token)).await.upstream_saw("x-new") == ["r"]
    });
    assert!(updated.await);
    wait_until(Duration::from_millis(500), async || false).await;
    stop.store(true, Ordering::SeqCst);
    let seen = load.await.unwrap();
    println!("update: {seen:?}, {} fetches", provider.fetches(KEYS));
    assert!(seen.keys().all(|(status, _)| *status == 200), "{seen:?}");
    assert_eq!(provider.fetches(KEYS), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_one_kid_are_tried_and_what_is_left_out_is_said_once() {
    let keys: Vec<SigningKey> = (0..10).map(|_| key("same")).collect();
    let provider = Provider::start(&[]).await;
    let mut document = set(&keys.iter().collect::<Vec<_>>());
    let mut encrypting = document["keys"][0].clone();
    encrypting["use"] = "enc".into();
    document["keys"].as_array_mut().unwrap().extend([json!({ "kty": "EC", "crv": "P-192", "kid": "odd" }), encrypting]);
    provider.say(KEYS, Answer::json(200, &document).header("cache-control", "max-age=1"));
    let mut mesh = Mesh::start_with("same-kid", options(&provider, &json!({ "min_refresh": "1s" }))).await;
    let mut connections = mesh.connections(1).await;
    for key in &keys[..8] {
        until_passes(&mut connections, key).await;
    }
    for key in &keys[8..] {
        let response = mesh.send(&get(&key.mint(&claims()))).await;
        assert!(is(&response, 403, "SIG_MISMATCH"), "{}", response.text());
    }
    assert!(wait_until(PATIENCE, async || provider.fetches(KEYS) >= 3).await);
    let log = mesh.envoy_log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("left out")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("issuer=main 3 of 11 keys left out: keys[8] (kid same): "), "{said:?}");
    assert!(said[0].contains("keys[10] (kid odd): "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_place_of_another_is_found_by_its_first_token() {
    let provider = Provider::start(&[]).await;
    let publish = |key: &SigningKey, kid: Option<&str>| {
        let mut document = set(&[key]);
        match kid {
            Some(kid) => document["keys"][0]["kid"] = kid.into(),
            None => drop(document["keys"][0].as_object_mut().unwrap().remove("kid")),
        }
        provider.say(KEYS, Answer::json(200, &document));
    };
    let keys: Vec<SigningKey> = (0..4).map(|_| key("same")).collect();
    publish(&keys[0], Some("same"));
    let mesh = Mesh::start_with("replaced", options(&provider, &json!({ "cool_down": "2s", "refresh": "10m" }))).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &keys[0]).await;
    for (number, kid) in [(1, Some("same")), (2, None), (3, None)] {
        publish(&keys[number], kid);
        let before = provider.fetches(KEYS);
        let response = mesh.send(&get(&keys[number].mint(&claims()))).await;
        assert_eq!(response.status, 200, "{number}: {}", response.text());
        assert_eq!(provider.fetches(KEYS), before + 1);
        // What another key signed is a mismatch as soon as each worker has the set, and costs no further fetch.
        wait_until(Duration::from_millis(500), async || false).await;
        for _ in 0..20 {
            let response = mesh.send(&get(&keys[number - 1].mint(&claims()))).await;
            assert!(is(&response, 403, "SIG_MISMATCH"), "{number}: {}", response.text());
        }
        assert_eq!(provider.fetches(KEYS), before + 1);
        wait_until(Duration::from_millis(2100), async || false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_is_asked_less_and_less() {
    let good = key("good");
    for answer in [
        Answer::new(401, ""),
        Answer::new(302, "").header("location", "https://elsewhere.example/keys"),
        Answer::new(429, ""),
        Answer::new(500, ""),
    ] {
        let status = answer.status;
        let provider = Provider::start(&[&good]).await;
        provider.say(KEYS, answer);
        let mut mesh = Mesh::start_with("refused", options(&provider, &json!({}))).await;
        let token = good.mint(&claims());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            let response = mesh.send(&get(&token)).await;
            assert!(is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // At 0, 1, 3 and 7 s, each pause shorter by up to a quarter.
        let pauses = provider.pauses(KEYS);
        println!("status {status}: pauses {pauses:?}");
        assert!((2..=4).contains(&pauses.len()), "{status}: {pauses:?}");
        let log = mesh.envoy_log();
        assert!(log.contains(&format!("issuer=main keys not fetched: status {status}")), "{log}");
        // What was asked rarely is still found in time.
        provider.publish(KEYS, &[&good]);
        until_passes(&mut mesh.connections(1).await, &good).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_and_delays_no_rotation() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[&good]).await;
    provider.say(KEYS, Answer::new(429, "").header("retry-after", "4"));
    let jwks = json!({ "cool_down": "2s", "refresh": "10s", "min_refresh": "1s" });
    let mesh = Mesh::start_with("retry-after", options(&provider, &jwks)).await;
    let token = good.mint(&claims());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert!(is(&mesh.send(&get(&token)).await, 503, "KEYS_UNAVAILABLE"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(provider.fetches(KEYS), 1, "{:?}", provider.pauses(KEYS));
    provider.publish(KEYS, &[&good]);
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;
    assert!(provider.pauses(KEYS)[0] >= Duration::from_secs(4), "{:?}", provider.pauses(KEYS));

    // From now on it refuses, and strangers ask for keys that nobody has. Then the issuer changes keys.
    provider.say(KEYS, Answer::new(429, "").header("retry-after", "3600"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let response = mesh.send(&get(&unknown(&mint::random_id()))).await;
        assert!(is(&response, 401, "KEY_UNKNOWN"), "{}", response.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    provider.publish(KEYS, &[&good, &next]);
    let rotated = Instant::now();
    until_passes(&mut connections, &next).await;
    println!("rotation after 429 with Retry-After: 3600: {:?}", rotated.elapsed());
    assert!(rotated.elapsed() < Duration::from_millis(3500), "{:?}", rotated.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_does_not_hurry_and_max_age_not_more_than_min_refresh() {
    let good = key("good");
    for (cache_control, jwks, most) in [
        ("no-cache", json!({ "refresh": "1h", "min_refresh": "1s" }), 1),
        ("max-age=0, must-revalidate", json!({ "refresh": "1h", "min_refresh": "1s" }), 1),
        ("max-age=1", json!({ "refresh": "1h", "min_refresh": "3s" }), 2),
    ] {
        let provider = Provider::start(&[]).await;
        provider.say(KEYS, Answer::json(200, &set(&[&good])).header("cache-control", cache_control));
        let mesh = Mesh::start_with("no-cache", options(&provider, &jwks)).await;
        until_passes(&mut mesh.connections(1).await, &good).await;
        wait_until(Duration::from_secs(5), async || false).await;
        let fetches = provider.fetches(KEYS);
        assert!(fetches <= most && (most == 1 || fetches == 2), "{cache_control}: {fetches}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_not_modified_stays_young_on_all_workers_and_the_document_is_read_once() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[]).await;
    let tagged = |keys: &[&SigningKey], etag: &str| {
        Answer::json(200, &set(keys)).header("etag", etag).header("cache-control", "max-age=2")
    };
    provider.say(KEYS, tagged(&[&good], "\"1\""));
    let document = json!({ "issuer": ISSUER, "jwks_uri": format!("https://idp.example{KEYS}") });
    provider.say(DISCOVERY, Answer::json(200, &document));
    let mut options =
        options(&provider, &json!({ "refresh": "10s", "max_stale": "10s", "min_refresh": "2s", "discovery": true }));
    options.filter["issuers"][0]["jwks"].as_object_mut().unwrap().remove("uri");
    let mesh = Mesh::start_with("not-modified", options).await;
    let mut connections = mesh.connections(2).await;
    until_passes(&mut connections, &good).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(14) {
        for connection in &mut connections {
            let response = connection.send(&get(&good.mint(&claims()))).await.unwrap();
            assert_eq!(response.status, 200, "{:?}: {}", began.elapsed(), response.text());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (fetches, unchanged) = (provider.fetches(KEYS), provider.unchanged.load(Ordering::SeqCst));
    println!("not modified: {fetches} fetches, {unchanged} times 304");
    // Whichever virtual machine fetches for the first time has no tag.
    assert!(
        unchanged >= 3 && fetches - unchanged <= usize::try_from(virtual_machines()).unwrap(),
        "{fetches} {unchanged}"
    );
    assert!(fetches <= 8, "one virtual machine fetches for all: {fetches}");
    assert_eq!(provider.fetches(DISCOVERY), 1);
    provider.say(KEYS, tagged(&[&good, &next], "\"2\""));
    until_passes(&mut connections, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_is_read_over_and_a_compressed_set_is_named() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[]).await;
    let text = set(&[&good]).to_string();
    provider.say(KEYS, Answer::new(200, format!("\u{feff}{text}")));
    let mut mesh = Mesh::start_with("encodings", options(&provider, &json!({ "cool_down": "1s" }))).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;
    let gzip = [b"\x1f\x8b\x08\0".as_slice(), &[7; 60]].concat();
    for (answer, says) in [
        (Answer::new(200, gzip.clone()), "it is compressed by gzip"),
        (Answer::new(200, gzip).header("content-encoding", "br"), "it is encoded as br"),
        (Answer::new(200, "<html>sign in</html>"), "it is HTML or XML"),
        (Answer::new(200, ""), "it is empty"),
        (
            Answer::new(302, "").header("location", "https://elsewhere.example/"),
            "a redirect to https://elsewhere.example/",
        ),
        (Answer::new(403, ""), "status 403: the provider wants credentials"),
    ] {
        provider.say(KEYS, answer);
        let named = wait_until(PATIENCE, async || {
            mesh.send(&get(&unknown(&mint::random_id()))).await;
            mesh.envoy_log().contains(&format!("issuer=main keys not fetched: {says}"))
                || mesh.envoy_log().contains(&format!("issuer=main keys not fetched: status 302, {says}"))
        });
        assert!(named.await, "{says}");
        assert_eq!(mesh.send(&get(&good.mint(&claims()))).await.status, 200);
    }
    provider.publish(KEYS, &[&good, &next]);
    until_passes(&mut connections, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_the_keys_that_are_for_all_of_them() {
    let (common, special) = (key("common"), key("special"));
    let provider = Provider::start(&[]).await;
    let mut document = set(&[&common, &special]);
    document["keys"][0]["issuer"] = "https://login.example/{tenantid}/v2.0".into();
    document["keys"][1]["issuer"] = "https://login.example/special/v2.0".into();
    provider.say(KEYS, Answer::json(200, &document));
    let mut options = options(&provider, &json!({}));
    options.filter["issuers"][0]["issuer"] = "https://login.example/{tenant}/v2.0".into();
    options.filter["issuers"][0]["tenants"] = "any".into();
    let mesh = Mesh::start_with("tenants", options).await;
    let of = |key: &SigningKey, tenant: &str| {
        key.mint(&claims_with(&json!({ "iss": format!("https://login.example/{tenant}/v2.0") })))
    };
    let passes = wait_until(PATIENCE, async || mesh.send(&get(&of(&common, "acme"))).await.status == 200);
    assert!(passes.await, "{}", mesh.send(&get(&of(&common, "acme"))).await.text());
    let answer = async |key: &SigningKey, tenant: &str| mesh.send(&get(&of(key, tenant))).await;
    assert_eq!(answer(&common, "special").await.status, 200);
    assert_eq!(answer(&special, "special").await.status, 200);
    let crossed = answer(&special, "acme").await;
    assert!(is(&crossed, 403, "SIG_MISMATCH"), "{}", crossed.text());
    let none = answer(&common, "a%2fb").await;
    assert!(is(&none, 401, "INVALID_ISSUER"), "{}", none.text());
}
