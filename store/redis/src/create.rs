//! Creating a store, and preparing one that is to be filled from another.
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{StoreError, StoreId, Unobserved};

use crate::bootstrap::{Begun, CreateError, claim, complete, filling, nowhere, read_all, write};
use crate::entry::{Bucket, Sentinel};
use crate::health::Allow;
use crate::identity::StoreIdentity;
use crate::options::RedisOptions;
use crate::routes::Routes;
use crate::topology::{self, MonitorConfig, MonitorHandle, Role};

/// Creates a store and returns its id, or completes a creation that was interrupted. An id is never used again: services that
/// know the lost store must not take the new, empty one for it. So an existing sentinel is never replaced.
///
/// `after_loss` names a store that lost sentinels, and confirms that all revocations that must hold were written again.
///
/// # Errors
/// See [`CreateError`].
pub async fn create_store(
    redis: &RedisOptions,
    limit: Duration,
    allow: Allow,
    after_loss: Option<StoreId>,
) -> Result<StoreId, CreateError> {
    let access = redis.access()?;
    let config = MonitorConfig {
        access,
        allow,
        limit,
        identity: StoreIdentity::default(),
        create: false,
        role: Role::Primary,
        observer: Arc::new(Unobserved),
    };
    let topology = topology::start(config).await;
    let routes = reached(&topology, limit).await?;
    complete(&routes, after_loss, limit).await
}

/// Marks an empty Redis as a store that is to be filled from another, or completes a preparation that was interrupted. Until
/// `finish`, services write to it and do not answer from it.
///
/// # Errors
/// See [`CreateError`].
pub async fn prepare_store(redis: &RedisOptions, limit: Duration, allow: Allow) -> Result<StoreId, CreateError> {
    let access = redis.access()?;
    let config = MonitorConfig {
        access,
        allow,
        limit,
        identity: StoreIdentity::for_writing(),
        create: false,
        role: Role::Mirror,
        observer: Arc::new(Unobserved),
    };
    let topology = topology::start(config).await;
    let routes = reached(&topology, limit).await?;
    for (server, _) in routes.parts().map_err(nowhere)? {
        server.health.clone()?;
    }
    let id = match filling(&read_all(&routes, limit).await?)? {
        Begun::By(id) => id,
        Begun::NotYet => {
            let there = |sentinel: &Sentinel| match sentinel {
                Sentinel::Filling(id) => Some(*id),
                _ => None,
            };
            claim(&routes, Sentinel::filling, there, limit).await?
        }
    };
    let all: Vec<_> = Bucket::all().collect();
    write(&routes, &all, &Sentinel::filling(id), "NX", limit).await?;
    match read_all(&routes, limit).await?.values().all(|sentinel| *sentinel == Sentinel::Filling(id)) {
        true => Ok(id),
        false => Err(nowhere(StoreError::StoreFailed)),
    }
}

/// Waits until every bucket has a server that is connected.
///
/// # Errors
/// [`CreateError::Redis`].
pub async fn reached(topology: &MonitorHandle, limit: Duration) -> Result<Arc<Routes>, CreateError> {
    let deadline = Instant::now() + limit;
    let mut routes = topology.routes();
    while routes.parts().is_err() {
        let left = deadline.saturating_duration_since(Instant::now());
        match topology.newer(routes.number, left).await {
            Some(newer) => routes = newer,
            None => return Err(CreateError::Redis(routes.state.clone())),
        }
    }
    Ok(routes)
}
