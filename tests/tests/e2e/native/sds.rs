//! Secrets that Envoy gets by SDS, from a file.
use std::path::Path;

use harness::Directory;
use serde_json::Value;

use super::*;

const NEW: &str = "another-shared-secret-of-the-tests-long-enough";

/// Writes the secrets as Envoy reads them, and moves the file into place, which is what Envoy watches for.
fn publish(path: &Path, secrets: &[(&str, &str)]) {
    let resources: Vec<Value> = secrets
        .iter()
        .map(|(name, secret)| {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": name, "generic_secret": { "secret": { "inline_string": secret } },
            })
        })
        .collect();
    let next = path.with_extension("next");
    std::fs::write(&next, json!({ "resources": resources }).to_string()).expect("the directory takes a file");
    std::fs::rename(&next, path).expect("the file can be moved");
}

/// The secret of `revocation` comes from this file.
fn from_sds(path: &Path) -> MeshOptions {
    let mut options = MeshOptions {
        // SDS needs them.
        edit: |bootstrap| format!("node: {{ id: test, cluster: test }}\n{bootstrap}"),
        ..native()
    };
    options.filter["revocation"]["secret_env"] = json!("FROM_SDS");
    options.filter["sds"] = json!([{
        "name": "FROM_SDS", "secret": "portcullis",
        "source": { "path_config_source": { "path": path }, "initial_fetch_timeout": "0.5s" },
    }]);
    options
}

async fn becomes(mesh: &Mesh, status: u16) -> bool {
    wait_until(Duration::from_secs(10), async || mesh.get(&mesh.token()).await.status == status).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_sds_is_used_and_rotated_without_a_restart() {
    let directory = Directory::new("native-sds");
    let path = directory.path().join("sds.json");
    publish(&path, &[("portcullis", &MeshOptions::secret())]);
    let mut mesh = Mesh::try_start_in(directory, from_sds(&path)).await.unwrap_or_else(|log| panic!("{log}"));
    assert!(becomes(&mesh, 200).await, "{}", mesh.envoy_log());
    // The service does not know this one.
    publish(&path, &[("portcullis", NEW)]);
    assert!(becomes(&mesh, 503).await, "{}", mesh.envoy_log());
    publish(&path, &[("portcullis", &MeshOptions::secret())]);
    assert!(becomes(&mesh, 200).await, "{}", mesh.envoy_log());
    // One that cannot be used is refused, and the last one stays.
    publish(&path, &[("portcullis", "short")]);
    let is_refused = async || mesh.envoy_log().contains("a new secret of SDS is refused");
    assert!(wait_until(Duration::from_secs(10), is_refused).await, "{}", mesh.envoy_log());
    for _ in 0..10 {
        assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    }
    let log = mesh.envoy_log();
    assert!(log.contains("its predecessor stays in use, if there is one: revocation.secret_env: "), "{log}");
    assert!(!log.contains(NEW) && !log.contains(&MeshOptions::secret()), "no secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_secrets_are_rotated() {
    let directory = Directory::new("native-sds-load");
    let path = directory.path().join("sds.json");
    publish(&path, &[("portcullis", &MeshOptions::secret())]);
    let mut options = from_sds(&path);
    let redis = harness::Redis::start(&directory).await;
    let second = directory.write("second-secret", NEW);
    let mut service = harness::ServiceOptions::new(redis.url());
    service.arguments = vec!["--secret-file".to_owned(), second.display().to_string()];
    options.service = Some(service);
    let mut mesh = Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"));
    assert!(becomes(&mesh, 200).await, "{}", mesh.envoy_log());
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut senders = JoinSet::new();
    for _ in 0..8 {
        let (address, tokens) = (mesh.envoy.address(), (0..400).map(|_| mesh.token()).collect::<Vec<_>>());
        senders.spawn(async move {
            let mut seen = 0u32;
            // Each token is new to the filter, so its request waits for the service.
            for token in tokens.iter().cycle() {
                if tokio::time::Instant::now() >= end {
                    break;
                }
                let request = Request::get("/api").bearer(token);
                let response = timeout(Duration::from_secs(5), exchange(address, &request)).await;
                let response = response.expect("in time").expect("Envoy answers");
                assert_eq!(response.status, 200, "{}", response.text());
                seen += 1;
            }
            seen
        });
    }
    for secret in [NEW, &MeshOptions::secret()].into_iter().cycle().take(8) {
        publish(&path, &[("portcullis", secret)]);
        sleep(Duration::from_millis(500)).await;
    }
    let mut all = 0;
    while let Some(seen) = senders.join_next().await {
        all += seen.expect("no request is lost");
    }
    assert!(all > 100, "{all}");
    let used = mesh.envoy_log().matches("the secrets of SDS are in use").count();
    assert!(used >= 8, "{used} of 9 secrets were used");
    drop(mesh);
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_secret_every_request_is_refused_until_it_comes() {
    let directory = Directory::new("native-sds-missing");
    let path = directory.path().join("sds.json");
    publish(&path, &[("another", NEW)]);
    let mut mesh = Mesh::try_start_in(directory, from_sds(&path)).await.unwrap_or_else(|log| panic!("{log}"));
    for path in ["/api", "/public", "/nowhere"] {
        let response = mesh.send(&Request::new("POST", path).bearer(&mesh.token()).body("body")).await;
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{path}: {}", response.text());
    }
    let log = mesh.envoy_log();
    assert!(log.contains("Envoy has no secret `FROM_SDS` from SDS: every request is answered with 503"), "{log}");
    assert!(log.contains("\"details\":\"SECRET_MISSING\""), "{log}");
    publish(&path, &[("portcullis", &MeshOptions::secret())]);
    assert!(becomes(&mesh, 200).await, "{}", mesh.envoy_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_secrets_of_sds_is_refused_for_what_is_wrong_with_it() {
    let directory = Directory::new("native-sds-refused");
    let path = directory.path().join("sds.json");
    publish(&path, &[]);
    let mut options = from_sds(&path);
    options.filter["rules"][0]["access"] = json!("nobody");
    let log = Mesh::try_start_in(directory, options).await.err().expect("Envoy does not start");
    assert!(log.contains("portcullis: the configuration is refused: rules[0].access"), "{log}");

    let mut options = from_sds(Path::new("/nonexistent/sds.json"));
    options.filter["sds"][0]["source"]["path_config_source"]["path"] = json!("/nonexistent/sds.json");
    let log = Mesh::try_start("native-sds-no-file", options).await.err().expect("Envoy does not start");
    assert!(log.contains("portcullis: the configuration is refused: sds[0]: Envoy refuses it"), "{log}");
}
