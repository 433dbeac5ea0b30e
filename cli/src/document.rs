//! Configurations of the filter where people keep them: a file of JSON or YAML, or inside a file for Envoy or Istio.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use authn::config::{Document, Invalid};
use authn::policy::Policy;
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::surroundings::{self, IstioKind, Remark};
use crate::{all_errors, suggest};

/// Where the secrets come from that a configuration names.
#[derive(Args)]
pub struct Secrets {
    /// Take a placeholder for each secret that the environment does not have. Such a key verifies no real token.
    #[arg(long)]
    assume_secrets: bool,
}

impl Secrets {
    /// A placeholder for each: for what no secret plays a part in.
    pub fn assumed() -> Self {
        Self { assume_secrets: true }
    }
}

/// One configuration, as it was found.
pub struct Found {
    /// Where in the file, where it is not all of it.
    pub place: Option<String>,
    pub compiled: Result<Compiled, Invalid>,
    /// What else is wrong, where `compiled` says the first thing.
    pub more: Vec<Invalid>,
    /// What stands round it in the file and should not.
    pub remarks: Vec<Remark>,
    /// Variables that neither the environment nor an assumption gave.
    pub missing: Vec<String>,
}

impl Found {
    pub fn is_ok(&self) -> bool {
        self.compiled.is_ok() && self.remarks.iter().all(|remark| !remark.is_error)
    }
}

/// A configuration that the filter would take.
pub struct Compiled {
    pub document: Document,
    pub policy: Policy,
    /// Variables for which a placeholder was taken.
    pub assumed: Vec<String>,
}

/// The configurations in a file, or in the standard input for `-`; at least one.
///
/// # Errors
/// The file cannot be read, or is one for Envoy or Istio without a configuration in it.
pub fn read(file: &Path, secrets: &Secrets) -> Result<Vec<Found>> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    let is_json = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("yaml" | "yml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    let trees = if is_json { json_trees(&text) } else { yaml_trees(&text) };
    if let Ok(trees) = &trees {
        let mut plugins = Vec::new();
        for tree in trees {
            search(tree, &mut String::new(), None, tree, &mut plugins);
        }
        if !plugins.is_empty() {
            let ours: Vec<Found> =
                plugins.into_iter().filter(Plugin::is_ours).map(|plugin| plugin.compile(secrets)).collect();
            if ours.is_empty() {
                bail!("no Wasm filter in {} has a configuration with `issuers` or `rules`", file.display());
            }
            return Ok(ours);
        }
    }
    let environment = Environment { secrets, vm: None, assumed: RefCell::default(), missing: RefCell::default() };
    let compiled = match trees.as_deref() {
        _ if is_json => from_json(&text, &environment),
        Ok([tree]) => from_yaml(&text, tree, &environment),
        Ok(trees) => Err(Invalid::new("", format!("the file holds {} documents, and one is needed", trees.len()))),
        Err(error) => Err(Invalid::new("", error.to_string())),
    };
    let tree = match trees.as_deref() {
        Ok([tree]) => Some(tree),
        _ => None,
    };
    Ok(vec![environment.found(None, compiled, tree)])
}

/// The configuration that the filter would have, or what is wrong with it.
///
/// # Errors
/// Also when there are several.
pub fn read_one(file: &Path, secrets: &Secrets) -> Result<Compiled> {
    let mut found = read(file, secrets)?;
    let (Some(one), true) = (found.pop(), found.is_empty()) else {
        bail!("{} holds several configurations of the filter", file.display());
    };
    one.compiled.with_context(|| match one.missing.is_empty() {
        true => file.display().to_string(),
        false => format!("{} (set the variable here, or use --assume-secrets)", file.display()),
    })
}

fn json_trees(text: &str) -> Result<Vec<Value>> {
    Ok(vec![serde_json::from_str(text)?])
}

/// By way of YAML's own tree, which refuses a key that is there twice.
fn yaml_trees(text: &str) -> Result<Vec<Value>> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| Ok(serde_json::to_value(serde_norway::Value::deserialize(document)?)?))
        .collect()
}

