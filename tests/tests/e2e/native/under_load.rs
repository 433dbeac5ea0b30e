//! Many requests with resets, replaced configurations and a store that stops: `make soak` for long, the tests for a moment.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use harness::mesh::unix_now;

use super::*;

/// How many requests are answered at least; `SOAK_REQUESTS` says another number.
const REQUESTS: u64 = 2000;
/// And for how long at least: several rounds.
const SHORTEST: Duration = Duration::from_secs(8);
const CLIENTS: u64 = 24;
/// Tokens of each client, in turn.
const TOKENS: u64 = 40;
/// Of the tokens, in seconds: longer than any run.
const LIFETIME: u64 = 20 * 3600;
/// Longer than any time limit of the filter.
const ANSWERED: Duration = Duration::from_secs(10);
/// Of Envoy's allocator and of its resident memory, between the first round and the end, when all that was replaced is gone.
const GROWTH: u64 = 12 << 20;
const RESIDENT_GROWTH: u64 = 32 << 20;

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    /// 503, while the store stops.
    cannot_tell: AtomicU64,
    /// By the client, while they wait or not.
    reset: AtomicU64,
    /// By a listener that was replaced, before it read the request.
    closed: AtomicU64,
}

/// Requests are reset while they wait, configurations are replaced, and the store stops for a while: every request that is
/// not reset is answered, Envoy lives, and nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn resets_replaced_configurations_and_a_failing_service_leave_nothing_behind() {
    let requests = std::env::var("SOAK_REQUESTS").ok().and_then(|requests| requests.parse().ok()).unwrap_or(REQUESTS);
    let mut mesh = Mesh::start_with(
        "native-soak",
        MeshOptions { listener_from_file: true, host: FilterHost::Native, ..MeshOptions::timed() },
    )
    .await;
    // Everything that is made once is made.
    run(&mut mesh, requests.min(REQUESTS)).await;
    let before = settled(&mut mesh).await;
    let start = Instant::now();
    let (counts, replaced) = run(&mut mesh, requests).await;
    let after = settled(&mut mesh).await;
    mesh.envoy.process().assert_running();
    let [admitted, cannot_tell, reset, closed] =
        [counts.admitted, counts.cannot_tell, counts.reset, counts.closed].map(AtomicU64::into_inner);
    println!(
        "soak: {} s, {admitted} admitted, {cannot_tell} refused with 503, {reset} reset by the client, {closed} closed by a \
         replaced listener, {replaced} configurations replaced; allocated {} then {} bytes, resident {} then {} bytes",
        start.elapsed().as_secs(),
        before.0,
        after.0,
        before.1,
        after.1,
    );
    assert!(admitted > 100 && reset > 20, "{admitted} admitted, {reset} reset");
    assert!(closed * 20 < admitted, "{closed} requests without an answer");
    assert!(after.0 < before.0 + GROWTH, "allocated {} bytes, then {}", before.0, after.0);
    assert!(after.1 < before.1 + RESIDENT_GROWTH, "resident {} bytes, then {}", before.1, after.1);
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let log = mesh.envoy_log();
    assert!(!log.contains("a fault in the module"), "{log}");
}

/// Allocated and resident bytes when the listeners that were replaced have drained.
async fn settled(mesh: &mut Mesh) -> (u64, u64) {
    let drained = wait_until(Duration::from_secs(30), async || {
        mesh.envoy.stat("listener_manager.total_listeners_draining").await == 0
    });
    assert!(drained.await, "listeners do not drain");
    sleep(Duration::from_secs(1)).await;
    (mesh.envoy.allocated_bytes().await, mesh.envoy.process().resident_bytes())
}

/// Until at least `requests` are answered. Returns also how often the configuration was replaced.
async fn run(mesh: &mut Mesh, requests: u64) -> (Counts, u32) {
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let claims = || claims_with(&json!({ "exp": unix_now() + LIFETIME }));
        let tokens: Vec<String> = (0..TOKENS).map(|_| mesh.keys.first.mint(&claims())).collect();
        let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
        let address = mesh.envoy.address();
        clients.spawn(async move {
            let mut number = client;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let token = &tokens[usize::try_from(number % TOKENS).expect("small")];
                let request = Request::new("POST", "/api").bearer(token).body("a body");
                if number.is_multiple_of(3) {
                    let patience = Duration::from_micros(200 * (number % 17));
                    if timeout(patience, exchange(address, &request)).await.is_err() {
                        counts.reset.fetch_add(1, Ordering::Relaxed);
                    }
                    continue;
                }
                let counter = match timeout(ANSWERED, exchange(address, &request)).await.expect("an answer in time") {
                    Ok(response) if response.status == 200 => &counts.admitted,
                    Ok(response) if response.status == 503 => &counts.cannot_tell,
                    Ok(response) => panic!("{}: {}", response.status, response.text()),
                    Err(_) => &counts.closed,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let start = Instant::now();
    let mut round = 0u32;
    // Two documents in turn.
    let documents = [r#"\"timeout\":\"500ms\""#, r#"\"timeout\":\"400ms\""#];
    let answered = || counts.admitted.load(Ordering::Relaxed) + counts.cannot_tell.load(Ordering::Relaxed);
    while start.elapsed() < SHORTEST || answered() < requests || !round.is_multiple_of(2) {
        let [old, new] = if round.is_multiple_of(2) { documents } else { [documents[1], documents[0]] };
        round += 1;
        mesh.envoy.update_listener(old, new);
        sleep(Duration::from_millis(300)).await;
        if round.is_multiple_of(3) {
            mesh.redis.as_mut().expect("a Redis").process().pause();
            sleep(Duration::from_millis(600)).await;
            mesh.redis.as_mut().expect("a Redis").process().resume();
        }
        // A client that panics ends the test at once.
        if let Some(ended) = clients.try_join_next() {
            ended.expect("a client");
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("a client");
    }
    (Arc::into_inner(counts).expect("no client is left"), round)
}
