//! The dynamic module in a real Envoy: what its lifetimes and its own host ask of it. `HOST=native` runs the other tests
//! with it too.
use std::process::Command;
use std::time::Duration;

use harness::mesh::{ISSUER, OTHER_ISSUER, claims_with};
use harness::{Answer, FilterHost, Mesh, MeshOptions, Request, Upstream, exchange, image, wait_until};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

mod exposed;
mod lifetimes;
mod loaded;
mod routes;
mod sds;
mod under_load;

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
    let mut options = MeshOptions {
        edit: |bootstrap| {
            let facts =
                ["outcome", "code", "rule", "x-user-id"].map(|key| format!("%DYNAMIC_METADATA(portcullis:{key})%"));
            bootstrap.replace("\"%RESPONSE_FLAGS%\"", &format!("\"facts {} end\"", facts.join(" ")))
        },
        ..native()
    };
    options.filter["expose"] = json!({ "metadata": true });
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
