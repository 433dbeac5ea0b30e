//! Settings of the connection manager that istiod leaves out, and our EnvoyFilter that adds them.
use super::*;

/// The connection manager as istiod writes it by itself (`pathNormalization: BASE`, its default).
fn as_istiods_listener(bootstrap: String) -> String {
    edited(&bootstrap, |manager| {
        let manager = manager.as_object_mut().expect("a connection manager");
        for field in
            ["merge_slashes", "path_with_escaped_slashes_action", "strip_any_host_port", "strip_trailing_host_dot"]
        {
            assert!(manager.remove(field).is_some(), "envoy.yaml has no {field}");
        }
        manager.insert("stream_idle_timeout".to_owned(), json!("0s"));
        let options = manager["common_http_protocol_options"].as_object_mut().expect("options");
        assert!(options.remove("headers_with_underscores_action").is_some());
    })
}

/// The same, with our EnvoyFilter merged into it as istiod merges it.
fn as_patched_listener(bootstrap: String) -> String {
    let filter =
        built("gateway").into_iter().find(|document| document["kind"] == "EnvoyFilter").expect("an EnvoyFilter");
    let patches = filter["spec"]["configPatches"].as_array().expect("patches");
    let patch = patches.iter().find(|patch| patch["applyTo"] == "NETWORK_FILTER").expect("one of the manager");
    assert_eq!(patch["patch"]["operation"], "MERGE");
    let settings = &patch["patch"]["value"]["typed_config"];
    edited(&as_istiods_listener(bootstrap), |manager| {
        assert_eq!(manager["@type"], settings["@type"]);
        merge(manager, settings);
    })
}

/// As Protocol Buffers merge, where no list is involved.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

const SETTINGS: [&str; 5] = [
    "headers_with_underscores_action",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "strip_any_host_port",
    "strip_trailing_host_dot",
];

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_istiod_leaves_out_are_said_once_and_our_envoy_filter_has_them() {
    let directories = [Directory::new("istio-settings-bare"), Directory::new("istio-settings-patched")];
    let upstream = Upstream::start().await;
    let filter = json!({
        "issuers": [{
            "issuer": "https://login.example.com", "audiences": ["orders"], "algorithms": ["HS256"],
            "keys": [{ "secret_env": "PORTCULLIS_SECRET" }],
        }],
        "rules": [{ "match": { "hosts": ["orders.test"] }, "access": "public" }],
    });
    let start = async |directory: &Directory, edit: fn(String) -> String| {
        let mut options = EnvoyOptions::new(upstream.address(), upstream.address(), Some(filter.clone()));
        options.environment = vec![("PORTCULLIS_SECRET".to_owned(), SECRET.to_owned())];
        options.edit = edit;
        let envoy = Envoy::start(directory, options).await;
        // On new connections each time, so that every worker sees some.
        let mut statuses = Vec::new();
        for (path, host) in [
            ("/plain", "orders.test"),
            ("/a//b", "orders.test"),
            ("/a%2Fb", "orders.test"),
            ("/plain", "orders.test:8080"),
            ("/plain", "orders.test."),
        ]
        .repeat(4)
        {
            let request = Request::get(path).header("x_user_id", "root").header("host", host);
            statuses.push(exchange(envoy.address(), &request).await.expect("Envoy answers").status);
        }
        (envoy, statuses)
    };
    let counted = async |envoy: &Envoy, setting: &str| {
        envoy.stat(&format!("wasmcustom.portcullis.missing_proxy_settings.reason.{setting}")).await
    };

    let (mut envoy, statuses) = start(&directories[0], as_istiods_listener).await;
    assert_eq!(statuses[..5], [200, 400, 400, 200, 200], "{}", envoy.process().log());
    let all_counted = wait_until(LATEST, async || {
        counted(&envoy, "headers_with_underscores_action").await == 20 && counted(&envoy, "merge_slashes").await == 4
    });
    assert!(all_counted.await, "{}", envoy.prometheus().await);
    let log = envoy.process().log();
    for setting in SETTINGS {
        assert_eq!(log.matches(&format!("setting={setting}:")).count(), 1, "{setting}: {log}");
    }
    assert!(!log.contains("setting=normalize_path"), "{log}");
    let metrics = envoy.prometheus().await;
    assert!(metrics.contains("portcullis_missing_proxy_settings{reason=\"merge_slashes\"} 4"), "{metrics}");
    drop(envoy);

    let (mut envoy, statuses) = start(&directories[1], as_patched_listener).await;
    // The encoded slash is Envoy's own to refuse now, and the path with two slashes is merged.
    let log = envoy.process().log();
    assert_eq!(statuses[..5], [200, 200, 400, 200, 200], "{log}");
    assert!(!log.contains("setting="), "{log}");
    for setting in SETTINGS {
        assert_eq!(counted(&envoy, setting).await, 0, "{setting}");
    }
}

#[test]
fn check_config_finds_nothing_wrong_with_a_listener_that_our_envoy_filter_patched() {
    let template = std::fs::read_to_string(project().join("envoy/envoy.yaml")).expect("envoy.yaml");
    let directory = Directory::new("istio-check-config");
    // Only the connection manager is of interest, so anything may stand for the values.
    let filter = json!(plugin("gateway")["spec"]["pluginConfig"].to_string()).to_string();
    let mut rendered = template.replace("${FILTER_CONFIG}", &filter).replace("${SECRET_ENV}", "[PORTCULLIS_SECRET]");
    while let Some((before, rest)) = rendered.split_once("${") {
        rendered = format!("{before}1{}", rest.split_once('}').expect("a name").1);
    }
    let warned = |name: &str, text: String| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("a file");
        Service::portcullis(&["check-config", "--assume-secrets", &file.display().to_string()]).0
    };
    let bare = warned("bare.json", as_istiods_listener(rendered.clone()));
    for setting in
        ["merge_slashes", "path_with_escaped_slashes_action", "headers_with_underscores", "stream_idle_timeout"]
    {
        assert!(bare.contains(setting), "{setting}: {bare}");
    }
    let patched = warned("patched.json", as_patched_listener(rendered));
    assert!(!patched.contains("typed_config.stream_idle_timeout") && !patched.contains("slashes"), "{patched}");
    assert!(!patched.contains("underscores"), "{patched}");
}
