//! The bootstraps of envoy/ with other parts, for tests.
use serde_json::Value;

/// As [`bootstrap::render`].
///
/// # Panics
/// The template has a placeholder without a value.
pub fn render(template: &str, values: &[(&str, Value)]) -> String {
    bootstrap::render(template, values).unwrap_or_else(|error| panic!("{error}"))
}

/// The bootstrap with another listener in the place of its own.
pub(crate) fn with_listener(bootstrap: &str, listener: &str) -> String {
    let (before, rest) = bootstrap.split_once("  listeners:\n").expect("envoy.yaml has listeners");
    let (_, clusters) = rest.split_once("\n  clusters:\n").expect("envoy.yaml has clusters after its listeners");
    let mut lines = listener.lines().filter(|line| !line.starts_with('#'));
    let first = lines.next().expect("a listener");
    let indented: String = lines.map(|line| format!("      {line}\n")).collect();
    format!("{before}  listeners:\n    - {first}\n{indented}\n  clusters:\n{clusters}")
}

/// The bootstrap with this `transport_socket` in a cluster.
pub(crate) fn with_transport_socket(bootstrap: &str, cluster: &str, socket: &str) -> String {
    let name = format!("    - name: {cluster}\n");
    let (before, after) = bootstrap.split_once(&name).expect("envoy.yaml has this cluster");
    let indented: String =
        socket.lines().filter(|line| !line.starts_with('#')).map(|line| format!("      {line}\n")).collect();
    format!("{before}{name}{indented}{after}")
}

#[cfg(test)]
mod tests {
    /// The lines without indentation. Each comment is one line: its breaks depend on the indentation.
    fn content(text: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match (lines.last_mut(), line.strip_prefix('#')) {
                (Some(last), Some(more)) if last.starts_with('#') => last.push_str(more),
                _ => lines.push(line.to_owned()),
            }
        }
        lines
    }

    /// The listeners differ only in TLS.
    #[test]
    fn both_listeners_have_the_same_connection_manager() {
        let manager = |file: &str, until: &str| {
            let text = std::fs::read_to_string(crate::project().join("envoy").join(file)).unwrap();
            let from = text.find("- name: envoy.filters.network.http_connection_manager").unwrap();
            content(text[from..].split(until).next().unwrap())
        };
        assert_eq!(manager("envoy.yaml", "\n  clusters:\n"), manager("listener-tls13.yaml", "\u{0}"));
    }

    /// The edge of the compose mesh equals them, except for its filter's configuration.
    #[test]
    fn the_edge_has_that_connection_manager_too() {
        let manager = |file: &str| {
            let text = std::fs::read_to_string(crate::project().join("envoy").join(file)).unwrap();
            let from = text.find("- name: envoy.filters.network.http_connection_manager").unwrap();
            let (before, after) = text[from..].split_once(" configuration:\n").unwrap();
            let (_, after) = after.split_once(" vm_config:\n").unwrap();
            let (after, _) = after.split_once("filters.http.router.v3.Router\n").unwrap();
            content(&format!("{before}{after}"))
        };
        let edge = manager("edge.yaml");
        let wasm = "/etc/portcullis/portcullis.wasm";
        let ours = manager("listener-tls13.yaml");
        let filled =
            ours.iter().map(|line| line.replace("${WASM}", wasm).replace("${SECRET_ENV}", "[PORTCULLIS_SECRET]"));
        assert_eq!(edge, filled.collect::<Vec<_>>());
    }
}
