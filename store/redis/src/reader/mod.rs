//! Reads. Each comes with proof, in the same round trip, that our store answered, from a server that holds the lease of
//! the bucket.
mod check;
mod follow;
mod list;
mod moving;
mod scan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, RedisError, Value};
use store::{Observer, StoreError};

use crate::connection::is_about_slots;
use crate::connection::{Connection, ConnectionError, pipeline};
use crate::entry::{Bucket, Sentinel};
use crate::identity::StoreIdentity;
use crate::topology::MonitorHandle;

#[derive(Debug, Clone)]
pub struct Reader {
    pub topology: Arc<MonitorHandle>,
    pub identity: StoreIdentity,
    pub limit: Duration,
    pub observer: Arc<dyn Observer>,
}

impl Reader {
    /// Whether checks can be answered now, from published state and without a round trip.
    pub fn health(&self) -> Result<(), StoreError> {
        self.topology.routes().health()
    }

    /// Whether the server of one of these buckets may evict, or has become a replica.
    pub fn may_forget(&self, buckets: &[Bucket]) -> bool {
        let routes = self.topology.routes();
        buckets.iter().any(|bucket| routes.usable(*bucket) == Err(StoreError::StoreUnsafe))
    }

    /// Runs commands that only read. All names are of `bucket`. One reply for each.
    ///
    /// Commands that write must not run here: Redis can delay writes, for example in a requested failover, and every
    /// later check on the connection would wait.
    ///
    /// # Errors
    /// An error reply is [`StoreError::StoreFailed`].
    pub async fn read(&self, bucket: Bucket, asks: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut routes = self.topology.routes();
        loop {
            let server = routes.usable(bucket)?;
            let server = routes.servers.get(server).ok_or(StoreError::StoreFailed)?;
            let mut all = pipeline();
            for ask in asks {
                all.add_command(ask.clone());
            }
            // The sentinel comes last: a flush that removed the others removed it too.
            all.cmd("GET").arg(bucket.sentinel());
            let replies = self.ask(&server.connection, &all, deadline).await?;
            if replies.iter().any(|reply| reply.as_ref().is_err_and(is_about_slots)) {
                let left = deadline.saturating_duration_since(Instant::now());
                routes = self.topology.newer(routes.number, left).await.ok_or(StoreError::StoreFailed)?;
                continue;
            }
            let values: Result<Vec<Value>, RedisError> = replies.into_iter().collect();
            let mut values = values.map_err(|error| {
                tracing::warn!(code = error.code(), "Redis refused a read");
                StoreError::StoreFailed
            })?;
            let sentinel = values.pop().ok_or(StoreError::StoreFailed)?;
            let sentinel: Option<Vec<u8>> = redis::from_redis_value(sentinel).map_err(|_| StoreError::StoreFailed)?;
            self.judge(&server.connection, bucket, sentinel.as_deref())?;
            return Ok(values);
        }
    }

    async fn ask(
        &self,
        connection: &Connection,
        asks: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, RedisError>>, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        connection.ask(asks, left).await.map_err(|ConnectionError { error, reason }| {
            tracing::debug!(error = error.name(), reason, "no answer from Redis");
            // The connection is closed, so a late reply is not taken for another. The monitor opens a new one.
            self.topology.wake();
            error
        })
    }

    /// Whether answers that came with `sentinel` over `wire` count.
    fn judge(&self, connection: &Arc<Connection>, bucket: Bucket, sentinel: Option<&[u8]>) -> Result<(), StoreError> {
        let routes = self.topology.routes();
        if !routes.is_still(bucket, connection) {
            // It may have been replaced while it answered.
            return Err(routes.usable(bucket).err().unwrap_or(StoreError::StoreSlow));
        }
        match self.identity.is_ours(Sentinel::parse(sentinel)) {
            true => Ok(()),
            false => Err(StoreError::StoreChanged),
        }
    }
}
