//! The feed of revocations: tokens pass without a question, and one that is revoked is refused within the lag.
use std::time::{Duration, Instant};

use harness::mesh::{ISSUER, MeshOptions, claims};
use harness::{Mesh, Request, wait_until};
use serde_json::{Value, json};

mod measured;
mod under_load;

const LAG: Duration = Duration::from_secs(1);
/// Far more than a filter needs to follow again.
const SOON: Duration = Duration::from_secs(15);

fn options() -> MeshOptions {
    // Without a proof the promise is that of checks, which is as long here.
    let mut options = MeshOptions::timed();
    options.filter["revocation"]["feed"] = json!({ "lag": "1s" });
    options
}

/// Waits until both workers admit tokens by the feed.
async fn follows(mesh: &Mesh) {
    let by_feed = async || {
        let before = counted(mesh, "clear").await;
        let mut sent = 0;
        for mut connection in mesh.connections(1).await {
            let response = connection.send(&Request::get("/api").bearer(&mesh.token())).await.expect("Envoy answers");
            assert_eq!(response.status, 200, "{}", response.text());
            sent += 1;
        }
        wait_until(Duration::from_secs(1), async || counted(mesh, "clear").await >= before + sent).await
    };
    assert!(wait_until(SOON, by_feed).await, "tokens are still asked about");
}

async fn counted(mesh: &Mesh, result: &str) -> u64 {
    let name = format!("portcullis.feed_answers.result.{result}");
    mesh.envoy.stats(&name).await.iter().map(|(_, count)| count).sum()
}

fn sid(claims: &Value) -> &str {
    claims["sid"].as_str().expect("a session")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_pass_without_a_question_and_a_revoked_session_is_refused_on_every_worker() {
    let mesh = Mesh::start_with("feed", options()).await;
    follows(&mesh).await;
    let before = mesh.envoy.stat("wasmcustom.portcullis.checks_sent").await;
    let (ended, other) = (claims(), claims());
    let token = mesh.keys.first.mint(&ended);
    for _ in 0..20 {
        assert_eq!(mesh.get(&mesh.token()).await.status, 200);
        assert_eq!(mesh.get(&token).await.status, 200);
    }
    assert!(wait_until(SOON, async || counted(&mesh, "clear").await >= 20).await);
    assert_eq!(mesh.envoy.stat("wasmcustom.portcullis.checks_sent").await, before, "nothing was asked");

    let mut connections = mesh.connections(1).await;
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", sid(&ended)]).await;
    let acknowledged = Instant::now();
    let mut late = Vec::new();
    for connection in &mut connections {
        loop {
            let begun = acknowledged.elapsed();
            let status = connection.send(&Request::get("/api").bearer(&token)).await.expect("Envoy answers").status;
            match status {
                403 => break,
                200 if begun > LAG => late.push(begun),
                200 => {}
                other => panic!("{other}"),
            }
            assert!(acknowledged.elapsed() < SOON, "it is never refused");
        }
    }
    assert!(late.is_empty(), "admitted after the lag: {late:?}");
    assert_eq!(mesh.get(&mesh.keys.first.mint(&other)).await.status, 200);
    assert!(wait_until(SOON, async || counted(&mesh, "asked").await >= 1).await);
    // As the alerts and the dashboard name them.
    let metrics = mesh.envoy.prometheus().await;
    for name in ["portcullis_feed_answers{result=\"silent\"", "portcullis_feed_age_milliseconds"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_the_filter_started_is_in_its_first_snapshot() {
    let mut mesh = Mesh::start_with("feed-before", options()).await;
    let ended = claims();
    let token = mesh.keys.first.mint(&ended);
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", sid(&ended)]).await;
    mesh.service.as_mut().expect("a service").restart().await;
    follows(&mesh).await;
    for mut connection in mesh.connections(2).await {
        let response = connection.send(&Request::get("/api").bearer(&token)).await.expect("Envoy answers");
        assert_eq!(response.status, 403, "{}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_service_nothing_passes_after_the_lag_and_all_is_well_again_with_it() {
    let mut mesh = Mesh::start_with("feed-silent", options()).await;
    follows(&mesh).await;
    let ended = claims();
    let token = mesh.keys.first.mint(&ended);
    assert_eq!(mesh.get(&token).await.status, 200);
    mesh.service.as_mut().expect("a service").process().pause();
    let paused = Instant::now();
    let refused = async || mesh.get(&mesh.token()).await.status == 503;
    assert!(wait_until(SOON, refused).await, "tokens pass without a proof");
    let until = paused.elapsed();
    for _ in 0..3 {
        assert_eq!(mesh.get(&mesh.token()).await.status, 503, "refused after {until:?}");
    }
    mesh.service.as_mut().expect("a service").restart().await;
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", sid(&ended)]).await;
    follows(&mesh).await;
    assert_eq!(mesh.get(&token).await.status, 403);
}
