//! The shipped bootstrap with the dynamic module in place of the Wasm filter.

/// The bootstrap, with its filter replaced by the one of envoy/filter-native.yaml.
pub(crate) fn with_native_filter(bootstrap: &str, filter: &str) -> String {
    let (before, rest) = bootstrap.split_once("- name: portcullis\n").expect("a bootstrap with the filter");
    let (_, router) = rest.split_once("- name: envoy.filters.http.router\n").expect("the router after the filter");
    let indent = before.rsplit('\n').next().unwrap_or_default();
    let filter = filter.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let filter = filter.join(&format!("\n{indent}"));
    // Without this, the names of the module's metrics have a prefix of Envoy's for Prometheus.
    let runtime = "{ envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix: true }";
    let runtime = format!("layered_runtime: {{ layers: [{{ name: static, static_layer: {runtime} }}] }}");
    format!("{before}{filter}\n{indent}- name: envoy.filters.http.router\n{router}\n{runtime}\n")
}

/// The bootstrap, with a second listener that has this filter.
pub(crate) fn with_native_listener(bootstrap: &str, filter: &str) -> String {
    let native = with_native_filter(bootstrap, filter);
    let (_, rest) = native.split_once("  listeners:\n").expect("listeners");
    let (listener, _) = rest.split_once("\n  clusters:\n").expect("clusters after the listeners");
    let listener = listener.replacen("- name: main\n", "- name: native\n", 1);
    let (before, after) = bootstrap.split_once("\n  clusters:\n").expect("clusters after the listeners");
    format!("{before}\n{listener}\n  clusters:\n{after}")
}
