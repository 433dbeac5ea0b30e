//! A revoked token is refused on every worker, in time.
use harness::mesh::{FRESHNESS, ISSUER, OTHER_ISSUER, claims, claims_with, unix_now};
use harness::{Connection, Mesh, Request, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod under_load;

#[tokio::test(flavor = "multi_thread")]
async fn a_lifted_revocation_passes_again() {
    let mesh = Mesh::start("lifted").await;
    let claims = claims();
    let token = mesh.keys.first.mint(&claims);
    assert_eq!(mesh.get(&token).await.status, 200);
    let revoked = mesh.revoke(&["session", "--issuer", ISSUER, "--id", claims["sid"].as_str().unwrap()]).await;
    let becomes =
        async |status: u16| wait_until(Duration::from_secs(5), async || mesh.get(&token).await.status == status).await;
    assert!(becomes(403).await, "revoked: {revoked}");
    mesh.revoke(&["lift", revoked["key"].as_str().unwrap()]).await;
    assert!(mesh.becomes_everywhere(&token, 200).await, "lifted");
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_everywhere_ends_older_tokens_and_not_the_next_login() {
    let mesh = Mesh::start("log-out-everywhere").await;
    let user = json!({ "sub": "alice" });
    let older: Vec<String> = (0..3).map(|_| mesh.keys.first.mint(&claims_with(&user))).collect();
    for token in &older {
        assert_eq!(mesh.get(token).await.status, 200);
    }
    let revoked = mesh.revoke(&["user", "--issuer", ISSUER, "--id", "alice"]).await;
    let before = revoked["before"].as_u64().expect("the answer gives `before`");
    assert!(wait_until(Duration::from_secs(10), async || unix_now() >= before).await);
    let next = mesh.keys.first.mint(&claims_with(&user));
    // A refreshed token of an older login is as old as that login.
    let refreshed = mesh.keys.first.mint(&claims_with(&json!({ "sub": "alice", "auth_time": before - 1 })));
    for token in &older {
        assert!(mesh.becomes_everywhere(token, 403).await);
    }
    for _ in 0..3 {
        for mut connection in mesh.connections(1).await {
            for token in &older {
                let response = connection.send(&Request::get("/api").bearer(token)).await.unwrap();
                assert_eq!((response.status, code(&response.json())), (403, "SESSION_REVOKED".to_owned()));
            }
            let response = connection.send(&Request::get("/api").bearer(&next)).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            let response = connection.send(&Request::get("/api").bearer(&refreshed)).await.unwrap();
            assert_eq!((response.status, code(&response.json())), (403, "SESSION_REVOKED".to_owned()));
        }
    }
}

fn code(problem: &Value) -> String {
    problem["code"].as_str().unwrap_or_default().to_owned()
}

/// A key id is no thumbprint: it was taken once, and ended nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_revoked_by_its_jwk_by_its_id_in_a_set_or_by_a_token_that_it_signed() {
    for way in ["jwk", "kid", "token"] {
        let mesh = Mesh::start("revoked-key").await;
        let jwk = |key: &mint::SigningKey| Value::from(key.public_jwk().unwrap());
        let (first, second) = (jwk(&mesh.keys.first), jwk(&mesh.keys.second));
        let signed = mesh.keys.second.mint(&claims());
        let set = mesh.directory.write("jwks.json", json!({ "keys": [first, second] }).to_string());
        let key = mesh.directory.write("jwk.json", second.to_string());
        let token = mesh.directory.write("token", &signed);
        let [set, key, token] = [set, key, token].map(|path| path.display().to_string());
        assert_eq!(mesh.get(&signed).await.status, 200);
        let by: &[&str] = match way {
            "jwk" => &["--jwk", &key],
            "kid" => &["--jwks", &set, "--kid", "second"],
            _ => &["--jwks", &set, "--signed-token", &token],
        };
        let revoked = mesh.revoke(&[&["key", "--issuer", ISSUER], by].concat()).await;
        assert_eq!(revoked["until"], "never", "{way}: {revoked}");
        assert!(mesh.becomes_everywhere(&signed, 403).await, "{way}");
        assert_eq!(mesh.get(&mesh.token()).await.status, 200, "{way}: the other key's tokens pass");
    }
}
