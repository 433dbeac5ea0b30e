//! The filter as Istio runs it: from the manifests in istio/ and the image that `make image` packs, with the
//! configuration in the form that istiod and its agent give to Envoy. Istio itself is not here.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use harness::mesh::unix_now;
use harness::{
    Answer, Directory, Envoy, EnvoyOptions, Redis, Request, Response, Service, ServiceOptions, Upstream, exchange,
    project, wait_until,
};
use mint::{Alg, SigningKey, random_id};
use serde::Deserialize as _;
use serde_json::{Value, json};

const SECRET: &str = "a-shared-secret-of-the-tests-long-enough";
const LATEST: Duration = Duration::from_secs(10);

/// All documents of an overlay, as kustomize builds it.
fn built(overlay: &str) -> Vec<Value> {
    let kubectl = project().join(".venv/bin/kubectl");
    let output = Command::new(&kubectl)
        .arg("kustomize")
        .arg(project().join("istio/overlays").join(overlay))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/checkers", kubectl.display()));
    assert!(output.status.success(), "run `make image`: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("kustomize writes UTF-8");
    let documents = serde_norway::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).expect("a document")).collect()
}

/// The WasmPlugin or TrafficExtension of an overlay.
fn plugin(overlay: &str) -> Value {
    let is_plugin = |document: &Value| document["kind"] == "WasmPlugin" || document["kind"] == "TrafficExtension";
    let mut plugins = built(overlay).into_iter().filter(is_plugin);
    let plugin = plugins.next().expect("a WasmPlugin or TrafficExtension");
    assert!(plugins.next().is_none(), "{overlay} has the filter twice");
    plugin
}

static GATEWAY: LazyLock<Value> = LazyLock::new(|| plugin("gateway"));

/// What the agent in the proxy's pod does with `url` and `sha256`: compares the digest of the manifest, takes the last
/// layer, which must be of this one media type, and looks in it for plugin.wasm.
fn unpacked(into: &Path) -> PathBuf {
    let layout = project().join("dist/filter-image");
    let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        let path = layout.join("blobs/sha256").join(digest);
        assert_eq!(sha256(&path), digest);
        (read(path.clone()), digest.to_owned(), path)
    };
    let index: Value = serde_json::from_slice(&read(layout.join("index.json"))).expect("an index");
    let (manifest, digest, _) = blob(&index["manifests"][0]);
    assert_eq!(GATEWAY["spec"]["sha256"], digest, "istio/build is of another image");
    let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer");
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let (_, _, layer) = blob(layer);
    let tar = Command::new("tar").arg("-xzf").arg(layer).arg("-C").arg(into).arg("plugin.wasm").status();
    assert!(tar.expect("tar runs").success());
    let module = into.join("plugin.wasm");
    assert_eq!(sha256(&module), sha256(&project().join("dist/portcullis.wasm")), "the image is of another build");
    module
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// envoy.yaml with the filter as istiod writes it: named by namespace and name (from 1.30 on with what marks a WasmPlugin
/// that was translated), the root after `pluginName`, no vm_id, variables of its own beside ours, and clusters by the names
/// that Istio gives them.
fn as_istio(bootstrap: String) -> String {
    let spec = &GATEWAY["spec"];
    let name = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).expect("a name").to_owned();
    let namespace = GATEWAY["metadata"]["namespace"].as_str().expect("a namespace");
    let full = format!("{namespace}.portcullis~istio-translated-wasmplugin");
    let mut edited = bootstrap;
    let mut replace = |old: &str, new: &str| {
        assert!(edited.contains(old), "the bootstrap has no `{old}`");
        edited = edited.replace(old, new);
    };
    replace(
        "config:\n                        name: portcullis\n",
        &format!("config:\n                        name: {full}\n"),
    );
    replace("root_id: portcullis", &format!("root_id: {}", name("/pluginName")));
    replace("failure_policy: FAIL_RELOAD", &format!("failure_policy: {}", name("/failStrategy")));
    replace("                          vm_id: portcullis\n", "");
    let own = "key_values: { ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION: \"4711\", \
               ISTIO_META_WASM_IMAGE_PULL_POLICY: IfNotPresent }\n                            host_env_keys:";
    replace("host_env_keys:", own);
    let ours = |old: &str, new: &str, edited: &mut dyn FnMut(&str, &str)| {
        edited(&format!("- name: {old}\n"), &format!("- name: \"{new}\"\n"));
        edited(&format!("cluster_name: {old}\n"), &format!("cluster_name: \"{new}\"\n"));
    };
    ours("session_service", &name("/pluginConfig/revocation/cluster"), &mut replace);
    ours("idp", &name("/pluginConfig/issuers/0/jwks/cluster"), &mut replace);
    edited
}

