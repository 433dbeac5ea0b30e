//! Everything that the service needs from a store, by use.
use std::sync::Arc;

use crate::{AuditLog, IssuerRegistry, ReplayGuard, RevocationLog, RevocationStore, SessionStore, SightingStore};

/// The parts may come from different stores.
#[derive(Debug, Clone)]
pub struct Stores {
    pub revocations: Arc<dyn RevocationStore>,
    pub log: Arc<dyn RevocationLog>,
    pub sessions: Arc<dyn SessionStore>,
    pub audit: Arc<dyn AuditLog>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub issuers: Arc<dyn IssuerRegistry>,
    pub sightings: Arc<dyn SightingStore>,
}

impl<S> From<Arc<S>> for Stores
where
    S: RevocationStore
        + RevocationLog
        + SessionStore
        + AuditLog
        + ReplayGuard
        + IssuerRegistry
        + SightingStore
        + 'static,
{
    fn from(store: Arc<S>) -> Self {
        Self {
            revocations: store.clone(),
            log: store.clone(),
            sessions: store.clone(),
            audit: store.clone(),
            replay_guard: store.clone(),
            issuers: store.clone(),
            sightings: store,
        }
    }
}
