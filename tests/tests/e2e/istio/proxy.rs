//! The filter as istiod configures it: from the image that `make image` packs, unpacked as the agent does, and as the
//! dynamic module that the EnvoyFilter inserts.
use super::*;

/// Does as the agent in the proxy's pod does with `url` and `sha256`: compares the digest of the manifest, and looks in the
/// last layer for plugin.wasm.
fn unpacked(into: &Path) -> PathBuf {
    let digest = image::unpack(&project().join("dist/filter-image"), into);
    assert_eq!(GATEWAY["spec"]["sha256"], digest, "istio/build is of another image");
    let module = into.join("plugin.wasm");
    let built = project().join("dist/portcullis.wasm");
    assert_eq!(image::sha256(&module), image::sha256(&built), "the image is of another build");
    module
}

/// envoy.yaml with the filter as istiod writes it: named by namespace and name (from 1.30 on with a mark that it was
/// translated from a WasmPlugin), the root after `pluginName`, no vm_id, variables of its own beside ours, and clusters by
/// the names that Istio gives them.
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
    with_istios_clusters(edited)
}

fn with_istios_clusters(mut bootstrap: String) -> String {
    let config = &GATEWAY["spec"]["pluginConfig"];
    let names =
        [("session_service", &config["revocation"]["cluster"]), ("idp", &config["issuers"][0]["jwks"]["cluster"])];
    for (old, new) in names {
        for field in ["- name", "cluster_name"] {
            let line = format!("{field}: {old}\n");
            assert!(bootstrap.contains(&line), "the bootstrap has no `{line}`");
            bootstrap = bootstrap.replace(&line, &format!("{field}: {new}\n"));
        }
    }
    bootstrap
}

/// envoy-native.yaml with the filter that the EnvoyFilter inserts.
fn as_envoy_filter(bootstrap: String) -> String {
    let documents = built("gateway-native");
    let of_kind = |kind: &str| documents.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("WasmPlugin").len(), 0, "the filter would run twice");
    let patches = of_kind("EnvoyFilter")[0]["spec"]["configPatches"].as_array().expect("patches").clone();
    let filter = patches.iter().find(|patch| patch["applyTo"] == "HTTP_FILTER").expect("the filter");
    let value = &filter["patch"]["value"];
    assert_eq!(value["typed_config"]["filter_config"]["value"], GATEWAY["spec"]["pluginConfig"]);
    edited(&with_istios_clusters(bootstrap), |manager| manager["http_filters"][0] = value.clone())
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
    async fn start(name: &str, is_native: bool) -> Self {
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
        let (host, edit): (_, fn(String) -> String) = match is_native {
            true => (FilterHost::Native, as_envoy_filter),
            false => (FilterHost::Wasm { module: unpacked(directory.path()) }, as_istio),
        };
        (options.host, options.edit) = (host, edit);
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

    /// It runs, and its log does not tell the secret.
    fn ends_well(&mut self) {
        self.envoy.process().assert_running();
        assert!(!self.envoy.process().log().contains(SECRET), "the log tells the secret");
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        exchange(self.envoy.address(), &Request::get(path).bearer(token)).await.expect("Envoy answers")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_runs_as_istio_would_run_it() {
    let mut stack = Stack::start("istio", false).await;
    admits_and_refuses(&stack).await;
    // Labels as the shipped stats tags make them, and under Istio's longer name of the plugin too.
    let metrics = stack.envoy.prometheus().await;
    assert!(metrics.contains("portcullis_requests{outcome=\"admitted\",fault=\"none\",rule=\"api\""), "{metrics}");
    let counter = "envoy_wasm_ingress_portcullis_istio_translated_wasmplugin_vm_reload";
    assert!(metrics.contains(&format!("{counter}{{}} 0")), "the alert on restarts asks for {counter}: {metrics}");
    stack.ends_well();
    assert!(stack.directory.path().join("plugin.wasm").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_module_runs_as_the_envoy_filter_inserts_it() {
    let mut stack = Stack::start("istio-native", true).await;
    admits_and_refuses(&stack).await;
    let metrics = stack.envoy.prometheus().await;
    assert!(metrics.contains("portcullis_requests{outcome=\"admitted\",fault=\"none\",rule=\"api\""), "{metrics}");
    stack.ends_well();
}

async fn admits_and_refuses(stack: &Stack) {
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
