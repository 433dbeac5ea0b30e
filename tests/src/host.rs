//! In which form the filter runs in Envoy.

/// `HOST=native` in the environment runs every test with the dynamic module; the default is the Wasm module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Wasm,
    Native,
}

impl Host {
    /// # Panics
    /// `HOST` is something else.
    pub fn from_environment() -> Self {
        match std::env::var("HOST").as_deref() {
            Ok("native") => Host::Native,
            Ok("wasm" | "") | Err(_) => Host::Wasm,
            Ok(other) => panic!("HOST is `{other}`, which is neither `wasm` nor `native`"),
        }
    }

    /// Do the tests run with the dynamic module?
    pub fn is_native() -> bool {
        Self::from_environment() == Host::Native
    }
}

/// The bootstrap with the filter of envoy/filter-native.yaml in the place of its own.
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