fn from_json(text: &str, environment: &Environment<'_>) -> Result<(Document, Policy), Invalid> {
    let policy = Policy::from_json(text.as_bytes(), &|name| environment.look_up(name))?;
    let document = serde_json::from_str(text).map_err(|error| Invalid::new("", error.to_string()))?;
    Ok((document, policy))
}

/// Judged as the JSON that it stands for, since that is what the filter will have: there `kid: 1` is a number. Read as
/// YAML first only because those errors know the line.
fn from_yaml(text: &str, tree: &Value, environment: &Environment<'_>) -> Result<(Document, Policy), Invalid> {
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_norway::Deserializer::from_str(text);
    let reader = serde_path_to_error::Deserializer::new(reader, &mut track);
    // Otherwise YAML's reader wants `!exact /a` for `exact: /a`.
    let read: Result<Document, _> = serde_norway::with::singleton_map_recursive::deserialize(reader);
    if let Err(error) = read {
        let field = track.path().to_string().trim_matches('.').to_owned();
        let message = error.to_string();
        // YAML's errors begin with a path of their own, which ends one step earlier.
        let message = match message.split_once(": ") {
            Some((outer, rest)) if field.starts_with(outer) => rest.to_owned(),
            _ => message,
        };
        return Err(Invalid { field, message });
    }
    from_tree(tree, environment)
}

fn from_tree(tree: &Value, environment: &Environment<'_>) -> Result<(Document, Policy), Invalid> {
    // Line and column would be those of a text that nobody wrote.
    from_json(&tree.to_string(), environment).map_err(|Invalid { field, message }| {
        match message.rsplit_once(" at line ") {
            Some((message, _)) => Invalid::new(field, message),
            None => Invalid { field, message },
        }
    })
}

/// What `secret_env` finds.
struct Environment<'s> {
    secrets: &'s Secrets,
    /// What the file itself gives the virtual machine. None: the file says nothing of it.
    vm: Option<&'s Vm>,
    assumed: RefCell<Vec<String>>,
    missing: RefCell<Vec<String>>,
}

impl Environment<'_> {
    fn look_up(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(vm) = self.vm {
            if let Some(value) = vm.values.get(name) {
                return Some(value.clone().into_bytes());
            }
            if !vm.from_host.iter().any(|listed| listed == name) {
                return None;
            }
        }
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            return Some(value.into_encoded_bytes());
        }
        if self.secrets.assume_secrets {
            self.assumed.borrow_mut().push(name.to_owned());
            return Some(placeholder(name));
        }
        self.missing.borrow_mut().push(name.to_owned());
        None
    }

    /// `tree` is what was read, to find what else is wrong with it.
    fn found(
        self,
        place: Option<String>,
        compiled: Result<(Document, Policy), Invalid>,
        tree: Option<&Value>,
    ) -> Found {
        let more = match (&compiled, tree) {
            (Err(first), Some(tree)) => {
                let all = all_errors::after(first.clone(), tree, |tree| from_tree(tree, &self).err());
                all.into_iter().skip(1).map(suggest::plain).collect()
            }
            _ => Vec::new(),
        };
        let compiled = compiled.map_err(suggest::plain);
        let mut missing = self.missing.into_inner();
        missing.sort();
        missing.dedup();
        let mut assumed = self.assumed.into_inner();
        assumed.sort();
        assumed.dedup();
        let compiled = compiled.map(|(document, policy)| Compiled { document, policy, assumed });
        Found { place, compiled, more, remarks: Vec::new(), missing }
    }
}

/// Long enough for every algorithm, raw or as the base64url that it also is, and another one for each name.
fn placeholder(name: &str) -> Vec<u8> {
    let bytes: Vec<u8> = name.bytes().chain([0]).cycle().take(66).collect();
    jose::base64url::encode(bytes).into_bytes()
}

/// The configuration of one Wasm filter, in a file for Envoy or Istio.
struct Plugin<'f> {
    place: String,
    configuration: Configuration,
    vm: Vm,
    around: Around<'f>,
}

