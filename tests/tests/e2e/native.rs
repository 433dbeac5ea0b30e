//! The dynamic module in a real Envoy: what its lifetimes and its own host ask of it. `HOST=native` runs the other tests
//! with it too.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::mesh::{ISSUER, OTHER_ISSUER, claims_with};
use harness::{Envoy, FilterHost, Mesh, MeshOptions, Request, exchange, wait_until};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

fn native() -> MeshOptions {
    MeshOptions { host: FilterHost::Native, ..MeshOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_not_right_keeps_envoy_from_starting_and_says_why() {
    let mut options = native();
    options.filter["rules"][0]["acess"] = "public".into();
    let log = Mesh::try_start("native-refused", options).await.err().expect("Envoy does not start");
    assert!(log.contains("portcullis: the configuration is refused: rules[0].acess"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_admitted_revoked_and_refused_on_every_worker() {
    let mesh = Mesh::start_with("native-revoked", native()).await;
    let token = mesh.token();
    let response = mesh.get(&token).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let sid = mint_claim(&token, "sid");
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", &sid]).await;
    assert!(mesh.becomes_everywhere(&token, 403).await);
    let other = mesh.keys.second.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
    assert_eq!(mesh.get(&other).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_request_is_dynamic_metadata_for_access_logs() {
    let options = MeshOptions {
        edit: |bootstrap| {
            let facts =
                ["outcome", "code", "rule", "x-user-id"].map(|key| format!("%DYNAMIC_METADATA(portcullis:{key})%"));
            bootstrap.replace("\"%RESPONSE_FLAGS%\"", &format!("\"facts {} end\"", facts.join(" ")))
        },
        ..native()
    };
    let mut mesh = Mesh::start_with("native-metadata", options).await;
    let token = mesh.keys.first.mint(&claims_with(&json!({ "sub": "alice" })));
    assert_eq!(mesh.get(&token).await.status, 200);
    assert_eq!(mesh.get("garbage").await.status, 401);
    let wanted = ["facts admitted - api alice end", "facts refused TOKEN_MALFORMED api - end"];
    let all = wait_until(Duration::from_secs(15), async || {
        let log = mesh.envoy_log();
        wanted.iter().all(|line| log.contains(line))
    });
    assert!(all.await, "{}", mesh.envoy_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_grpc_call_is_permission_denied_and_not_ok() {
    let mesh = Mesh::start_with("native-grpc", native()).await;
    let request = Request::new("POST", "/nowhere").header("content-type", "application/grpc");
    let connection = harness::H2Connection::open(mesh.envoy.address()).await.expect("Envoy listens");
    let response = connection.send(&request).await.expect("Envoy answers");
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("7")));
}

/// A claim of a token that was minted here.
fn mint_claim(token: &str, name: &str) -> String {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).expect("a payload");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let payload: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    payload[name].as_str().expect("text").to_owned()
}

/// How long requests come in the test below; `NATIVE_SOAK_SECONDS` says another.
const SOAK: Duration = Duration::from_secs(8);
const CLIENTS: u64 = 24;
/// Longer than any time limit of the filter.
const ANSWERED: Duration = Duration::from_secs(10);
/// What Envoy's allocator may hold more at the end than at the beginning, when all that was replaced is gone.
const GROWTH: u64 = 12 << 20;

/// Requests are reset while they wait, configurations are replaced, and the service stops for a while: every request that
/// is not reset is answered, Envoy lives, and nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn resets_replaced_configurations_and_a_failing_service_leave_nothing_behind() {
    let seconds = std::env::var("NATIVE_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let soak = seconds.map_or(SOAK, Duration::from_secs);
    let mut mesh = Mesh::start_with("native-soak", MeshOptions { listener_from_file: true, ..native() }).await;
    // Everything that is made once is made.
    run(&mut mesh, Duration::from_secs(1)).await;
    let before = settled(&mesh.envoy).await;
    let (answered, reset) = run(&mut mesh, soak).await;
    let after = settled(&mesh.envoy).await;
    mesh.envoy.process().assert_running();
    println!("{answered} answered, {reset} reset, {before} bytes before, {after} after");
    assert!(answered > 100 && reset > 20, "{answered} answered, {reset} reset");
    assert!(after < before + GROWTH, "{before} bytes before, {after} after");
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let log = mesh.envoy_log();
    assert!(!log.contains("a fault in the module"), "{log}");
}

/// When the listeners that were replaced have drained.
async fn settled(envoy: &Envoy) -> u64 {
    let drained = wait_until(Duration::from_secs(30), async || {
        envoy.stat("listener_manager.total_listeners_draining").await == 0
    });
    assert!(drained.await, "listeners do not drain");
    sleep(Duration::from_secs(1)).await;
    envoy.allocated_bytes().await
}

async fn run(mesh: &mut Mesh, soak: Duration) -> (u64, u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, reset) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (stop, answered, reset) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&reset));
        let address = mesh.envoy.address();
        // Tokens of their own for some, so that they wait for the service; one for all others.
        let tokens: Vec<String> = (0..40).map(|_| mesh.token()).collect();
        clients.spawn(async move {
            let mut number = client;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let token = &tokens[usize::try_from(number % 40).expect("small")];
                let request = Request::new("POST", "/api").bearer(token).body("a body");
                if number.is_multiple_of(3) {
                    let patience = Duration::from_micros(200 * (number % 17));
                    if timeout(patience, exchange(address, &request)).await.is_err() {
                        reset.fetch_add(1, Ordering::Relaxed);
                    }
                    continue;
                }
                let response = timeout(ANSWERED, exchange(address, &request)).await.expect("an answer in time");
                // A listener that is replaced may close a connection before it has read from it.
                let Ok(response) = response else { continue };
                assert!(matches!(response.status, 200 | 503), "{}: {}", response.status, response.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let began = Instant::now();
    let mut round = 0u32;
    while began.elapsed() < soak {
        round += 1;
        // Two documents in turn.
        let names = [r#"\"timeout\":\"500ms\""#, r#"\"timeout\":\"400ms\""#];
        let (old, new) = if round % 2 == 1 { (names[0], names[1]) } else { (names[1], names[0]) };
        mesh.envoy.update_listener(old, new);
        sleep(Duration::from_millis(300)).await;
        if round.is_multiple_of(3) {
            mesh.redis.as_mut().expect("a Redis").process().pause();
            sleep(Duration::from_millis(600)).await;
            mesh.redis.as_mut().expect("a Redis").process().resume();
        }
    }
    if round % 2 == 1 {
        mesh.envoy.update_listener(r#"\"timeout\":\"400ms\""#, r#"\"timeout\":\"500ms\""#);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("a client");
    }
    (answered.load(Ordering::Relaxed), reset.load(Ordering::Relaxed))
}