struct Stack {
    envoy: Envoy,
    service: Service,
    key: SigningKey,
    _redis: Redis,
    _upstream: Upstream,
    _login: Upstream,
    directory: Directory,
}

impl Stack {
    async fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let key = SigningKey::generate(Alg::ES256, "istio-1");
        let keys = json!({ "keys": [key.public_jwk().expect("a public key")] });
        let login = Upstream::answering(move |seen| {
            let is_asked = seen.path == "/.well-known/jwks.json" && seen.header("host") == Some("login.example.com");
            if is_asked { Answer::json(200, &keys) } else { Answer::new(404, "") }
        })
        .await;
        let redis = Redis::start(&directory).await;
        let mut options = ServiceOptions::new(redis.url());
        options.secret = SECRET.to_owned();
        // As the Deployment has it: no shorter than the filter's.
        options.arguments = vec!["--max-lifetime=1h".to_owned()];
        let service = Service::start(&directory, options).await;
        let upstream = Upstream::start().await;
        let spec = &GATEWAY["spec"];
        let mut options = EnvoyOptions::new(upstream.address(), service.address(), Some(spec["pluginConfig"].clone()));
        let host = spec["vmConfig"]["env"].as_array().into_iter().flatten();
        for variable in host.filter(|variable| variable["valueFrom"] == "HOST") {
            options.environment.push((variable["name"].as_str().expect("a name").to_owned(), SECRET.to_owned()));
        }
        options.idp = login.address();
        options.wasm = unpacked(directory.path());
        options.edit = as_istio;
        let envoy = Envoy::start(&directory, options).await;
        Self { envoy, service, key, _redis: redis, _upstream: upstream, _login: login, directory }
    }

    fn token(&self, claims: &Value) -> String {
        let now = unix_now();
        let mut all = json!({
            "iss": "https://login.example.com", "aud": "orders", "scope": "read orders", "sub": "alice",
            "iat": now, "exp": now + 600, "jti": random_id(), "sid": random_id(),
        });
        for (name, value) in claims.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        self.key.mint(&all)
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        exchange(self.envoy.address(), &Request::get(path).bearer(token)).await.expect("Envoy answers")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_runs_as_istio_would_run_it() {
    let mut stack = Stack::start("istio").await;
    let good = stack.token(&json!({}));
    // The keys come through a cluster with a name of Istio's, in their own time.
    // One worker has them sooner than another: so many connections reach both.
    let all_have_keys = wait_until(LATEST, async || {
        for _ in 0..16 {
            if stack.get("/api/orders", &good).await.status != 200 {
                return false;
            }
        }
        true
    });
    assert!(all_have_keys.await);
    let passed = stack.get("/api/orders", &good).await;
    assert_eq!(passed.upstream_saw("x-user-id"), ["alice"]);
    assert!(passed.upstream_saw("authorization").is_empty());

    for (path, claims, status, code) in [
        ("/api/admin", json!({}), 403, "CLAIM_INSUFFICIENT"),
        ("/api/orders", json!({ "aud": "another" }), 401, "INVALID_AUDIENCE"),
        ("/elsewhere", json!({}), 403, "ROUTE_UNMATCHED"),
    ] {
        let refused = stack.get(path, &stack.token(&claims)).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (status, Some(code)), "{}", refused.text());
    }
    let admin = stack.token(&json!({ "roles": ["admin"] }));
    assert_eq!(stack.get("/api/admin/users", &admin).await.status, 200);

    let session = random_id();
    let ended = stack.token(&json!({ "sid": session }));
    assert_eq!(stack.get("/api/orders", &ended).await.status, 200);
    let service = format!("http://{}", stack.service.admin_address());
    let file = stack.service.admin_token_file().display().to_string();
    let issuer = "https://login.example.com";
    let (output, errors, code) = Service::portcullis(&[
        "revoke",
        "session",
        "--issuer",
        issuer,
        &format!("--id={session}"),
        "--service",
        &service,
        "--token-file",
        &file,
    ]);
    assert_eq!(code, 0, "{output}{errors}");
    let refused = async || stack.get("/api/orders", &ended).await.json()["code"] == "SESSION_REVOKED";
    assert!(wait_until(LATEST, refused).await, "the session lives on");
    assert_eq!(stack.get("/api/orders", &good).await.status, 200);

    // Labels as the shipped stats tags make them, and under Istio's longer name of the plugin too.
    let metrics = stack.envoy.prometheus().await;
    assert!(metrics.contains("portcullis_requests{outcome=\"admitted\",fault=\"none\",rule=\"api\""), "{metrics}");
    let counter = "envoy_wasm_ingress_portcullis_istio_translated_wasmplugin_vm_reload";
    assert!(metrics.contains(&format!("{counter}{{}} 0")), "the alert on restarts asks for {counter}: {metrics}");
    stack.envoy.process().assert_running();
    let log = stack.envoy.process().log();
    assert!(!log.contains(SECRET), "the log tells the secret");
    assert!(stack.directory.path().join("plugin.wasm").exists());
}

