//! The filter as Istio runs it: from the manifests in istio/ and the image that `make image` packs, with the
//! configuration in the form that istiod and its agent give to Envoy. Istio itself is not here.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use mint::{Alg, SigningKey, random_id};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tests::mesh::unix_now;
use tests::{
    Answer, Directory, Envoy, EnvoyOptions, Redis, Request, Response, Service, ServiceOptions, Upstream, exchange,
    project, wait_until,
};

const SECRET: &str = "a-shared-secret-of-the-tests-long-enough";
const LATEST: Duration = Duration::from_secs(10);

/// The WasmPlugin or TrafficExtension of an overlay, as kustomize builds it.
fn plugin(overlay: &str) -> Value {
    let kubectl = project().join(".venv/bin/kubectl");
    let output = Command::new(&kubectl)
        .arg("kustomize")
        .arg(project().join("istio/overlays").join(overlay))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/checkers", kubectl.display()));
    assert!(output.status.success(), "run `make image`: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("kustomize writes UTF-8");
    let documents = serde_norway::Deserializer::from_str(&text);
    let mut plugins = documents
        .map(|document| Value::deserialize(document).expect("a document"))
        .filter(|document| document["kind"] == "WasmPlugin" || document["kind"] == "TrafficExtension");
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
