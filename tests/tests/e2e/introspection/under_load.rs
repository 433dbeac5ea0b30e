//! A flood of tokens that the server does not know.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_tokens_starves_no_good_one() {
    let _turn = harness::under_load().await;
    let server = Server::start().await;
    let mut options = MeshOptions { concurrency: 1, ..options(server.http.address()) };
    options.filter["limits"] = json!({ "waiting_requests": 128 });
    let mesh = Mesh::start_with("opaque-flood", options).await;
    let good: Vec<String> = (0..8).map(|_| server.token()).collect();
    for token in &good {
        assert_eq!(mesh.get(token).await.status, 200);
    }
    // A server that is slow about tokens that it does not know.
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
    // The queue is full, so known tokens need places of their own.
    let overload = "wasmcustom.portcullis.introspections.issuer.opaque.result.overload";
    assert!(wait_until(DEADLINE, async || mesh.envoy.stat(overload).await > 0).await);
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    let mut sent = 0;
    // Each token has to be asked about again during the flood, and again.
    while good.iter().any(|token| server.asked(token) < 3) {
        assert!(start.elapsed() < DEADLINE, "they are not asked about");
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
