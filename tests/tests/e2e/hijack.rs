//! A session that is used from a second network is ended, and others go on.
use std::time::Duration;

use harness::mesh::{ISSUER, claims};
use harness::{Directory, Mesh, MeshOptions, Request, ServiceOptions, exchange, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

async fn get(mesh: &Mesh, token: &str, from: &str) -> String {
    let request = Request::get("/api").bearer(token).header("x-forwarded-for", from);
    let response = exchange(mesh.envoy.address(), &request).await.expect("an answer");
    if response.status == 200 {
        "200".to_owned()
    } else {
        response.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_session_ends_when_it_is_used_from_a_second_network() {
    let directory = Directory::new("hijack");
    directory.write("hijack.yaml", "signals: { network: [audit, log, end] }\n");
    let mut options = MeshOptions::timed();
    options.filter["sightings"] = json!({ "again_after": "1s" });
    // Envoy appends the address of the connection: the client's is the one before.
    options.filter["client_address"] = json!({ "forwarded_for": 2 });
    let mut service = ServiceOptions::in_file(&directory);
    let file = directory.path().join("hijack.yaml").display().to_string();
    service.arguments = vec!["--sightings-file".to_owned(), file];
    options.service = Some(service);
    let mesh =
        Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"));

    let (stolen, other) = (mesh.keys.first.mint(&claims()), mesh.keys.first.mint(&claims()));
    let sent =
        async || mesh.envoy.stats("portcullis.sightings.result.sent").await.iter().map(|(_, count)| count).sum::<u64>();
    for token in [&stolen, &other] {
        // What is left of the last address is the client's own word.
        assert_eq!(get(&mesh, token, "198.51.100.1, 203.0.113.7").await, "200");
    }
    assert!(wait_until(SOON, async || sent().await >= 2).await, "nothing was reported");
    assert_eq!(get(&mesh, &other, "203.0.113.8").await, "200");
    assert_eq!(get(&mesh, &stolen, "198.51.100.7").await, "200", "the first request from there is only seen");
    let has_ended = async || get(&mesh, &stolen, "203.0.113.7").await == "SESSION_REVOKED";
    assert!(wait_until(SOON, has_ended).await, "it goes on");
    assert_eq!(get(&mesh, &other, "203.0.113.7").await, "200");
    let listed = mesh.revoke(&["list"]).await.to_string();
    assert!(listed.contains("signs of a hijacked session: network") && !listed.contains(ISSUER), "{listed}");
}
