//! The filter's configuration inside a file for Envoy, Envoy Gateway or Istio.
use std::collections::BTreeMap;

use authn::config::Document;
use serde_json::Value;

use crate::surroundings::{self, IstioKind, Remark};

/// The configurations in a document, those of other filters too.
pub fn plugins(document: &Value) -> Vec<Plugin<'_>> {
    let mut plugins = Vec::new();
    search(document, &mut String::new(), None, document, &mut plugins);
    plugins
}

/// The configuration of one Wasm filter or dynamic module.
pub struct Plugin<'f> {
    pub place: String,
    pub configuration: Configuration,
    /// The variables that the file gives the filter. None: all that the proxy has.
    pub vm: Option<Vm>,
    around: Around<'f>,
}

/// The part of the file around a configuration.
enum Around<'f> {
    Envoy {
        /// The filter's own remarks.
        filter: Vec<Remark>,
        /// The connection manager, and its position.
        manager: Option<(&'f Value, String)>,
        bootstrap: &'f Value,
    },
    Istio {
        kind: IstioKind,
        spec: &'f Value,
    },
    EnvoyGateway(Vec<Remark>),
}

pub enum Configuration {
    /// JSON text, passed unchanged.
    Text(String),
    /// Passed as JSON.
    Tree(Value),
}

impl Configuration {
    /// From the Any that both filters of Envoy have. Envoy passes a Struct as JSON and a StringValue unchanged.
    fn of_any(any: &Value) -> Option<Self> {
        match &any["value"] {
            Value::String(text) => Some(Self::Text(text.clone())),
            tree @ Value::Object(_) => Some(Self::Tree(tree.clone())),
            _ => None,
        }
    }
}

#[derive(Default)]
pub struct Vm {
    pub values: BTreeMap<String, String>,
    pub from_host: Vec<String>,
}

impl<'f> Plugin<'f> {
    /// From `envoy.extensions.filters.http.wasm.v3.Wasm`.
    fn of_wasm(
        filter: &'f Value,
        place: &str,
        manager: Option<(&'f Value, String)>,
        bootstrap: &'f Value,
    ) -> Option<Self> {
        let config = &filter["config"];
        let variables = &config["vm_config"]["environment_variables"];
        let vm = Vm {
            values: variables["key_values"].as_object().into_iter().flatten().filter_map(text_pair).collect(),
            from_host: texts(&variables["host_env_keys"]),
        };
        let filter_place = place;
        let place = format!("{place}.config.configuration");
        let configuration = Configuration::of_any(&config["configuration"])?;
        let around = Around::Envoy { filter: surroundings::of_envoy(config, filter_place), manager, bootstrap };
        Some(Self { place, configuration, vm: Some(vm), around })
    }

    /// From `envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter`.
    fn of_module(
        filter: &'f Value,
        place: &str,
        manager: Option<(&'f Value, String)>,
        bootstrap: &'f Value,
    ) -> Option<Self> {
        let configuration = Configuration::of_any(&filter["filter_config"])?;
        let around = Around::Envoy { filter: surroundings::of_module(filter, place), manager, bootstrap };
        Some(Self { place: format!("{place}.filter_config"), configuration, vm: None, around })
    }

    /// From the `spec` of an EnvoyExtensionPolicy, which may have several filters of each kind.
    fn of_envoy_gateway(spec: &'f Value, place: &str) -> Vec<Self> {
        let dot = if place.is_empty() { "" } else { "." };
        let of = |kind: &'static str| {
            let filters = spec[kind].as_array().into_iter().flatten().enumerate();
            filters.map(move |(index, filter)| (filter, format!("{place}{dot}spec.{kind}[{index}]")))
        };
        let plugin = |filter: &'f Value, place: String, vm: Option<Vm>| {
            let configuration = Configuration::Tree(filter.get("config")?.clone());
            let around = Around::EnvoyGateway(surroundings::of_envoy_gateway(filter, &place));
            Some(Self { place: format!("{place}.config"), configuration, vm, around })
        };
        let wasm = of("wasm").filter_map(|(filter, place)| {
            let vm = Vm { from_host: texts(&filter["env"]["hostKeys"]), ..Vm::default() };
            plugin(filter, place, Some(vm))
        });
        let modules = of("dynamicModule").filter_map(|(filter, place)| plugin(filter, place, None));
        wasm.chain(modules).collect()
    }

