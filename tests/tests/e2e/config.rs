//! A wrong configuration never takes effect: it is refused with the path of its field, and the old one stays.
use std::time::Duration;

use harness::mesh::CHECK_TIMEOUT;
use harness::{Answer, Mesh, MeshOptions, RawServer, Reply, Request, Upstream, wait_until};
use serde_json::{Value, json};
use wire::Answer::Live;
use wire::check::Asked;
use wire::{Retention, Secret};

const UPDATE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_the_path_of_its_field() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil); 6] = [
        ("rules[5].access", |filter| filter["rules"][5]["access"] = json!("sometimes")),
        ("rules[0].pubic", |filter| filter["rules"][0]["pubic"] = json!(true)),
        ("revocation.freshness", |filter| filter["revocation"]["freshness"] = json!("6s")),
        ("revocation.secret_env", |filter| filter["revocation"]["secret_env"] = json!("NOBODY_SETS_THIS")),
        ("issuers[1].algorithms", |filter| filter["issuers"][1]["algorithms"] = json!(["none"])),
        ("issuers[0].keys[0].jwk", |filter| filter["issuers"][0]["keys"][0]["jwk"]["x"] = json!("AAAA")),
    ];
    // The values of fields are tested natively. Here: Envoy asks the filter, and refuses the configuration when it does.
    for (field, spoil) in cases {
        let mut options = MeshOptions { check_address: Some("127.0.0.1:9".parse().unwrap()), ..MeshOptions::default() };
        spoil(&mut options.filter);
        let Err(log) = Mesh::try_start("wrong-config", options).await else { panic!("{field}: Envoy starts") };
        let line = log.lines().find(|line| line.contains("portcullis: the configuration is refused"));
        let line = line.unwrap_or_else(|| panic!("{field}: no word of the filter in\n{log}"));
        assert!(line.contains(field), "{field}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_takes_over_when_it_is_right_and_leaves_the_old_one_when_it_is_not() {
    let slow = Upstream::answering(|seen| {
        let delay = if seen.path.ends_with("/slow") { CHECK_TIMEOUT } else { Duration::ZERO };
        Answer::json(200, &seen.to_json()).after(delay)
    });
    let options = MeshOptions { upstream: Some(slow.await), listener_from_file: true, ..MeshOptions::default() };
    let mut mesh = Mesh::start_with("updated", options).await;
    let (token, address) = (mesh.token(), mesh.envoy.address());
    let get = async |path: &str| mesh.send(&Request::get(path).bearer(&token)).await.status;
    assert_eq!((get("/api").await, get("/next").await), (200, 403));
    let made = mesh.envoy.stat("wasm.envoy.wasm.runtime.v8.created").await;
    let running = mesh.envoy.stat("wasm.envoy.wasm.runtime.v8.active").await;
    let stat = async |name: &str| mesh.envoy.stat(&format!("listener_manager.{name}")).await;

    // The file holds the filter's configuration as a string in quotes.
    let rejected = stat("lds.update_rejected").await;
    mesh.envoy.update_listener(r#"\"access\":\"optional\""#, r#"\"access\":\"sometimes\""#);
    assert!(wait_until(UPDATE, async || stat("lds.update_rejected").await > rejected).await);
    assert_eq!((get("/api").await, get("/next").await, get("/optional").await), (200, 403, 200));
    assert_eq!(mesh.get("garbage").await.status, 401);

    // Requests of the old one are under way, at the service and at the upstream, when the new one comes.
    let ongoing = |path: &'static str, token: String| {
        tokio::spawn(async move {
            let request = Request::new("POST", path).bearer(&token).body("a body");
            harness::exchange(address, &request).await.expect("the old configuration finishes its requests").status
        })
    };
    let before = mesh.upstream.requests();
    let slow: Vec<_> = (0..8).map(|_| ongoing("/api/slow", mesh.token())).collect();
    assert!(wait_until(UPDATE, async || mesh.upstream.requests() >= before + 8).await);
    mesh.envoy.update_listener(r#"\"access\":\"sometimes\""#, r#"\"access\":\"optional\""#);
    mesh.envoy.update_listener(r#"\"prefix\":\"/api\""#, r#"\"prefix\":\"/next\""#);
    assert!(wait_until(UPDATE, async || get("/next").await == 200).await);
    for one in slow {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert!(wait_until(UPDATE, async || get("/api").await == 403).await);
    let mut connections = mesh.connections(1).await;
    for connection in &mut connections {
        for (path, status) in [("/next", 200), ("/api", 403)] {
            let response = connection.send(&Request::get(path).bearer(&token)).await.unwrap();
            assert_eq!(response.status, status, "{}", response.text());
        }
    }

    // One vm_id: the machines are those of before, but for the canary on which a configuration is tried.
    let now = mesh.envoy.stat("wasm.envoy.wasm.runtime.v8.created").await;
    println!("{made} machines made before, {now} after; {running} running before");
    let still = async || mesh.envoy.stat("wasm.envoy.wasm.runtime.v8.active").await <= running;
    assert!(wait_until(UPDATE, still).await, "machines are left behind");
    let log = mesh.envoy_log();
    let line = log.lines().find(|line| line.contains("portcullis: the configuration is refused")).expect("a reason");
    assert!(line.contains("rules[1].access"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_verdict_is_answered_under_the_configuration_that_it_came_under() {
    let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
    // Slow enough for an update to come between question and answer.
    let service = RawServer::start(move |question| {
        let asked = Asked::read(std::slice::from_ref(&derived), question).unwrap();
        let live = asked.answers(&derived, Retention::LONGEST, &vec![Live; asked.keys().len()], &[]);
        Reply::http(200, &live).after(CHECK_TIMEOUT)
    })
    .await;
    let mut options =
        MeshOptions { check_address: Some(service.address()), listener_from_file: true, ..MeshOptions::default() };
    options.filter["revocation"]["timeout"] = json!("3s");
    options.filter["revocation"]["freshness"] = json!("5s");
    let mut mesh = Mesh::start_with("updated-while-waiting", options).await;
    let address = mesh.envoy.address();
    let waiting: Vec<_> = (0..8)
        .map(|_| Request::new("POST", "/api").bearer(&mesh.token()).body("a body"))
        .map(|request| tokio::spawn(async move { harness::exchange(address, &request).await.expect("an answer") }))
        .collect();
    let asked = async || service.requests() >= 1;
    assert!(wait_until(UPDATE, asked).await);
    // The others wait for the same callout, or the next.
    let all_are_in = async || mesh.envoy.stat("http.main.downstream_rq_active").await >= 8;
    assert!(wait_until(UPDATE, all_are_in).await);
    mesh.envoy.update_listener(r#"\"prefix\":\"/api\""#, r#"\"prefix\":\"/next\""#);
    // Under the new configuration nothing is asked for this path: it is refused at once.
    let updated = async || mesh.send(&Request::get("/api")).await.json()["code"] == "ROUTE_UNMATCHED";
    assert!(wait_until(UPDATE, updated).await);
    assert_eq!(mesh.upstream.requests(), 0, "the update came too late for this test");
    for one in waiting {
        let response = one.await.unwrap();
        assert_eq!((response.status, response.json()["body_bytes"].as_u64()), (200, Some(6)), "{}", response.text());
    }
    assert_eq!(mesh.send(&Request::get("/next").bearer(&mesh.token())).await.status, 200);
    mesh.envoy.process().assert_running();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_written_as_yaml_in_the_bootstrap_counts_as_the_same_one_in_json() {
    // Envoy hands a Struct over as protobuf, although its documentation says JSON.
    let as_struct = |bootstrap: String| {
        let (before, after) = bootstrap.split_once("google.protobuf.StringValue").expect("a StringValue");
        let (space, rest) = after.split_once("value: ").expect("its value");
        let (text, rest) = rest.split_once('\n').expect("on a line of its own");
        let document: String = serde_json::from_str(text).expect("a string");
        format!("{before}google.protobuf.Struct{space}value: {document}\n{rest}")
    };
    let mesh = Mesh::start_with("as-struct", MeshOptions { edit: as_struct, ..MeshOptions::default() }).await;
    let token = mesh.token();
    let passed = mesh.send(&Request::get("/api/things").bearer(&token)).await;
    assert_eq!(passed.status, 200, "{}", passed.text());
    let refused = mesh.send(&Request::get("/api/things")).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("TOKEN_MISSING")));
}
