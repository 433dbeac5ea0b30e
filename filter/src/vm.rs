//! The VM: the loaded configurations, and which one each request uses.
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use crate::host::{self, LogLevel};
use crate::root::{Next, Root};

thread_local! {
    static VM: RefCell<Vm> = RefCell::default();
    /// Requests whose token came in a cookie. Separate from [`VM`], since it is written while a root is in use.
    static COOKIE_SESSIONS: RefCell<HashSet<u32>> = RefCell::default();
}

/// A configuration update adds a root to the same VM, and the requests of the old one continue with it.
#[derive(Default)]
struct Vm {
    /// At most a few, normally one.
    roots: Vec<(u32, Option<Root>)>,
    /// The root of the requests that `others` does not list: with one configuration, the usual case, nothing needs to
    /// be stored per request.
    first: Option<u32>,
    others: HashMap<u32, u32>,
}

pub fn create_context(context: u32, parent: u32) {
    with_vm((), |vm| {
        if parent == 0 {
            vm.set_root(context, None);
            if vm.first.is_none() && vm.roots.len() == 1 && vm.others.is_empty() {
                vm.first = Some(context);
            }
        } else if vm.first != Some(parent) {
            vm.others.insert(context, parent);
        }
    });
}

/// Returns whether the configuration is accepted.
pub fn configure(context: u32) -> bool {
    let configured = host::plugin_configuration()
        .map_err(|error| format!("the host gives no configuration: status {}", error.0))
        .and_then(|text| Root::configure(context, text));
    match configured {
        Ok(root) => with_vm(false, |vm| {
            vm.set_root(context, Some(root));
            true
        }),
        Err(why) => {
            host::log(LogLevel::Error, &format!("portcullis: the configuration is refused: {why}"));
            false
        }
    }
}

pub fn delete_context(context: u32) {
    forget_cookie_session(context);
    with_vm((), |vm| {
        if let Some(place) = vm.roots.iter().position(|(id, _)| *id == context) {
            if let (_, Some(mut root)) = vm.roots.swap_remove(place) {
                root.end_metrics();
            }
            if vm.first == Some(context) {
                vm.first = None;
            }
            return;
        }
        if let Some(root) = vm.root_of(context) {
            root.on_stream_gone(context);
        }
        if !vm.others.is_empty() {
            vm.others.remove(&context);
        }
    });
}

/// `None` if there is no configuration: the request must be refused.
pub fn on_request_headers(context: u32, ends: bool) -> Option<Next> {
    with_vm(None, |vm| vm.root_of(context).map(|root| root.on_request_headers(context, ends)))
}

pub fn is_held(context: u32) -> bool {
    // If in doubt the body stays where it is.
    with_vm(true, |vm| vm.root_of(context).is_none_or(|root| root.is_held(context)))
}

pub fn clear_trailers(context: u32) {
    with_vm((), |vm| {
        if let Some(root) = vm.root_of(context) {
            root.clear_trailers();
        }
    });
}

pub fn on_call_answered(root: u32, call: u32) {
    with_vm((), |vm| {
        if let Some(root) = vm.root(root) {
            root.on_call_answered(call);
        }
    });
}

pub fn on_tick(root: u32) {
    with_vm((), |vm| {
        if let Some(root) = vm.root(root) {
            root.on_tick();
        }
    });
}

pub fn mark_cookie_session(context: u32) {
    COOKIE_SESSIONS.with(|sessions| {
        if let Ok(mut sessions) = sessions.try_borrow_mut() {
            sessions.insert(context);
        }
    });
}

/// Returns whether it was one.
pub fn forget_cookie_session(context: u32) -> bool {
    COOKIE_SESSIONS.with(|sessions| {
        sessions.try_borrow_mut().is_ok_and(|mut sessions| !sessions.is_empty() && sessions.remove(&context))
    })
}

impl Vm {
    fn root_of(&mut self, context: u32) -> Option<&mut Root> {
        let other = if self.others.is_empty() { None } else { self.others.get(&context).copied() };
        self.root(other.or(self.first)?)
    }

    fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(other, _)| *other == id)?.1.as_mut()
    }

    fn set_root(&mut self, id: u32, root: Option<Root>) {
        match self.roots.iter_mut().find(|(other, _)| *other == id) {
            Some((_, place)) => *place = root,
            None => self.roots.push((id, root)),
        }
    }
}

/// Callbacks do not nest, so the borrow succeeds. If the host ever nested them, `otherwise` must fail closed.
fn with_vm<T>(otherwise: T, work: impl FnOnce(&mut Vm) -> T) -> T {
    VM.with(|vm| match vm.try_borrow_mut() {
        Ok(mut vm) => work(&mut vm),
        Err(_) => {
            host::log(LogLevel::Error, "portcullis: the host called back within a callback");
            otherwise
        }
    })
}
