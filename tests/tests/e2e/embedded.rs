//! A mesh without Redis: the service keeps its store in a file.
use std::time::Duration;

use harness::mesh::{ISSUER, claims};
use harness::{Directory, Mesh, MeshOptions, Redis, Service, ServiceOptions, exchange, wait_until};
use serde_json::{Value, json};

/// Far more than a revocation or a start may take.
const SOON: Duration = Duration::from_secs(15);

async fn mesh(name: &str, mut options: MeshOptions) -> Mesh {
    let directory = Directory::new(name);
    options.service = Some(ServiceOptions::in_file(&directory));
    Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"))
}

async fn end(mesh: &Mesh, ended: &Value) {
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", ended["sid"].as_str().unwrap()]).await;
}

async fn is_refused(mesh: &Mesh, token: &str) -> bool {
    wait_until(SOON, async || mesh.get(token).await.json()["code"] == "SESSION_REVOKED").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_refused_and_stays_so_when_the_service_is_killed() {
    let mut mesh = mesh("embedded", MeshOptions::timed()).await;
    let ended = claims();
    let (token, other) = (mesh.keys.first.mint(&ended), mesh.token());
    assert_eq!(mesh.get(&token).await.status, 200);
    end(&mesh, &ended).await;
    assert!(is_refused(&mesh, &token).await);
    let service = mesh.service.as_mut().unwrap();
    service.process().kill();
    service.restart().await;
    assert!(is_refused(&mesh, &token).await, "it was forgotten");
    let passes = async || mesh.get(&other).await.status == 200;
    assert!(wait_until(SOON, passes).await, "nobody else is concerned");

    let listed = mesh.revoke(&["list"]).await.to_string();
    assert!(listed.contains(ended["sid"].as_str().unwrap()), "{listed}");
    let admin = mesh.service.as_ref().unwrap().admin_address();
    let metrics = exchange(admin, &harness::Request::get("/metrics")).await.unwrap().text();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    };
    assert_eq!(value("portcullis_store_ready"), 1.0);
    assert!(value("portcullis_store_file_bytes") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_comes_from_the_file_too() {
    let mut options = MeshOptions::timed();
    options.filter["revocation"]["feed"] = json!({ "lag": "1s" });
    let mesh = mesh("embedded-feed", options).await;
    let follows = async || {
        let before = mesh.envoy.stats("feed").await;
        mesh.get(&mesh.token()).await;
        let clear =
            |all: &[(String, u64)]| all.iter().filter(|(name, _)| name.contains("clear")).map(|(_, n)| n).sum::<u64>();
        clear(&mesh.envoy.stats("feed").await) > clear(&before)
    };
    assert!(wait_until(SOON, follows).await, "no token passes by the feed");
    let ended = claims();
    let token = mesh.keys.first.mint(&ended);
    assert_eq!(mesh.get(&token).await.status, 200);
    end(&mesh, &ended).await;
    assert!(is_refused(&mesh, &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_is_not_nobody_revoked() {
    let mut mesh = mesh("embedded-lost", MeshOptions::timed()).await;
    let token = mesh.token();
    assert_eq!(mesh.get(&token).await.status, 200);
    std::fs::remove_file(mesh.directory.path().join("store")).unwrap();
    let refused = async || mesh.get(&mesh.token()).await.status == 503;
    assert!(wait_until(SOON, refused).await);
    // It does not start without its store, and a second one does not start beside it.
    let service = mesh.service.as_mut().unwrap();
    service.process().stop();
    let file = format!("--store=file:{}", mesh.directory.path().join("store").display());
    let secret = format!("--secret-file={}", mesh.directory.path().join("shared-secret").display());
    let token_file = format!("--admin-token-file={}", mesh.directory.path().join("admin-token").display());
    let arguments = ["serve", &file, &secret, &token_file, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    let (_, errors, code) = Service::portcullis(&arguments);
    assert!(code == 1 && errors.contains("there is no store at"), "{code}: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_moves_from_the_file_to_redis() {
    let mut mesh = mesh("embedded-migrate", MeshOptions::timed()).await;
    let (ended, user) = (claims(), claims());
    let (token, of_user, other) = (mesh.keys.first.mint(&ended), mesh.keys.first.mint(&user), mesh.token());
    end(&mesh, &ended).await;
    mesh.revoke(&["user", "--issuer", ISSUER, "--id", user["sub"].as_str().unwrap()]).await;
    let redis = Redis::start(&mesh.directory).await;
    mesh.service.as_mut().unwrap().process().stop();

    let from = format!("file:{}", mesh.directory.path().join("store").display());
    let (id, errors, code) = Service::portcullis(&["migrate", "--prepare", "--to", &redis.url()]);
    assert_eq!(code, 0, "{errors}");
    let (report, errors, code) = Service::portcullis(&["migrate", "--from", &from, "--to", &redis.url(), "--json"]);
    assert_eq!(code, 0, "{errors}{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["complete"], &report["to"]), (&json!(true), &json!(id.trim())));
    let kinds = report["contents"].as_array().unwrap();
    let found = |kind: &str| kinds.iter().find(|tally| tally["kind"] == kind).unwrap()["copied"].as_u64().unwrap();
    assert!(found("revocations") >= 2 && found("audit entries") >= 2, "{report}");

    let url = redis.url();
    mesh.service.as_mut().unwrap().restart_with(|options| options.redis_url = url).await;
    assert!(is_refused(&mesh, &token).await);
    let user_is_refused = async || mesh.get(&of_user).await.json()["code"] == "SESSION_REVOKED";
    assert!(wait_until(SOON, user_is_refused).await);
    assert!(wait_until(SOON, async || mesh.get(&other).await.status == 200).await);
}
