//! What a running Envoy has loaded of ours, by its admin interface.
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::document::{self, Compiled, Secrets};
use crate::embedded::{self, Configuration, Plugin};
use crate::peers::Peers;

const WAIT: Duration = Duration::from_secs(10);

/// Its configuration dump.
///
/// # Errors
/// It does not answer, as text.
pub fn dump(peers: &Peers, envoy: &str) -> Result<Value, String> {
    json(peers, &format!("{envoy}/config_dump"))
}

/// # Errors
/// It does not answer, as text.
pub fn json(peers: &Peers, url: &str) -> Result<Value, String> {
    let answer = peers.get(url, WAIT)?;
    let mut value: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}"))?;
    // A dump has the listeners of the bootstrap once more, as they are in use.
    let has_listeners = |section: &Value| !section["static_listeners"].is_null();
    if value["configs"].as_array().is_some_and(|sections| sections.iter().any(has_listeners)) {
        for section in value["configs"].as_array_mut().into_iter().flatten() {
            if let Some(Value::Object(resources)) = section.pointer_mut("/bootstrap/static_resources") {
                resources.remove("listeners");
            }
        }
    }
    Ok(value)
}

/// The configurations of our filters. Envoy lists a listener again while it warms or drains.
pub fn plugins(dump: &Value) -> Vec<Plugin<'_>> {
    embedded::plugins(dump).into_iter().filter(Plugin::is_ours).collect()
}

/// Whether our filters have different configurations.
pub fn differ(dump: &Value) -> bool {
    let trees: Vec<Value> = plugins(dump).iter().map(tree).collect();
    trees.windows(2).any(|pair| matches!(pair, [one, other] if one != other))
}

/// The configuration of a filter, to compare.
pub fn tree(plugin: &Plugin<'_>) -> Value {
    with_integers(match &plugin.configuration {
        Configuration::Text(text) => serde_json::from_str(text).unwrap_or_default(),
        Configuration::Tree(tree) => tree.clone(),
    })
}

/// The configuration of our filter, of the first if there are several.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn compiled(dump: &Value, secrets: &Secrets) -> Result<Compiled> {
    let plugins = plugins(dump);
    let plugin = plugins.first().context("Envoy has no filter of ours: give --config")?;
    document::of_plugin(plugin, secrets).context("the configuration that Envoy has loaded")
}

/// A Struct has only floating-point numbers.
pub fn with_integers(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => members.values_mut().for_each(|member| *member = with_integers(member.take())),
        Value::Array(members) => members.iter_mut().for_each(|member| *member = with_integers(member.take())),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15) {
                return Value::from(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dump(documents: &[Value]) -> Value {
        let filter = |document: &Value| {
            json!({ "name": "portcullis", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": { "configuration": { "value": document } },
            }})
        };
        json!({ "http_filters": documents.iter().map(filter).collect::<Vec<_>>() })
    }

    #[test]
    fn filters_with_different_configurations_are_noticed() {
        let (one, other) = (json!({ "rules": [], "limits": 1.0 }), json!({ "rules": [1] }));
        let same = json!({ "rules": [], "limits": 1 }).to_string();
        assert!(!differ(&dump(&[])) && !differ(&dump(&[one.clone(), one.clone(), json!(same)])));
        assert!(differ(&dump(&[one, other])));
    }
}
