//! Whether the source can be read, and which store is to be filled.
use std::collections::HashSet;
use std::time::{Duration, Instant};

use store::StoreId;

use super::{MigrateError, TO};
use crate::bootstrap;
use crate::entry::Sentinel;
use crate::identity::StoreIdentity;
use crate::topology::MonitorHandle;

/// Waits until the store can be used.
pub async fn wait_until_usable(
    side: &'static str,
    topology: &MonitorHandle,
    identity: &StoreIdentity,
    limit: Duration,
) -> Result<StoreId, MigrateError> {
    let deadline = Instant::now() + limit;
    loop {
        let routes = topology.routes();
        if let (Ok(()), Some(id)) = (routes.health(), identity.id()) {
            return Ok(id);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if topology.newer(routes.number, left).await.is_none() {
            return Err(MigrateError::Unusable(side, topology.routes().state.clone()));
        }
    }
}

/// The store to fill, and whether it was declared complete.
pub async fn target(topology: &MonitorHandle, limit: Duration) -> Result<(StoreId, bool), MigrateError> {
    let read = bootstrap::read_all(&topology.routes(), limit).await;
    let read = read.map_err(|error| MigrateError::Unusable(TO, error.to_string()))?;
    let mut ids = HashSet::new();
    let mut is_complete = true;
    for sentinel in read.values() {
        match sentinel {
            Sentinel::Filling(id) => {
                is_complete = false;
                ids.insert(id.to_string());
            }
            Sentinel::Whole(id) => {
                ids.insert(id.to_string());
            }
            Sentinel::Missing => return Err(MigrateError::NotPrepared),
            Sentinel::New(id) => return Err(MigrateError::Foreign(format!("the store {id}, not completely created"))),
            Sentinel::Strange => return Err(MigrateError::Foreign("strange sentinels".to_owned())),
        }
    }
    let mut ids = ids.into_iter();
    match (ids.next().and_then(|id| id.parse().ok()), ids.next()) {
        (Some(id), None) => Ok((id, is_complete)),
        _ => Err(MigrateError::Foreign("parts of two stores".to_owned())),
    }
}
