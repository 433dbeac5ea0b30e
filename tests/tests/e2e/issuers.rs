//! Issuers as service and filter tell each other: which ones a revocation may name, and which ones' tokens live longer
//! than revocations are kept.
use std::time::Duration;

use harness::mesh::{ISSUER, OTHER_ISSUER, claims_with};
use harness::{Directory, Mesh, MeshOptions, Redis, Service, ServiceOptions, wait_until};
use serde_json::json;

const TOLD: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_issuer_is_refused_and_those_that_filters_ask_about_are_known() {
    let directory = Directory::new("issuers-known");
    let redis = Redis::start(&directory).await;
    let service = ServiceOptions { issuers: Vec::new(), ..ServiceOptions::new(redis.url()) };
    let options = MeshOptions { service: Some(service), ..MeshOptions::default() };
    let mut mesh = Mesh::try_start_in(directory, options).await.unwrap();
    let service = mesh.service.as_mut().unwrap();
    let known = async |service: &Service| service.try_revoke(&["issuer", "--issuer", OTHER_ISSUER]).await.2 == 0;
    assert!(wait_until(TOLD, async || known(service).await).await, "the filter has told nobody");
    for wrong in
        ["https://issuer.exmaple", "https://issuer.example/", "http://issuer.example", "HTTPS://issuer.example"]
    {
        let (problem, errors, code) = service.try_revoke(&["user", "--issuer", wrong, "--id", "alice"]).await;
        assert_eq!((code, problem["field"].as_str()), (1, Some("issuer")), "{wrong}: {errors}");
        assert!(errors.contains(&format!("did you mean `{ISSUER}`?")), "{errors}");
    }
    let (done, errors, code) =
        service.try_revoke(&["user", "--issuer", "https://new.example", "--id", "alice", "--new-issuer"]).await;
    assert_eq!(code, 0, "{errors}");
    assert!(done["ends"].as_str().unwrap().contains("auth_time") && done["until"].is_u64(), "{done}");
    // An instance that no filter has told yet knows it from the store.
    mesh.envoy.process().stop();
    service.restart().await;
    assert!(known(service).await, "the store has lost it");
    assert_eq!(service.try_revoke(&["issuer", "--issuer", "https://nobody.example"]).await.2, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_tokens_live_too_long_is_named_and_the_others_pass() {
    let mut options = MeshOptions::default();
    options.filter["issuers"][1]["max_session"] = json!("31d");
    let document = options.filter.clone();
    let (secret, shared) = (MeshOptions::secret(), mint::to_base64url(options.keys.shared.secret().unwrap()));
    let mut mesh = Mesh::start_with("issuers-too-long", options).await;
    let line = |log: &str| log.lines().any(|line| line.contains("retention_too_short") && line.contains(OTHER_ISSUER));
    assert!(wait_until(TOLD, async || line(&mesh.service.as_mut().unwrap().process().log())).await);
    assert!(wait_until(TOLD, async || line(&mesh.envoy_log())).await);
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let of_other = mesh.keys.first.mint(&claims_with(&json!({ "iss": OTHER_ISSUER, "sub": "bob", "jti": "other-1" })));
    let refused = mesh.get(&of_other).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str().map(str::to_owned)),
        (503, Some("STORE_UNAVAILABLE".into()))
    );
    assert!(mesh.envoy_log().contains("the service keeps revocations for less time than tokens live"));
    // The same is said before a proxy has the document.
    let file = mesh.directory.write("filter.json", document.to_string());
    let url = format!("http://{}", mesh.service.as_ref().unwrap().address());
    let mut command = std::process::Command::new(Service::binary());
    command.args(["check-config", "--service", &url]).arg(file);
    command.env("PORTCULLIS_SECRET", &secret).env("KEY_SHARED", &shared);
    let ran = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(1), "{text}");
    assert!(text.contains("issuers[1].max_session") && text.contains("--max-session"), "{text}");
    assert!(!text.contains("issuers[0]") && !text.contains("max_lifetime"), "{text}");
}