/// What the file has round a configuration.
enum Around<'f> {
    Envoy {
        config: &'f Value,
        place: String,
        /// The connection manager, and its place.
        manager: Option<(&'f Value, String)>,
        bootstrap: &'f Value,
    },
    Istio {
        kind: IstioKind,
        spec: &'f Value,
    },
}

enum Configuration {
    /// JSON, handed over as it is.
    Text(String),
    /// Handed over as JSON.
    Tree(Value),
}

#[derive(Default)]
struct Vm {
    values: BTreeMap<String, String>,
    from_host: Vec<String>,
}

impl<'f> Plugin<'f> {
    /// From `envoy.extensions.filters.http.wasm.v3.Wasm`. Envoy hands a Struct over as JSON and a StringValue as it is.
    fn of_envoy(config: &'f Value, place: &str, around: Around<'f>) -> Option<Self> {
        let variables = &config["vm_config"]["environment_variables"];
        let vm = Vm {
            values: variables["key_values"].as_object().into_iter().flatten().filter_map(text_pair).collect(),
            from_host: texts(&variables["host_env_keys"]),
        };
        let place = format!("{place}.config.configuration");
        let configuration = match &config["configuration"]["value"] {
            Value::String(text) => Configuration::Text(text.clone()),
            tree @ Value::Object(_) => Configuration::Tree(tree.clone()),
            _ => return None,
        };
        Some(Self { place, configuration, vm, around })
    }

    /// From the `spec` of a WasmPlugin or TrafficExtension.
    fn of_istio(kind: IstioKind, spec: &'f Value, place: &str) -> Option<Self> {
        let is_plugin_config =
            |(name, _): &(&String, &Value)| name.replace('_', "").eq_ignore_ascii_case("pluginConfig");
        let found = |object: &'f Value| object.as_object()?.iter().find(is_plugin_config);
        // One that stands in the wrong of the two places is judged all the same, and its place is remarked upon.
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
        Some(Self { place: format!("{place}{path}.{name}"), configuration, vm, around: Around::Istio { kind, spec } })
    }

    /// A file may have other Wasm filters too.
    fn is_ours(&self) -> bool {
        ["issuers", "rules"].iter().any(|field| match &self.configuration {
            Configuration::Text(text) => text.contains(&format!("\"{field}\"")),
            Configuration::Tree(tree) => tree.get(field).is_some(),
        })
    }

    fn compile(self, secrets: &Secrets) -> Found {
        let environment =
            Environment { secrets, vm: Some(&self.vm), assumed: RefCell::default(), missing: RefCell::default() };
        let (compiled, tree) = match &self.configuration {
            Configuration::Text(text) => (from_json(text, &environment), serde_json::from_str(text).ok()),
            Configuration::Tree(tree) => (from_tree(tree, &environment), Some(tree.clone())),
        };
        let mut found = environment.found(Some(self.place.clone()), compiled, tree.as_ref());
        found.remarks = self.remarks(found.compiled.as_ref().ok().map(|compiled| &compiled.document));
        found
    }

    fn remarks(&self, document: Option<&Document>) -> Vec<Remark> {
        match &self.around {
            Around::Istio { kind, spec } => surroundings::of_istio(*kind, spec),
            Around::Envoy { config, place, manager, bootstrap } => {
                let mut remarks = surroundings::of_envoy(config, place);
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

/// `manager` is the connection manager that `value` stands in, with its place; `root` is the whole document.
fn search<'f>(
    value: &'f Value,
    place: &mut String,
    manager: Option<(&'f Value, &str)>,
    root: &'f Value,
    plugins: &mut Vec<Plugin<'f>>,
) {
    const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
    const MANAGER: &str = "network.http_connection_manager.v3.HttpConnectionManager";
    let end = place.len();
    match value {
        Value::Object(members) => {
            let is_of = |name: &str| value["@type"].as_str().is_some_and(|own| own.ends_with(name));
            if is_of(WASM) {
                let config = &value["config"];
                let manager = manager.map(|(manager, place)| (manager, place.to_owned()));
                let around = Around::Envoy { config, place: place.clone(), manager, bootstrap: root };
                plugins.extend(Plugin::of_envoy(config, place, around));
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
