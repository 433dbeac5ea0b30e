//! The filter of a bootstrap, and the dynamic module in place of the Wasm filter.

const FILTER: &str = "- name: portcullis\n";
const WASM_STATE: &str = "%FILTER_STATE(wasm.";
const ROUTER: &str = "- name: envoy.filters.http.router\n";

/// A template in three parts: before the filter, the filter, and from the router on.
///
/// # Panics
/// It has no filter, or no router after it.
pub(crate) fn split(template: &str) -> (&str, &str, &str) {
    let start = template.find(FILTER).expect("a template with the filter");
    let (before, rest) = template.split_at(start);
    let (filter, router) = rest.split_at(rest.find(ROUTER).expect("the router after the filter"));
    (before, filter.trim_end_matches(' '), router)
}

/// The template with the filter of another one in place of its own.
pub(crate) fn with_filter_of(template: &str, other: &str) -> String {
    let indent = |before: &str| before.rsplit('\n').next().unwrap_or_default().to_owned();
    let (before, _, router) = split(template);
    let (others_before, filter, _) = split(other);
    let (from, to) = (format!("\n{}", indent(others_before)), format!("\n{}", indent(before)));
    let filter = filter.replace(&from, &to);
    // Only the Wasm host puts this prefix before the names of filter state.
    let state = if filter.contains("DynamicModuleFilter") { "%FILTER_STATE(" } else { WASM_STATE };
    let (before, router) = (before.replace(WASM_STATE, state), router.replace(WASM_STATE, state));
    format!("{before}{}\n{}{router}", filter.trim_end(), indent(&before))
}

/// The bootstrap, with a second listener that has the filter of the other one.
pub(crate) fn with_native_listener(bootstrap: &str, other: &str) -> String {
    let native = with_filter_of(bootstrap, other);
    let (_, rest) = native.split_once("  listeners:\n").expect("listeners");
    let (listener, _) = rest.split_once("\n  clusters:\n").expect("clusters after the listeners");
    let listener = listener.replacen("- name: main\n", "- name: native\n", 1);
    let (before, after) = bootstrap.split_once("\n  clusters:\n").expect("clusters after the listeners");
    format!("{before}\n{listener}\n  clusters:\n{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> String {
        std::fs::read_to_string(crate::project().join("envoy").join(name)).unwrap()
    }

    #[test]
    fn a_filter_is_moved_with_its_indentation() {
        let template = "a:\n  - name: portcullis\n    wasm: 1\n  - name: envoy.filters.http.router\nb\n";
        let other = "- name: portcullis\n  module:\n    c: 1\n- name: envoy.filters.http.router\n";
        let moved = "a:\n  - name: portcullis\n    module:\n      c: 1\n  - name: envoy.filters.http.router\nb\n";
        assert_eq!(with_filter_of(template, other), moved);
    }

    /// Nobody has to compare the two by hand: after the comment at their top they differ in the filter, in the
    /// names of its filter state, and in what its metrics need.
    #[test]
    fn both_bootstraps_are_the_same_around_the_filter() {
        let around = |name: &str, metrics: &str| {
            let text = read(name).replace(WASM_STATE, "%FILTER_STATE(");
            let (_, text) = text.split_once("\nadmin:\n").unwrap();
            let (before, _, after) = split(text);
            let (clusters, rest) = after.split_once(metrics).unwrap();
            let (_, rest) = rest.split_once("\noverload_manager:\n").unwrap();
            [before, clusters, rest].map(str::to_owned)
        };
        let wasm = around("envoy.yaml", "\n# Labels for our metrics.");
        assert_eq!(wasm, around("envoy-native.yaml", "\n# Without this, Prometheus"));
    }
}
