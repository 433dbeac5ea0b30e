//! The published lists of revoked JWTs.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn payload(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn index(token: &str) -> usize {
    let status = &payload(token)["status"]["status_list"];
    assert_eq!(status["uri"], "https://sessions.example/status/0");
    status["idx"].as_u64().unwrap() as usize
}

fn invalid(list: &str, index: usize) -> bool {
    let compressed = URL_SAFE_NO_PAD.decode(payload(list)["status_list"]["lst"].as_str().unwrap()).unwrap();
    let bits = miniz_oxide::inflate::decompress_to_vec_zlib(&compressed).unwrap();
    bits[index / 8] >> (index % 8) & 1 == 1
}

#[test]
fn each_jwt_has_an_index_and_the_list_says_when_it_was_revoked() {
    let stack = stack_with(|options| {
        options.status_list_url = Some("https://sessions.example/status".into());
        options.status_list_ttl = Duration::from_secs(2);
    });
    let create = |more: Value| {
        let mut body = json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": "jwt" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stack.service.admin("POST", "/v1/sessions", &body.to_string())
    };
    let (_, made) = create(json!({}));
    let (_, other) = create(json!({ "subject": "bob" }));
    let (status, renewed) = stack.refresh(text(&made, "refresh_token"));
    assert_eq!(status, 200, "{renewed}");
    let tokens = [&made, &renewed, &other].map(|made| text(made, "access_token").to_owned());
    let indexes = tokens.each_ref().map(|token| index(token));
    assert!(indexes[0] != indexes[1] && indexes[1] != indexes[2] && indexes[0] != indexes[2]);
    let list = || stack.service.get("/status/0");
    let (status, valid) = list();
    assert_eq!(status, 200, "{valid}");
    assert!(indexes.iter().all(|index| !invalid(&valid, *index)));
    // The list is no access token, although the same key signed it.
    assert!(!stack.is_active(&valid) && stack.is_active(&tokens[0]));
    let (status, _) = stack.service.admin("DELETE", &format!("/v1/sessions/{}", text(&made, "sid")), "");
    assert_eq!(status, 200);
    let revoked = eventually(SOON, || Some(list().1).filter(|list| invalid(list, indexes[0])));
    assert!(invalid(&revoked, indexes[1]) && !invalid(&revoked, indexes[2]));
    let opaque = json!({ "subject": "alice", "claims": { "status": "gold" } });
    let (status, refused) = stack.service.admin("POST", "/v1/sessions", &opaque.to_string());
    assert_eq!((status, text(&refused, "field")), (400, "claims.status"));
    for (path, status) in [("/status/1", 404), ("/status/x", 404), ("/status/0?time=1", 501), ("/status", 404)] {
        assert_eq!(stack.service.get(path).0, status, "{path}");
    }
    let metrics = stack.service.admin_text("GET", "/metrics", Some(ADMIN), "").1;
    assert!(metrics.contains("portcullis_status_lists_total{event=\"placed\"} 3"), "{metrics}");
}

#[test]
fn without_the_option_there_is_neither_a_list_nor_a_claim() {
    let stack = stack();
    let made = stack.create(json!({ "subject": "alice", "format": "jwt", "claims": { "status": "gold" } }));
    assert_eq!(payload(text(&made, "access_token"))["status"], "gold");
    assert_eq!(stack.service.get("/status/0").0, 404);
}
