//! Which server has which bucket, and how long that is trusted. One task keeps the connections. Requests use the last
//! published routes and never wait for a connection, so an unreachable Redis does not slow them.
pub mod cluster;
mod monitor;
mod probe;
mod sentinels;
mod status;

use std::sync::Arc;
use std::time::Duration;

use store::{Observer, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::health::Allow;
use crate::identity::StoreIdentity;
use crate::options::Access;
use crate::routes::Routes;
use monitor::TopologyMonitor;

pub struct MonitorConfig {
    pub access: Access,
    pub allow: Allow,
    /// The time limit of one step: connecting, asking, reading sentinels.
    pub limit: Duration,
    pub identity: StoreIdentity,
    /// Create the store if there is none.
    pub create: bool,
    pub role: Role,
    pub observer: Arc<dyn Observer>,
}

/// The use of the store, for log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Checks are answered from it.
    Primary,
    /// Writes go to it too. No check is answered from it.
    Mirror,
}

/// The routes that the monitor publishes. The monitor ends when this is dropped.
#[derive(Debug)]
pub struct MonitorHandle {
    routes: watch::Receiver<Arc<Routes>>,
    wake: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// Returns after the first round, even if it found no server.
pub async fn start(config: MonitorConfig) -> MonitorHandle {
    let (publish, mut routes) = watch::channel(Arc::new(Routes::none(StoreError::StoreRefused)));
    routes.mark_unchanged();
    let wake = Arc::new(Notify::new());
    let task = tokio::spawn(TopologyMonitor::new(config, publish, Arc::clone(&wake)).run());
    // An error would mean that the task ended, and it runs until it is aborted.
    let _ = routes.changed().await;
    MonitorHandle { routes, wake, task }
}

impl MonitorHandle {
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    /// Asks for a round soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for routes that were published after `number`, for at most `limit`.
    pub async fn newer(&self, number: u64, limit: Duration) -> Option<Arc<Routes>> {
        self.wake();
        let mut routes = self.routes.clone();
        let newer = timeout(limit, routes.wait_for(|routes| routes.number > number)).await;
        newer.ok()?.ok().map(|routes| Arc::clone(&routes))
    }
}

impl Drop for MonitorHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
