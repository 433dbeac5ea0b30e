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

    /// Puts `new` right after `old`: it is as new as that one, and not newer than what came after.
    pub fn move_behind(&self, new: &Arc<C>, old: &C) {
        let mut all = self.all();
        all.retain(|live| !std::ptr::eq(live.as_ptr(), Arc::as_ptr(new)));
        let place = all.iter().position(|live| std::ptr::eq(live.as_ptr(), old));
        let place = place.map_or(all.len(), |place| place.saturating_add(1));
        all.insert(place, Arc::downgrade(new));
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