#[test]
fn every_overlay_gives_the_same_filter_to_another_place() {
    let gateway = &GATEWAY["spec"];
    for (overlay, place) in [("gateway", "targetRefs"), ("sidecar", "selector"), ("waypoint", "targetRefs")] {
        let plugin = plugin(overlay);
        let extension = self::plugin(&format!("{overlay}-traffic-extension"));
        assert_eq!((&plugin["kind"], &extension["kind"]), (&json!("WasmPlugin"), &json!("TrafficExtension")));
        assert!(!plugin["spec"][place].is_null(), "{overlay} has no {place}");
        let namespace = if overlay == "gateway" { "ingress" } else { "shop" };
        for one in [&plugin, &extension] {
            assert_eq!(one["metadata"]["namespace"], namespace, "{overlay}");
        }
        for field in ["pluginConfig", "pluginName", "imagePullPolicy", "vmConfig", "sha256", "url", "failStrategy"] {
            assert!(!gateway[field].is_null(), "{field}");
            assert_eq!(plugin["spec"][field], gateway[field], "{overlay}: {field}");
            assert_eq!(extension["spec"]["wasm"][field], gateway[field], "{overlay}-traffic-extension: {field}");
        }
        assert_eq!(plugin["spec"]["phase"], gateway["phase"], "{overlay}");
        for field in ["phase", "selector", "targetRefs", "match"] {
            assert_eq!(extension["spec"][field], plugin["spec"][field], "{overlay}-traffic-extension: {field}");
        }
    }
}

/// What istiod writes into a connection manager by itself (`pathNormalization: BASE`, its default).
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

fn edited(bootstrap: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut bootstrap: Value = serde_norway::from_str(bootstrap).expect("YAML");
    edit(&mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]);
    bootstrap.to_string()
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

/// The filter by extension configuration discovery, as istiod writes it. What is discovered stands in a file.
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
        // What the agent puts in the place of a module that it cannot fetch.
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
        envoy.stat("wasmcustom.portcullis.requests.outcome.answered.reason.none.rule.ready").await == 3
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

/// Two filters of ours, as where a TrafficExtension is applied before its WasmPlugin is taken away.
fn twice(bootstrap: String) -> String {
    edited(&bootstrap, |manager| {
        let filters = manager["http_filters"].as_array_mut().expect("filters");
        let mut second = filters[0].clone();
        second["name"] = json!("ingress.portcullis");
        second["typed_config"]["config"]["name"] = json!("ingress.portcullis");
        filters.insert(1, second);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_may_run_twice_while_it_keeps_the_token() {
    let key = SigningKey::generate(Alg::ES256, "istio-2");
    let upstream = Upstream::start().await;
    let now = unix_now();
    let token = key.mint(&json!({
        "iss": "https://login.example.com", "aud": "orders", "sub": "alice", "iat": now, "exp": now + 600,
    }));
    for (keep, status) in [("keep", 200), ("remove", 401)] {
        let filter = json!({
            "issuers": [{
                "issuer": "https://login.example.com", "audiences": ["orders"], "algorithms": ["ES256"],
                "keys": [{ "jwk": key.public_jwk().expect("a public key") }],
            }],
            "forward": { "claims": [{ "claim": "sub", "header": "x-user-id" }], "token": keep },
            "rules": [{ "access": "required" }],
        });
        let directory = Directory::new("istio-twice");
        let mut options = EnvoyOptions::new(upstream.address(), upstream.address(), Some(filter));
        options.edit = twice;
        let envoy = Envoy::start(&directory, options).await;
        for _ in 0..4 {
            let request = Request::get("/api").bearer(&token).header("x-user-id", "root");
            let answer = exchange(envoy.address(), &request).await.expect("an answer");
            assert_eq!(answer.status, status, "{keep}: {}", answer.text());
            match keep {
                "keep" => assert_eq!(answer.upstream_saw("x-user-id"), ["alice"]),
                _ => assert_eq!(answer.json()["code"], "TOKEN_MISSING"),
            }
        }
    }
}
