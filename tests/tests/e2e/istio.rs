//! The filter as Istio runs it: from the manifests in istio/ and the image of `make image`, with the configuration in
//! the form that istiod and its agent give to Envoy. Istio itself is not part of the test.
use harness::mesh::unix_now;
use harness::{
    Answer, Directory, Envoy, EnvoyOptions, FilterHost, Redis, Request, Response, Service, ServiceOptions, Upstream,
    exchange, image, project, wait_until,
};
use mint::{Alg, SigningKey, random_id};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

mod manifests;
mod probe;
mod proxy;
mod settings;

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

fn edited(bootstrap: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut bootstrap: Value = serde_norway::from_str(bootstrap).expect("YAML");
    edit(&mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]);
    bootstrap.to_string()
}
