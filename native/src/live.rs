//! The configurations that Envoy has, oldest first. `C` is their type.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub struct Live<C>(Mutex<Vec<Weak<C>>>);

impl<C> Live<C> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub fn add(&self, configuration: &Arc<C>) {
        self.all().push(Arc::downgrade(configuration));
    }

    /// Envoy does not have it any more.
    pub fn remove(&self, configuration: &C) {
        self.all().retain(|live| !std::ptr::eq(live.as_ptr(), configuration));
    }

    /// The one that Envoy got last. It is not one that was replaced.
    pub fn newest(&self) -> Option<Arc<C>> {
        self.all().last().and_then(Weak::upgrade)
    }

    pub fn any(&self, is: impl Fn(&C) -> bool) -> bool {
        self.all().iter().filter_map(Weak::upgrade).any(|live| is(&live))
    }

    pub fn is_newest(&self, configuration: &C) -> bool {
        self.all().last().is_some_and(|newest| std::ptr::eq(newest.as_ptr(), configuration))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
