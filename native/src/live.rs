//! The configurations that Envoy has, oldest first.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::configuration::Configuration;

static LIVE: Mutex<Vec<Weak<Configuration>>> = Mutex::new(Vec::new());

pub fn add(configuration: &Arc<Configuration>) {
    live().push(Arc::downgrade(configuration));
}

/// Envoy does not have it any more.
pub fn remove(configuration: &Configuration) {
    live().retain(|live| !std::ptr::eq(live.as_ptr(), configuration));
}

/// The one that Envoy got last. It is not one that was replaced.
pub fn newest() -> Option<Arc<Configuration>> {
    live().last().and_then(Weak::upgrade)
}

pub fn is_newest(configuration: &Configuration) -> bool {
    live().last().is_some_and(|newest| std::ptr::eq(newest.as_ptr(), configuration))
}

fn live() -> MutexGuard<'static, Vec<Weak<Configuration>>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
