//! Instances of the service that are killed while requests come.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn killing_either_instance_under_load_loses_no_request_and_passes_no_revoked_token() {
    let _turn = harness::under_load().await;
    let mut mesh = mesh("compose").await;
    let (ended, gone) = session(&mesh);
    let ready = async || get(&mesh, &gone).await.status == 200;
    assert!(wait_until(LATEST, ready).await, "{}", get(&mesh, &gone).await.text());
    assert_eq!(revoke(&mesh, "sessions-2", &ended), 0);
    let refused = async || get(&mesh, &gone).await.json()["code"] == "SESSION_REVOKED";
    assert!(wait_until(LATEST, refused).await, "a revocation by one instance counts at the other one");

    let stop = Arc::new(AtomicBool::new(false));
    let (passed, refusals) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for client in 0..4 {
        let (stop, passed, refusals) = (Arc::clone(&stop), Arc::clone(&passed), Arc::clone(&refusals));
        // Each token is asked about by itself, so that there is always something to ask.
        let good: Vec<_> = (0..20).map(|_| session(&mesh).1).collect();
        let (gone, mut connection) = (gone.clone(), open(&mesh).await);
        load.push(tokio::spawn(async move {
            for token in good.iter().cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let request = Request::get("/api/orders").bearer(token);
                let response = connection.send(&request).await.expect("no connection breaks");
                assert_eq!(response.status, 200, "client {client} lost a request: {}", response.text());
                passed.fetch_add(1, Ordering::SeqCst);
                let request = Request::get("/api/orders").bearer(&gone);
                let response = connection.send(&request).await.expect("no connection breaks");
                assert_eq!(response.json()["code"], "SESSION_REVOKED", "client {client}: {}", response.text());
                refusals.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let more = async || {
        let (before, failed) = (passed.load(Ordering::SeqCst), load.iter().any(tokio::task::JoinHandle::is_finished));
        let enough = async || {
            passed.load(Ordering::SeqCst) >= before + 100 || load.iter().any(tokio::task::JoinHandle::is_finished)
        };
        !failed && wait_until(LATEST, enough).await && !load.iter().any(tokio::task::JoinHandle::is_finished)
    };
    let mut goes_on = more().await;
    for instance in ["sessions-1", "sessions-2"] {
        mesh.process(instance).kill();
        goes_on = goes_on && more().await;
        // Longer than any cached answer: the surviving instance alone answers now.
        tokio::time::sleep(LAG).await;
        goes_on = goes_on && more().await;
        mesh.restart(instance).await;
        // Back in rotation, by the edge's own health checks.
        let healthy = async || {
            let metrics = harness::exchange(mesh.address("edge", 9902), &Request::get("/stats/prometheus")).await;
            let metrics = metrics.map(|response| response.text()).unwrap_or_default();
            gauge(&metrics, "envoy_cluster_membership_healthy", "session_service") == Some(2)
        };
        if !wait_until(LATEST, healthy).await {
            let metrics = harness::exchange(mesh.address("edge", 9902), &Request::get("/stats/prometheus")).await;
            let metrics = metrics.map(|response| response.text()).unwrap_or_default();
            let lines: Vec<_> = metrics.lines().filter(|line| line.contains("\"session_service\"")).collect();
            panic!("{instance} does not come back:\n{}", lines.join("\n"));
        }
        goes_on = goes_on && more().await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in load {
        client.await.expect("no client lost a request");
    }
    assert!(goes_on, "the load stood still");
    println!("{} requests passed, {} were refused", passed.load(Ordering::SeqCst), refusals.load(Ordering::SeqCst));
    mesh.process("edge").assert_running();
}

fn gauge(metrics: &str, name: &str, cluster: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(cluster))?;
    line.rsplit(' ').next()?.parse().ok()
}
