//! Checks the file for Envoy, Envoy Gateway or Istio around a configuration for settings that weaken the filter.
use authn::config::Document;
use serde_json::Value;

use crate::suggest::closest;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The filter will not do what its configuration says.
    pub is_error: bool,
    pub field: String,
    pub message: String,
}

/// The fields of a WasmPlugin's `spec` (Istio, extensions.istio.io/v1alpha1). It has the module's fields beside those
/// that select proxies.
const WASM_PLUGIN: [&str; 16] = [
    "selector",
    "targetRef",
    "targetRefs",
    "url",
    "sha256",
    "imagePullPolicy",
    "imagePullSecret",
    "verificationKey",
    "pluginConfig",
    "pluginName",
    "phase",
    "priority",
    "failStrategy",
    "vmConfig",
    "match",
    "type",
];

/// The fields of a TrafficExtension's `spec` (the same API group, Istio 1.30 and later).
const TRAFFIC_EXTENSION: [&str; 7] = ["selector", "targetRefs", "phase", "priority", "match", "wasm", "lua"];

/// The fields of its `wasm`.
const TRAFFIC_EXTENSION_WASM: [&str; 10] = [
    "url",
    "sha256",
    "imagePullPolicy",
    "imagePullSecret",
    "verificationKey",
    "pluginConfig",
    "pluginName",
    "failStrategy",
    "vmConfig",
    "type",
];

const OPEN: &str = "lets every request pass unchecked after a VM has failed; use FAIL_RELOAD";

/// `config` is that of `envoy.extensions.filters.http.wasm.v3.Wasm`, at `place`.
pub fn of_envoy(config: &Value, place: &str) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut remark = |is_error, field: &str, message: &str| {
        remarks.push(Remark { is_error, field: format!("{place}.config{field}"), message: message.to_owned() });
    };
    match config["failure_policy"].as_str() {
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => remark(true, ".failure_policy", &format!("FAIL_OPEN {OPEN}")),
        _ if config["fail_open"] == true => remark(true, ".fail_open", &format!("true {OPEN}")),
        _ => remark(
            false,
            ".failure_policy",
            "is not FAIL_RELOAD: a worker whose VM failed answers 503 until the configuration changes",
        ),
    }
    if config["allow_on_headers_stop_iteration"] == true {
        let message = "with true Envoy buffers the body of a waiting request, and answers 413 to a longer one";
        remark(false, ".allow_on_headers_stop_iteration", message);
    }
    if config["vm_config"]["vm_id"].as_str().unwrap_or_default().is_empty() {
        let message = "is empty: all Wasm filters without a vm_id share their data; give this filter its own";
        remark(false, ".vm_config.vm_id", message);
    }
    if config["root_id"].as_str().unwrap_or_default().is_empty()
        && config["name"].as_str().unwrap_or_default().is_empty()
    {
        let message = "is empty, and so is `name`: Envoy's log and statistics cannot tell this filter from another one";
        remark(false, ".root_id", message);
    }
    remarks
}

/// `envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter`, at `place`.
pub fn of_module(filter: &Value, place: &str) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut remark = |is_error, field: &str, message: &str| {
        remarks.push(Remark { is_error, field: format!("{place}.{field}"), message: message.to_owned() });
    };
    let module = &filter["dynamic_module_config"];
    if !module["module"]["remote"].is_null() {
        let message = "lets every request pass unchecked while Envoy has not fetched the module; use a file";
        remark(true, "dynamic_module_config.module.remote", message);
    }
    if filter["filter_name"] != "portcullis" {
        remark(true, "filter_name", "is not `portcullis`, the only filter of the module");
    }
    remarks
}

