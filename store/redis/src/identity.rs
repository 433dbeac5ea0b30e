//! The identity of the store that an instance uses. It is learned once; another store is never taken for it.
use std::sync::{Arc, OnceLock};

use store::StoreId;

use crate::entry::Sentinel;

/// Clones share what was learned.
#[derive(Debug, Clone, Default)]
pub struct StoreIdentity {
    id: Arc<OnceLock<StoreId>>,
    /// It may still be filled from another store: it is written to, and checks are not answered from it.
    may_be_filling: bool,
}

impl StoreIdentity {
    /// For a store that is only written to.
    pub fn for_writing() -> Self {
        Self { may_be_filling: true, ..Self::default() }
    }

    pub fn id(&self) -> Option<StoreId> {
        self.id.get().copied()
    }

    /// Only the first call counts.
    pub fn set(&self, id: StoreId) {
        let _ = self.id.set(id);
    }

    /// The store that a sentinel proves, if it may be used in the way that we use it.
    pub fn usable(&self, sentinel: Sentinel) -> Option<StoreId> {
        match sentinel {
            Sentinel::Whole(id) => Some(id),
            Sentinel::Filling(id) if self.may_be_filling => Some(id),
            Sentinel::Missing | Sentinel::New(_) | Sentinel::Filling(_) | Sentinel::Strange => None,
        }
    }

    /// Whether it is the sentinel of our store.
    pub fn is_ours(&self, sentinel: Sentinel) -> bool {
        self.usable(sentinel).is_some_and(|id| self.id() == Some(id))
    }
}
