//! What the filter exposes to Envoy's access log, on either host.
use std::time::Duration;

use harness::mesh::{ISSUER, claims_with};
use harness::{Mesh, MeshOptions, wait_until};
use serde_json::{Value, json};
use wire::{Kind, Secret};

fn exposing(expose: Value) -> MeshOptions {
    let mut options = MeshOptions::default();
    options.filter["expose"] = expose;
    options
}

/// The line of the access log for which `is` holds.
async fn line(mesh: &mut Mesh, is: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    wait_until(Duration::from_secs(15), async || {
        let log = mesh.envoy_log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = lines.find(|line| is(line));
        found.is_some()
    })
    .await;
    found.unwrap_or_else(|| panic!("no such line: {}", mesh.envoy_log()))
}

fn hash(subject: &str) -> String {
    let secret = Secret::new(MeshOptions::secret().as_bytes()).expect("a long secret");
    secret.derive().revocation_key(Kind::User, ISSUER, subject.as_bytes()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_line_has_the_subjects_hash_the_session_the_rule_and_the_fault() {
    let mut mesh = Mesh::start_with("exposed-log", exposing(json!({ "filter_state": true }))).await;
    let claims = json!({ "sub": "alice@example.com", "sid": "s-\"1\"", "client_id": "app" });
    let token = mesh.keys.first.mint(&claims_with(&claims));
    assert_eq!(mesh.get(&token).await.status, 200);
    let admitted = line(&mut mesh, |line| line["status"] == 200).await;
    let expected = json!({
        "outcome": "admitted", "fault": null, "rule": "api", "issuer": ISSUER, "subject": hash("alice@example.com"),
        "session": "s-\"1\"", "client": "app",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&admitted[name], value, "{name}: {admitted}");
    }
    assert_eq!(admitted["request_id"].as_str().map(str::len), Some(36), "{admitted}");

    mesh.revoke(&["session", "--issuer", ISSUER, "--id", "s-\"1\""]).await;
    assert!(mesh.becomes_everywhere(&token, 403).await);
    let revoked = line(&mut mesh, |line| line["status"] == 403).await;
    let names = ["outcome", "fault", "rule", "subject", "session"].map(|name| revoked[name].as_str());
    let hash = hash("alice@example.com");
    assert_eq!(names.map(Option::unwrap_or_default), ["refused", "SESSION_REVOKED", "api", &hash, "s-\"1\""]);

    assert_eq!(mesh.get("garbage").await.status, 401);
    let refused = line(&mut mesh, |line| line["status"] == 401).await;
    let names = ["outcome", "fault", "rule", "subject", "session"].map(|name| refused[name].clone());
    assert_eq!(json!(names), json!(["refused", "TOKEN_MALFORMED", "api", null, null]));
    assert!(!mesh.envoy_log().contains("alice"), "a subject is only logged as its hash");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_token_that_was_not_verified_is_exposed() {
    let mut mesh =
        Mesh::start_with("exposed-forged", exposing(json!({ "filter_state": true, "subject": "plain" }))).await;
    let forged = harness::mesh::Keys::generate().first.mint(&claims_with(&json!({ "sub": "mallory" })));
    assert!(mesh.get(&forged).await.status >= 400);
    let line = line(&mut mesh, |line| line["outcome"] == "refused").await;
    assert_eq!(line["subject"], Value::Null, "{line}");
    let alice = mesh.keys.first.mint(&claims_with(&json!({ "sub": "alice" })));
    assert_eq!(mesh.get(&alice).await.status, 200);
    let line = self::line(&mut mesh, |line| line["outcome"] == "admitted").await;
    assert_eq!(line["subject"], "alice", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exposed_unless_the_document_says_so() {
    let mut mesh = Mesh::start("exposed-off").await;
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let line = line(&mut mesh, |line| line["status"] == 200).await;
    for name in ["outcome", "fault", "rule", "issuer", "subject", "session", "client"] {
        assert_eq!(line[name], Value::Null, "{name}: {line}");
    }
}