/// A filter in `wasm` or `dynamicModule` of an EnvoyExtensionPolicy (gateway.envoyproxy.io/v1alpha1), at `place`.
pub fn of_envoy_gateway(filter: &Value, place: &str) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut error = |field: &str, message: &str| {
        remarks.push(Remark { is_error: true, field: format!("{place}.{field}"), message: message.to_owned() });
    };
    if filter["failOpen"] == true {
        error("failOpen", "true lets every request pass unchecked when the module or its configuration is not right");
    }
    if filter["terminalFilter"] == true {
        error("terminalFilter", "true keeps admitted requests from reaching any route");
    }
    if place.contains("dynamicModule") && filter["filterName"] != "portcullis" {
        error("filterName", "is not `portcullis`, the only filter of the module");
    }
    remarks
}

/// The connection manager that contains the filter, at `place`.
pub fn of_manager(manager: &Value, place: &str, document: &Document) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut warn = |field: &str, message: &str| {
        remarks.push(Remark { is_error: false, field: format!("{place}.{field}"), message: message.to_owned() });
    };
    for field in ["normalize_path", "merge_slashes"] {
        if manager[field] != true {
            warn(field, "is not true: the filter refuses paths that Envoy would have normalised");
        }
    }
    if manager["path_with_escaped_slashes_action"] != "REJECT_REQUEST" {
        warn("path_with_escaped_slashes_action", "is not REJECT_REQUEST, which is what the filter does itself");
    }
    let underscores = manager["common_http_protocol_options"]["headers_with_underscores_action"].as_str();
    if !matches!(underscores, Some("DROP_HEADER" | "REJECT_REQUEST")) {
        let message = "is not DROP_HEADER or REJECT_REQUEST: many backends read x_user and x-user as one header";
        warn("common_http_protocol_options.headers_with_underscores_action", message);
    }
    if manager["stream_idle_timeout"].as_str().is_some_and(|time| time.trim_end_matches('s').parse() == Ok(0.0)) {
        warn("stream_idle_timeout", "is 0: a request that waits in a VM that failed waits forever");
    }
    if document.rules.iter().any(|rule| rule.matches.hosts.is_some()) {
        for field in ["strip_any_host_port", "strip_trailing_host_dot"] {
            if manager[field] != true {
                let message =
                    "is not true, and rules compare hosts: filters before this one see the host as the client wrote it";
                warn(field, message);
            }
        }
    }
    remarks
}

/// The clusters that a document names and a bootstrap lacks. A bootstrap that fetches clusters may have any, and a file
/// without a list of clusters is only a part of one.
pub fn of_clusters(bootstrap: &Value, place: &str, document: &Document) -> Vec<Remark> {
    let resources = &bootstrap["static_resources"];
    if resources["clusters"].is_null() || !bootstrap["dynamic_resources"]["cds_config"].is_null() {
        return Vec::new();
    }
    let clusters: Vec<&str> =
        resources["clusters"].as_array().into_iter().flatten().filter_map(|cluster| cluster["name"].as_str()).collect();
    let mut named: Vec<(String, &str)> = Vec::new();
    if let Some(revocation) = &document.revocation {
        named.push(("revocation.cluster".to_owned(), &revocation.cluster));
    }
    for (index, issuer) in document.issuers.iter().enumerate() {
        if let Some(jwks) = &issuer.jwks {
            named.push((format!("issuers[{index}].jwks.cluster"), &jwks.cluster));
        }
        if let Some(introspection) = &issuer.introspection {
            named.push((format!("issuers[{index}].introspection.cluster"), &introspection.cluster));
        }
    }
    named
        .into_iter()
        .filter(|(_, name)| !clusters.contains(name))
        .map(|(field, name)| {
            let hint = closest(name, clusters.iter().copied()).map(|other| format!("; did you mean `{other}`?"));
            let message = format!("this bootstrap has no cluster `{name}`{}", hint.unwrap_or_default());
            Remark { is_error: true, field: format!("{place}: {field}"), message }
        })
        .collect()
}

/// Which of Istio's two resources holds the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IstioKind {
    WasmPlugin,
    TrafficExtension,
}

