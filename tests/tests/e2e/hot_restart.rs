//! A hot restart: a second Envoy takes over the sockets of the first, which ends. It runs on the host that `HOST` names.
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::mesh::{FRESHNESS, ISSUER, claims, claims_with};
use harness::{Directory, Envoy, EnvoyOptions, HotRestart, MeshOptions, Redis, Request, Service, ServiceOptions};
use harness::{Upstream, exchange, wait_until};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CLIENTS: usize = 4;
const DRAIN: Duration = Duration::from_secs(2);
/// From the start of the second Envoy. It needs some of this time to start.
const PARENT_ENDS: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_restart_loses_no_request_and_no_revocation() {
    let directory = Directory::new("hot-restart");
    let redis = Redis::start(&directory).await;
    let service = Service::start(&directory, ServiceOptions::new(redis.url())).await;
    let upstream = Upstream::start().await;
    let MeshOptions { keys, filter, .. } = MeshOptions::timed();
    let keys = Arc::new(keys);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = |epoch| {
        let mut options = EnvoyOptions::new(upstream.address(), service.address(), Some(filter.clone()));
        let shared = mint::to_base64url(keys.shared.secret().unwrap_or_default());
        options.environment =
            vec![("PORTCULLIS_SECRET".to_owned(), MeshOptions::secret()), ("KEY_SHARED".to_owned(), shared)];
        options.drain = DRAIN;
        // The process's id, so that Envoys of other tests are not the parent.
        let base_id = std::process::id();
        options.hot_restart = Some(HotRestart { base_id, epoch, port, parent_ends_after: PARENT_ENDS });
        options
    };
    let second_place = Directory::new("hot-restart-second");
    let mut first = Envoy::start(&directory, options(0)).await;

    // An ended session, and others that go on through the restart.
    let ended = keys.first.mint(&claims_with(&json!({ "sid": "ended" })));
    let get = async |token: &str| {
        exchange(first.address(), &Request::get("/api").bearer(token)).await.expect("an answer").status
    };
    assert_eq!(get(&ended).await, 200);
    service.revoke(&["session", "--issuer", ISSUER, "--id", "ended"]).await;
    let revoked = Instant::now();
    assert!(wait_until(Duration::from_secs(5), async || get(&ended).await == 403).await, "it is revoked");
    // Another worker may use its verdict while it is fresh.
    tokio::time::sleep_until((revoked + FRESHNESS + Duration::from_millis(500)).into()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (stop, address) = (Arc::clone(&stop), first.address());
        let (keys, ended) = (Arc::clone(&keys), ended.clone());
        clients.spawn(async move {
            let (mut answered, mut busy) = (0u32, 0u32);
            while !stop.load(Ordering::Relaxed) {
                // A new session each time, so that each request waits for a check; and a connection of its own.
                let token = keys.first.mint(&claims());
                for (token, wanted) in [(&token, 200), (&ended, 403)] {
                    let request = Request::get("/api").bearer(token);
                    let response = exchange(address, &request).await.expect("every request is answered");
                    // On a busy machine Redis may be slow for a moment, and then the filter says so.
                    assert!([wanted, 503].contains(&response.status), "{} {}", response.status, response.text());
                    busy += u32::from(response.status == 503);
                    answered += 1;
                }
                sleep(Duration::from_millis(5)).await;
            }
            (answered, busy)
        });
    }
    sleep(Duration::from_millis(500)).await;
    let second = Envoy::start(&second_place, options(1)).await;
    assert_eq!(second.stat("server.hot_restart_generation").await, 2, "the second one has a parent");
    let is_over = wait_until(PARENT_ENDS * 3, async || !first.process().is_running()).await;
    assert!(is_over, "the first one does not end:\n{}", first.process().log_tail());
    // And for a while on the second one alone.
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let counts = clients.join_all().await;
    let answered: u32 = counts.iter().map(|(answered, _)| answered).sum();
    let busy: u32 = counts.iter().map(|(_, busy)| busy).sum();
    println!("hot restart: {answered} requests answered, {busy} of them with 503");
    assert!(answered > 100 && busy * 10 < answered, "{answered} answered, {busy} with 503");
    // As of the last tick.
    let is_idle = wait_until(Duration::from_secs(5), async || {
        second.stats("portcullis.waiting_requests").await.iter().all(|(_, value)| *value == 0)
    });
    assert!(is_idle.await, "{:?}", second.stats("portcullis.waiting_requests").await);
}
