//! The rules that routes of Envoy select: the configurations of routes that Envoy has.
//!
//! Envoy gives a route's configuration without the filter's. Where a listener contains its routes, Envoy reads the routes
//! first and then the filter. So a configuration of the filter refuses the routes that were read just before it and select
//! a rule that neither it nor another configuration has: they can be another listener's. Routes that come later (RDS) are
//! looked at in the next tick.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use authn::policy::Policy;

/// One route's configuration.
pub struct RouteRule {
    name: Arc<str>,
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The names of all, by the address that Envoy has of each. What Envoy gives for a route is looked up here and never read: a
/// route's configuration may be another module's, and Envoy does not tell.
static NAMES: RwLock<BTreeMap<usize, Arc<str>>> = RwLock::new(BTreeMap::new());
/// Those that no configuration was compared with.
static NEW: Mutex<Vec<Weak<RouteRule>>> = Mutex::new(Vec::new());

impl RouteRule {
    /// # Errors
    /// What is wrong with it, as text for the log.
    pub fn new(document: &[u8]) -> Result<Arc<Self>, String> {
        let rule = Arc::new(Self { name: driver::route_rule(document.to_vec())? });
        let address = Arc::as_ptr(&rule).addr();
        NAMES.write().unwrap_or_else(PoisonError::into_inner).insert(address, Arc::clone(&rule.name));
        LIVE.fetch_add(1, Ordering::Relaxed);
        new_ones().push(Arc::downgrade(&rule));
        Ok(rule)
    }
}

impl Drop for RouteRule {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        NAMES.write().unwrap_or_else(PoisonError::into_inner).remove(&std::ptr::from_ref(self).addr());
    }
}

/// Does any route select a rule? Most proxies have none, and nothing is asked of Envoy then.
pub fn exist() -> bool {
    LIVE.load(Ordering::Relaxed) != 0
}

/// The rule that the route with this address selects. A name that no rule has if the address is not ours: such a request is
/// refused.
pub fn name_of(address: usize) -> Arc<str> {
    let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
    names.get(&address).map_or_else(|| Arc::from(""), Arc::clone)
}

/// Compares the new routes with a document that is new too. `others`: does another configuration have this rule?
///
/// # Errors
/// One selects a rule that none has.
pub fn check(policy: &Policy, others: impl Fn(&str) -> bool) -> Result<(), String> {
    match unknown(|rule| policy.rule_for_routes(rule).is_some() || others(rule)).first() {
        None => Ok(()),
        Some(rule) => {
            Err(format!("a route of Envoy selects the rule `{rule}`, and no rule `for_routes` has this name"))
        }
    }
}

/// The names that new routes select and `is_known` does not know. They are not new any more.
pub fn unknown(is_known: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
    let routes = std::mem::take(&mut *new_ones());
    let names = routes.iter().filter_map(Weak::upgrade).map(|route| Arc::clone(&route.name));
    names.filter(|name| !is_known(name)).collect()
}

fn new_ones() -> MutexGuard<'static, Vec<Weak<RouteRule>>> {
    NEW.lock().unwrap_or_else(PoisonError::into_inner)
}