impl IstioKind {
    pub fn of(kind: &Value) -> Option<Self> {
        match kind.as_str()? {
            "WasmPlugin" => Some(Self::WasmPlugin),
            "TrafficExtension" => Some(Self::TrafficExtension),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::WasmPlugin => "WasmPlugin",
            Self::TrafficExtension => "TrafficExtension",
        }
    }

    /// The position of the module and its configuration in `spec`, and the name of that position.
    pub fn module(self, spec: &Value) -> (&Value, &'static str) {
        match self {
            Self::WasmPlugin => (spec, "spec"),
            Self::TrafficExtension => (&spec["wasm"], "spec.wasm"),
        }
    }
}

/// `spec` of a WasmPlugin or a TrafficExtension.
pub fn of_istio(kind: IstioKind, spec: &Value) -> Vec<Remark> {
    let (module, place) = kind.module(spec);
    let mut remarks = match kind {
        IstioKind::WasmPlugin => unknown_fields(spec, "spec", kind, &WASM_PLUGIN),
        IstioKind::TrafficExtension => {
            let mut remarks = unknown_fields(spec, "spec", kind, &TRAFFIC_EXTENSION);
            remarks.extend(unknown_fields(module, place, kind, &TRAFFIC_EXTENSION_WASM));
            remarks
        }
    };
    let mut remark = |is_error, field: String, message: String| remarks.push(Remark { is_error, field, message });
    match module["failStrategy"].as_str() {
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => remark(true, format!("{place}.failStrategy"), format!("FAIL_OPEN {OPEN}")),
        _ => remark(
            false,
            format!("{place}.failStrategy"),
            "is not FAIL_RELOAD: a worker whose VM failed answers 503 until the configuration changes".into(),
        ),
    }
    if module["type"] == "NETWORK" {
        let message = "NETWORK makes the module a filter of connections, where it sees no request; leave it out";
        remark(true, format!("{place}.type"), message.into());
    }
    if kind == IstioKind::TrafficExtension && !spec["lua"].is_null() {
        let message = "is present beside `wasm`, and Istio rejects a TrafficExtension with both";
        remark(true, "spec.lua".into(), message.into());
    }
    let has_targets = !spec["targetRef"].is_null() || !spec["targetRefs"].is_null();
    if has_targets && !spec["selector"].is_null() {
        let message = "is present beside `targetRefs`, and Istio rejects a resource with both";
        remark(true, "spec.selector".into(), message.into());
    }
    if spec["phase"] != "AUTHN" {
        let message =
            "is not AUTHN: Istio's own filters, and plugins of that phase, see requests before they are checked";
        remark(false, "spec.phase".into(), message.into());
    }
    for (index, selector) in spec["match"].as_array().into_iter().flatten().enumerate() {
        if !selector["ports"].is_null() {
            let message = "names ports: requests to every other port of the workload pass unchecked";
            remark(false, format!("spec.match[{index}].ports"), message.into());
        }
    }
    remarks
}

fn unknown_fields(object: &Value, place: &str, kind: IstioKind, known: &[&str]) -> Vec<Remark> {
    let names = object.as_object().into_iter().flatten().map(|(name, _)| name);
    names
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            // Fields that a WasmPlugin has in `spec` are one level deeper in a TrafficExtension.
            let moved = kind == IstioKind::TrafficExtension
                && place == "spec"
                && TRAFFIC_EXTENSION_WASM.contains(&name.as_str());
            let hint = match moved {
                true => Some(format!("; it belongs in `spec.wasm.{name}`")),
                false => closest(name, known.iter().copied()).map(|other| format!("; did you mean `{other}`?")),
            };
            let message =
                format!("is not a field of a {}, and Istio ignores it{}", kind.name(), hint.unwrap_or_default());
            Remark { is_error: true, field: format!("{place}.{name}"), message }
        })
        .collect()
}
