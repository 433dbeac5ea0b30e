//! Reading the filter's configuration from a file of JSON or YAML, or from a file for Envoy, Envoy Gateway or Istio
//! that contains it.
use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use authn::config::{Document, Invalid};
use authn::policy::Policy;
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::embedded::{self, Configuration, Plugin, Vm};
use crate::standard_input;
use crate::surroundings::Remark;
use crate::{all_errors, suggest};

/// The source of the secrets that a configuration names.
#[derive(Args)]
pub struct Secrets {
    /// Use a placeholder for each secret that the environment does not have. No real token verifies with a placeholder.
    #[arg(long)]
    assume_secrets: bool,
}

impl Secrets {
    /// A placeholder for each secret: for uses that need none.
    pub fn assumed() -> Self {
        Self { assume_secrets: true }
    }
}

/// One configuration, as found in the file.
pub struct Found {
    /// Its position in the file, unless it is the whole file.
    pub place: Option<String>,
    pub compiled: Result<Compiled, Invalid>,
    /// The other errors, if `compiled` has the first one.
    pub more: Vec<Invalid>,
    /// Problems of the file around it.
    pub remarks: Vec<Remark>,
    /// Variables without a value or placeholder.
    pub missing: Vec<String>,
}

impl Found {
    pub fn is_ok(&self) -> bool {
        self.compiled.is_ok() && self.remarks.iter().all(|remark| !remark.is_error)
    }
}

/// A configuration that the filter would accept.
pub struct Compiled {
    pub document: Document,
    pub policy: Policy,
    /// Variables with a placeholder.
    pub assumed: Vec<String>,
}

/// The configurations in a file, or in standard input for `-`; at least one.
///
/// # Errors
/// The file cannot be read, or is one for a proxy without a configuration in it.
pub fn read(file: &Path, secrets: &Secrets) -> Result<Vec<Found>> {
    let text = standard_input::read_file(file)?;
    let is_json = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("yaml" | "yml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    let trees = if is_json { json_trees(&text) } else { yaml_trees(&text) };
    if let Ok(trees) = &trees {
        let plugins: Vec<_> = trees.iter().flat_map(embedded::plugins).collect();
        if !plugins.is_empty() {
            let ours: Vec<Found> =
                plugins.iter().filter(|plugin| plugin.is_ours()).map(|plugin| compile(plugin, secrets)).collect();
            if ours.is_empty() {
                bail!("{} has no filter with `issuers` or `rules` in its configuration", file.display());
            }
            return Ok(ours);
        }
    }
    let environment = Environment { secrets, vm: None, assumed: RefCell::default(), missing: RefCell::default() };
    let compiled = match trees.as_deref() {
        // Another error would show it, and a file that was named by mistake may hold a secret.
        Ok([tree]) if !tree.is_object() => Err(Invalid::new("", "must be an object, in JSON or YAML")),
        _ if is_json => from_json(&text, &environment),
        Ok([tree]) => from_yaml(&text, tree, &environment),
        Ok(trees) => Err(Invalid::new("", format!("the file has {} documents, but must have one", trees.len()))),
        Err(error) => Err(Invalid::new("", error.to_string())),
    };
    let tree = match trees.as_deref() {
        Ok([tree]) => Some(tree),
        _ => None,
    };
    Ok(vec![environment.found(None, compiled, tree)])
}

/// The configuration of a filter that was found elsewhere.
///
/// # Errors
/// What is wrong with it.
pub fn of_plugin(plugin: &Plugin<'_>, secrets: &Secrets) -> Result<Compiled> {
    let Found { compiled, missing, .. } = compile(plugin, secrets);
    compiled.with_context(|| match missing.is_empty() {
        true => plugin.place.clone(),
        false => format!("{} (set {} in this shell too, or use --assume-secrets)", plugin.place, missing.join(", ")),
    })
}

/// The one configuration in a file, as JSON.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn tree(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // JSON is YAML too, except for tabs.
    let trees = if text.trim_start().starts_with('{') { json_trees(&text)? } else { yaml_trees(&text)? };
    let plugins: Vec<_> = trees.iter().flat_map(embedded::plugins).filter(Plugin::is_ours).collect();
    match (plugins.first(), trees.first().cloned()) {
        (Some(plugin), _) => Ok(match &plugin.configuration {
            Configuration::Text(text) => serde_json::from_str(text)?,
            Configuration::Tree(tree) => tree.clone(),
        }),
        (None, Some(tree)) => Ok(tree),
        (None, None) => bail!("{} is empty", file.display()),
    }
}

/// The configuration that the filter would use, or its errors.
///
/// # Errors
/// Also if there are several.
pub fn read_one(file: &Path, secrets: &Secrets) -> Result<Compiled> {
    let mut found = read(file, secrets)?;
    let (Some(one), true) = (found.pop(), found.is_empty()) else {
        bail!("{} holds several configurations of the filter", file.display());
    };
    one.compiled.with_context(|| match one.missing.is_empty() {
        true => file.display().to_string(),
        false => {
            format!("{} (set {} in this shell too, or use --assume-secrets)", file.display(), one.missing.join(", "))
        }
    })
}

fn json_trees(text: &str) -> Result<Vec<Value>> {
    Ok(vec![serde_json::from_str(text)?])
}

/// Through YAML's own tree, which refuses a duplicate key.
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

/// Checked as JSON, since the filter gets JSON: there `kid: 1` is a number. It is read as YAML first only because those
/// errors have a line number.
fn from_yaml(text: &str, tree: &Value, environment: &Environment<'_>) -> Result<(Document, Policy), Invalid> {
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_norway::Deserializer::from_str(text);
    let reader = serde_path_to_error::Deserializer::new(reader, &mut track);
    // Otherwise the YAML reader requires `!exact /a` for `exact: /a`.
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
    // Line and column would refer to a text that the user did not write.
    from_json(&tree.to_string(), environment).map_err(|Invalid { field, message }| {
        match message.rsplit_once(" at line ") {
            Some((message, _)) => Invalid::new(field, message),
            None => Invalid { field, message },
        }
    })
}

fn compile(plugin: &Plugin<'_>, secrets: &Secrets) -> Found {
    let environment =
        Environment { secrets, vm: plugin.vm.as_ref(), assumed: RefCell::default(), missing: RefCell::default() };
    let (compiled, tree) = match &plugin.configuration {
        Configuration::Text(text) => (from_json(text, &environment), serde_json::from_str(text).ok()),
        Configuration::Tree(tree) => (from_tree(tree, &environment), Some(tree.clone())),
    };
    let mut found = environment.found(Some(plugin.place.clone()), compiled, tree.as_ref());
    found.remarks = plugin.remarks(found.compiled.as_ref().ok().map(|compiled| &compiled.document));
    found
}

/// The values of `secret_env`.
struct Environment<'s> {
    secrets: &'s Secrets,
    /// The variables that the file gives the VM. None: the file does not say.
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

    /// `tree` is the input, for finding further errors.
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

/// Long enough for every algorithm, raw or as base64url, and different for each name.
fn placeholder(name: &str) -> Vec<u8> {
    let bytes: Vec<u8> = name.bytes().chain([0]).cycle().take(66).collect();
    jose::base64url::encode(bytes).into_bytes()
}
