//! All that the service needs of a store, by use.
use std::sync::Arc;

use crate::{AuditLog, IssuerRegistry, ReplayGuard, RevocationStore, SessionStore};

/// The parts need not be of one store.
#[derive(Debug, Clone)]
pub struct Stores {
    pub revocations: Arc<dyn RevocationStore>,
    pub sessions: Arc<dyn SessionStore>,
    pub audit: Arc<dyn AuditLog>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub issuers: Arc<dyn IssuerRegistry>,
}

impl<S> From<Arc<S>> for Stores
where
    S: RevocationStore + SessionStore + AuditLog + ReplayGuard + IssuerRegistry + 'static,
{
    fn from(store: Arc<S>) -> Self {
        Self {
            revocations: store.clone(),
            sessions: store.clone(),
            audit: store.clone(),
            replay_guard: store.clone(),
            issuers: store,
        }
    }
}
