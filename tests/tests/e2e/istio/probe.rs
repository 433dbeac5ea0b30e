//! The readiness probe, with the filter, without it, and with a filter that istiod could not deliver.
use super::*;

/// Where the extension configuration of [`by_discovery`] stands.
static DISCOVERED: OnceLock<PathBuf> = OnceLock::new();

/// The route that our EnvoyFilter puts before all others.
fn with_probe_route(bootstrap: String) -> String {
    let filter =
        built("gateway").into_iter().find(|document| document["kind"] == "EnvoyFilter").expect("an EnvoyFilter");
    let patches = filter["spec"]["configPatches"].as_array().expect("patches");
    let patch = patches.iter().find(|patch| patch["applyTo"] == "HTTP_ROUTE").expect("one of the routes");
    assert_eq!(patch["patch"]["operation"], "INSERT_FIRST");
    edited(&bootstrap, |manager| {
        let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().expect("routes");
        routes.insert(0, patch["patch"]["value"].clone());
    })
}

/// The filter by extension configuration discovery, as istiod writes it. The discovered configuration is in a file.
fn by_discovery(bootstrap: String) -> String {
    let file = DISCOVERED.get().expect("a file");
    let mut bootstrap: Value = serde_norway::from_str(&with_probe_route(bootstrap)).expect("YAML");
    bootstrap["node"] = json!({ "id": "test", "cluster": "test" });
    let manager = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let name = "extensions.istio.io/trafficextension/ingress.portcullis";
    let mut config = manager["http_filters"][0]["typed_config"].take();
    // A secret that the pod does not have.
    config["config"]["vm_config"]["environment_variables"]["host_env_keys"] = json!(["NOBODY_HAS_IT"]);
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let discovered = match std::fs::read_to_string(file).expect("which one").as_str() {
        "no secret" => config,
        // The agent puts this in place of a module that it cannot fetch.
        "no module" => json!({ "@type": rbac, "rules": {}, "rules_stat_prefix": "wasm-default-deny" }),
        other => panic!("{other}"),
    };
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let resource = json!({ "resources": [{ "@type": kind, "name": name, "typed_config": discovered }] });
    std::fs::write(file, resource.to_string()).expect("a file");
    manager["http_filters"][0] = json!({ "name": name, "config_discovery": {
        "config_source": { "path_config_source": { "path": file }, "initial_fetch_timeout": "0s" },
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", rbac],
    } });
    bootstrap.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_probe_is_200_only_where_the_filter_judges() {
    let probe = || Request::get("/portcullis/ready").header("host", "10.0.0.1:443");
    let rules = json!([
        { "name": "ready", "match": { "path": { "exact": "/portcullis/ready" } }, "access": "probe" },
        { "name": "open", "match": { "path": { "exact": "/open" } }, "access": "public" },
        { "name": "api", "access": "required" },
    ]);
    assert_eq!(GATEWAY["spec"]["pluginConfig"]["rules"][0], rules[0]);
    let filter = json!({
        "issuers": [{
            "issuer": "https://login.example.com", "audiences": ["orders"], "algorithms": ["HS256"],
            "keys": [{ "secret_env": "PORTCULLIS_SECRET" }],
        }],
        "rules": rules,
    });
    let upstream = Upstream::start().await;
    let start = async |directory: &Directory, filter: Option<&Value>, edit: fn(String) -> String| {
        let mut options = EnvoyOptions::new(upstream.address(), upstream.address(), filter.cloned());
        options.environment = vec![("PORTCULLIS_SECRET".to_owned(), SECRET.to_owned())];
        options.edit = edit;
        Envoy::start(directory, options).await
    };
    let asked = async |envoy: &Envoy, request: Request| exchange(envoy.address(), &request).await.expect("an answer");

    let directory = Directory::new("istio-probe");
    let envoy = start(&directory, Some(&filter), with_probe_route).await;
    for method in ["GET", "HEAD", "POST"] {
        let request = Request::new(method, "/portcullis/ready?x").header("host", "10.0.0.1:443");
        let answer = asked(&envoy, request).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{method}");
        if method != "HEAD" {
            assert_eq!(answer.json(), json!({ "portcullis": "ready" }), "{method}");
        }
    }
    assert_eq!(asked(&envoy, Request::get("/open")).await.status, 200);
    for path in ["/portcullis/ready/", "/portcullis/ready/x", "/portcullis"] {
        assert_eq!(asked(&envoy, Request::get(path)).await.status, 401, "{path}");
    }
    assert_eq!(asked(&envoy, Request::get("/portcullis%2fready")).await.status, 400);
    let counted = wait_until(LATEST, async || {
        envoy.stat("wasmcustom.portcullis.requests.outcome.answered.fault.none.rule.ready").await == 3
    });
    assert!(counted.await, "{}", envoy.prometheus().await);
    drop(envoy);

    // A plugin that a running proxy does not have yet: everything passes, and the upstream says 200 to any path.
    let directory = Directory::new("istio-probe-without");
    let envoy = start(&directory, None, with_probe_route).await;
    assert_eq!(asked(&envoy, probe()).await.status, 503);
    assert_eq!(asked(&envoy, Request::get("/api")).await.status, 200);
    drop(envoy);

    for (what, status) in [("no secret", 500), ("no module", 403)] {
        let directory = Directory::new("istio-probe-discovered");
        let file = DISCOVERED.get_or_init(|| std::env::temp_dir().join(format!("ecds-{}.json", std::process::id())));
        std::fs::write(file, what).expect("a file");
        let envoy = start(&directory, Some(&filter), by_discovery).await;
        for request in [probe(), Request::get("/open"), Request::get("/api")] {
            assert_eq!(asked(&envoy, request).await.status, status, "{what}");
        }
        drop(envoy);
        std::fs::remove_file(file).expect("the file");
    }
}