    /// From the `spec` of a WasmPlugin or TrafficExtension.
    fn of_istio(kind: IstioKind, spec: &'f Value, place: &str) -> Option<Self> {
        let is_plugin_config =
            |(name, _): &(&String, &Value)| name.replace('_', "").eq_ignore_ascii_case("pluginConfig");
        let found = |object: &'f Value| object.as_object()?.iter().find(is_plugin_config);
        // A configuration in the wrong one of the two places is still checked, and the place is reported.
        let (module, path, (name, configuration)) = [kind.module(spec), (spec, "spec"), (&spec["wasm"], "spec.wasm")]
            .into_iter()
            .find_map(|(module, path)| Some((module, path, found(module)?)))?;
        let mut vm = Vm::default();
        for variable in module["vmConfig"]["env"].as_array().into_iter().flatten() {
            let Some(name) = variable["name"].as_str().map(str::to_owned) else { continue };
            match (variable["value"].as_str(), variable["valueFrom"].as_str()) {
                (_, Some("HOST")) => vm.from_host.push(name),
                (Some(value), _) => drop(vm.values.insert(name, value.to_owned())),
                (None, _) => {}
            }
        }
        let configuration = Configuration::Tree(configuration.clone());
        Some(Self {
            place: format!("{place}{path}.{name}"),
            configuration,
            vm: Some(vm),
            around: Around::Istio { kind, spec },
        })
    }

    /// A file may have other filters too.
    pub fn is_ours(&self) -> bool {
        ["issuers", "rules"].iter().any(|field| match &self.configuration {
            Configuration::Text(text) => text.contains(&format!("\"{field}\"")),
            Configuration::Tree(tree) => tree.get(field).is_some(),
        })
    }

    /// What is wrong around it. Without a document, because it has errors, less is known.
    pub fn remarks(&self, document: Option<&Document>) -> Vec<Remark> {
        match &self.around {
            Around::Istio { kind, spec } => surroundings::of_istio(*kind, spec),
            Around::EnvoyGateway(remarks) => remarks.clone(),
            Around::Envoy { filter, manager, bootstrap } => {
                let mut remarks = filter.clone();
                if let Some(document) = document {
                    if let Some((manager, place)) = manager {
                        remarks.extend(surroundings::of_manager(manager, place, document));
                    }
                    remarks.extend(surroundings::of_clusters(bootstrap, &self.place, document));
                }
                remarks
            }
        }
    }
}

/// `manager` is the connection manager that contains `value`, with its position; `root` is the whole document.
fn search<'f>(
    value: &'f Value,
    place: &mut String,
    manager: Option<(&'f Value, &str)>,
    root: &'f Value,
    plugins: &mut Vec<Plugin<'f>>,
) {
    const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
    const MODULE: &str = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
    const MANAGER: &str = "network.http_connection_manager.v3.HttpConnectionManager";
    let end = place.len();
    match value {
        Value::Object(members) => {
            let is_of = |name: &str| value["@type"].as_str().is_some_and(|own| own.ends_with(name));
            let owned = || manager.map(|(manager, place)| (manager, place.to_owned()));
            if is_of(WASM) {
                plugins.extend(Plugin::of_wasm(value, place, owned(), root));
            } else if is_of(MODULE) {
                plugins.extend(Plugin::of_module(value, place, owned(), root));
            } else if value["kind"] == "EnvoyExtensionPolicy" {
                plugins.extend(Plugin::of_envoy_gateway(&value["spec"], place));
            } else if let Some(kind) = IstioKind::of(&value["kind"]) {
                plugins.extend(Plugin::of_istio(kind, &value["spec"], place));
            } else {
                let own = place.clone();
                let manager = if is_of(MANAGER) { Some((value, own.as_str())) } else { manager };
                for (name, member) in members {
                    if end > 0 {
                        place.push('.');
                    }
                    place.push_str(name);
                    search(member, place, manager, root, plugins);
                    place.truncate(end);
                }
            }
        }
        Value::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                place.push_str(&format!("[{index}]"));
                search(member, place, manager, root, plugins);
                place.truncate(end);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn text_pair((name, value): (&String, &Value)) -> Option<(String, String)> {
    Some((name.clone(), value.as_str()?.to_owned()))
}
