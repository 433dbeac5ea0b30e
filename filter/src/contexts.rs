//! The contexts of a virtual machine: which configurations are loaded, and which one each request runs under.
use std::cell::RefCell;
use std::collections::HashMap;

use driver::{Action, HostError};

use crate::host::{self, LogLevel};
use crate::plugin::PluginContext;

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// A configuration update adds a plugin context to the same virtual machine, and the requests of the old one go on under
/// it.
#[derive(Default)]
struct Contexts {
    /// A few at most, and one as a rule. `None` until it is configured.
    plugins: Vec<(u32, Option<PluginContext>)>,
    /// The plugin context of the requests that `others` does not list: with one configuration, the usual case, nothing
    /// needs to be kept for a request.
    first: Option<u32>,
    others: HashMap<u32, u32>,
}

pub fn create(context: u32, parent: u32) {
    with((), |contexts| {
        if parent == 0 {
            contexts.set_plugin(context, None);
            if contexts.first.is_none() && contexts.plugins.len() == 1 && contexts.others.is_empty() {
                contexts.first = Some(context);
            }
        } else if contexts.first != Some(parent) {
            contexts.others.insert(context, parent);
        }
    });
}

/// Returns whether the configuration is accepted.
pub fn configure(context: u32) -> bool {
    let configured = host::plugin_configuration()
        .map_err(|HostError(status)| format!("the host gives no configuration: status {status}"))
        .and_then(|text| PluginContext::configure(context, text));
    match configured {
        Ok(plugin) => with(false, |contexts| {
            contexts.set_plugin(context, Some(plugin));
            true
        }),
        Err(why) => {
            host::log(LogLevel::Error, &format!("portcullis: the configuration is refused: {why}"));
            false
        }
    }
}

pub fn delete(context: u32) {
    with((), |contexts| {
        if let Some(index) = contexts.plugins.iter().position(|(id, _)| *id == context) {
            if let (_, Some(mut plugin)) = contexts.plugins.swap_remove(index) {
                plugin.end();
            }
            if contexts.first == Some(context) {
                contexts.first = None;
            }
            return;
        }
        if let Some(plugin) = contexts.plugin_of(context) {
            plugin.on_request_gone(context);
        }
        if !contexts.others.is_empty() {
            contexts.others.remove(&context);
        }
    });
}

/// `None` when there is no configuration to judge by: the request must be refused.
pub fn on_request_headers(context: u32, ends: bool) -> Option<Action> {
    with(None, |contexts| contexts.plugin_of(context).map(|plugin| plugin.on_request_headers(context, ends)))
}

pub fn is_held(context: u32) -> bool {
    // When in doubt the body stays where it is.
    with(true, |contexts| contexts.plugin_of(context).is_none_or(|plugin| plugin.is_held(context)))
}

pub fn with_plugin_of(context: u32, work: impl FnOnce(&mut PluginContext)) {
    with((), |contexts| contexts.plugin_of(context).map_or((), work));
}

pub fn with_plugin(root: u32, work: impl FnOnce(&mut PluginContext)) {
    with((), |contexts| contexts.plugin(root).map_or((), work));
}

impl Contexts {
    fn plugin_of(&mut self, context: u32) -> Option<&mut PluginContext> {
        let other = if self.others.is_empty() { None } else { self.others.get(&context).copied() };
        self.plugin(other.or(self.first)?)
    }

    fn plugin(&mut self, id: u32) -> Option<&mut PluginContext> {
        self.plugins.iter_mut().find(|(other, _)| *other == id)?.1.as_mut()
    }

    fn set_plugin(&mut self, id: u32, plugin: Option<PluginContext>) {
        match self.plugins.iter_mut().find(|(other, _)| *other == id) {
            Some((_, entry)) => *entry = plugin,
            None => self.plugins.push((id, plugin)),
        }
    }
}

/// Callbacks do not nest, so the borrow holds. Were the host ever to nest them, `otherwise` must be the closed answer.
fn with<T>(otherwise: T, work: impl FnOnce(&mut Contexts) -> T) -> T {
    CONTEXTS.with(|contexts| match contexts.try_borrow_mut() {
        Ok(mut contexts) => work(&mut contexts),
        Err(_) => {
            host::log(LogLevel::Error, "portcullis: the host called back within a callback");
            otherwise
        }
    })
}
