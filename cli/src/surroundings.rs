//! What stands round a configuration in a file for Envoy or Istio, and would make the filter less than it says: judged by
//! what the file itself shows.
use authn::config::Document;
use serde_json::Value;

use crate::suggest::closest;

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The filter will not do what its configuration says.
    pub is_error: bool,
    pub field: String,
    pub message: String,
}

/// The fields of a WasmPlugin's `spec` (Istio, extensions.istio.io/v1alpha1).
const WASM_PLUGIN: [&str; 17] = [
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
    "failOpen",
];

const OPEN: &str = "lets every request pass unchecked once a virtual machine has failed; write FAIL_RELOAD";

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
            "is not FAIL_RELOAD: a worker whose virtual machine failed answers 503 until the configuration changes",
        ),
    }
    if config["allow_on_headers_stop_iteration"] == true {
        let message = "true has Envoy buffer the body of a request that waits, and answer 413 to a longer one";
        remark(false, ".allow_on_headers_stop_iteration", message);
    }
    if config["vm_config"]["vm_id"].as_str().unwrap_or_default().is_empty() {
        let message =
            "is empty: shared data is that of all Wasm filters without one; give this filter a name of its own";
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

/// The connection manager that the filter stands in, at `place`.
pub fn of_manager(manager: &Value, place: &str, document: &Document) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut warn = |field: &str, message: &str| {
        remarks.push(Remark { is_error: false, field: format!("{place}.{field}"), message: message.to_owned() });
    };
    for field in ["normalize_path", "merge_slashes"] {
        if manager[field] != true {
            warn(field, "is not true: the filter refuses paths that Envoy would have put into one form");
        }
    }
    if manager["path_with_escaped_slashes_action"] != "REJECT_REQUEST" {
        warn("path_with_escaped_slashes_action", "is not REJECT_REQUEST, as the filter's own rule is");
    }
    let underscores = manager["common_http_protocol_options"]["headers_with_underscores_action"].as_str();
    if !matches!(underscores, Some("DROP_HEADER" | "REJECT_REQUEST")) {
        let message = "is neither DROP_HEADER nor REJECT_REQUEST: many backends read x_user and x-user as one header";
        warn("common_http_protocol_options.headers_with_underscores_action", message);
    }
    if manager["stream_idle_timeout"].as_str().is_some_and(|time| time.trim_end_matches('s').parse() == Ok(0.0)) {
        warn("stream_idle_timeout", "is 0: a request that waits in a virtual machine that failed waits for ever");
    }
    if document.rules.iter().any(|rule| rule.matches.hosts.is_some()) {
        for field in ["strip_any_host_port", "strip_trailing_host_dot"] {
            if manager[field] != true {
                let message = "is not true, and rules compare hosts: filters before this one see the host as it came";
                warn(field, message);
            }
        }
    }
    remarks
}

/// The clusters that a document names and a bootstrap does not have. A bootstrap that fetches clusters may have any, and a
/// file without a list of clusters is a part of one.
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

/// `spec` of a WasmPlugin.
pub fn of_istio(spec: &Value) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut remark = |is_error, field: &str, message: String| {
        remarks.push(Remark { is_error, field: format!("spec.{field}"), message });
    };
    for name in spec.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !WASM_PLUGIN.contains(&name.as_str()) {
            let hint = closest(name, WASM_PLUGIN).map(|other| format!("; did you mean `{other}`?"));
            remark(
                true,
                name,
                format!("is no field of a WasmPlugin, and Istio ignores it{}", hint.unwrap_or_default()),
            );
        }
    }
    match spec["failStrategy"].as_str() {
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => remark(true, "failStrategy", format!("FAIL_OPEN {OPEN}")),
        _ => remark(
            false,
            "failStrategy",
            "is not FAIL_RELOAD: a worker whose virtual machine failed answers 503 until the configuration changes"
                .into(),
        ),
    }
    remarks
}
