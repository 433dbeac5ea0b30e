//! Secrets and signing keys that rotate.
use super::*;

#[test]
fn sessions_outlive_the_rotation_of_their_secret_until_it_is_gone() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let with = |secrets: &[u8]| {
        let session_secret_files = session_secrets(&dir, secrets);
        let sessions = SessionOptions { session_secret_files, ..session_options(&dir) };
        Running::start(service::Options { sessions, ..options(&redis) })
    };
    let mut stack = Stack { service: with(&[18]), redis: Redis::start(), dir: tempfile::tempdir().unwrap() };
    let old = stack.create_refreshable();
    stack.service = with(&[19, 18]);
    let new = stack.create_refreshable();
    assert!(stack.is_active(text(&old, "access_token")) && stack.is_active(text(&new, "access_token")));
    let (_, page) = stack.service.admin("GET", "/v1/subjects/alice/sessions", "");
    assert_eq!(page["sessions"].as_array().unwrap().len(), 2, "{page}");
    let (status, refreshed) = stack.refresh(text(&old, "refresh_token"));
    assert_eq!(status, 200);
    assert_eq!(stack.audit().len(), 3);
    stack.service = with(&[19]);
    assert!(!stack.is_active(text(&refreshed, "access_token")) && stack.is_active(text(&new, "access_token")));
    assert_eq!(stack.refresh(text(&refreshed, "refresh_token")).0, 400);
    // What a key is needed for that is gone is shown as unreadable, and stops nothing.
    let entries = stack.audit();
    assert!(entries.iter().any(|entry| entry.get("action").is_none()), "{entries:?}");
}

#[test]
fn what_was_revoked_under_the_old_secret_alone_stays_revoked_while_secrets_rotate() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let with = |secrets: &[u8]| {
        let session_secret_files = session_secrets(&dir, &[18]);
        let sessions = SessionOptions { session_secret_files, ..session_options(&dir) };
        let secret_files = secret_files(&redis, secrets);
        Running::start(service::Options { sessions, secret_files, ..options(&redis) })
    };
    let mut stack = Stack { service: with(&[1]), redis: Redis::start(), dir: tempfile::tempdir().unwrap() };
    let (alice, bob) = (stack.create_refreshable(), stack.create(json!({ "subject": "bob" })));
    let revocation = json!({ "kind": "session", "issuer": OURS, "id": text(&alice, "sid") });
    assert_eq!(stack.service.admin("POST", "/v1/revocations", &revocation.to_string()).0, 201);
    for secrets in [[1, 2], [2, 1]] {
        stack.service = with(&secrets);
        assert!(!stack.is_active(text(&alice, "access_token")), "{secrets:?}");
        assert_eq!(stack.refresh(text(&alice, "refresh_token")).0, 400, "{secrets:?}");
        assert!(stack.is_active(text(&bob, "access_token")), "{secrets:?}");
    }
}

#[test]
fn a_replaced_signing_key_is_published_then_signs_and_the_old_one_still_verifies() {
    let stack = stack();
    let kids = || {
        let jwks: Value = serde_json::from_str(&stack.service.get("/.well-known/jwks.json").1).unwrap();
        jwks["keys"].as_array().unwrap().iter().map(|key| text(key, "kid").to_owned()).collect::<Vec<_>>()
    };
    let old = stack.create(json!({ "subject": "alice", "format": "jwt" }));
    let first = kids();
    let (_, new) = signing_key(&stack.dir, "signing.pem", Alg::EdDSA);
    eventually(SOON, || (kids().len() == 2).then_some(()));
    assert_eq!(kids(), [first[0].clone(), new.clone()]);
    let signer = || {
        let made = stack.create(json!({ "subject": "alice", "format": "jwt" }));
        let header = text(&made, "access_token").split('.').next().unwrap().to_owned();
        let header: Value = serde_json::from_slice(&mint::from_base64url(&header).unwrap()).unwrap();
        text(&header, "kid").to_owned()
    };
    assert_eq!(signer(), first[0]);
    eventually(Duration::from_secs(10), || (signer() == new).then_some(()));
    assert!(stack.is_active(text(&old, "access_token")));
    std::fs::write(stack.dir.path().join("signing.pem"), "broken").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(signer(), new);
}
