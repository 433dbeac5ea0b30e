//! One server: its connection, its health, and its own view of the topology.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use store::StoreError;
use tokio::time::timeout;

use super::cluster::View;
use crate::connection::{Connection, ConnectionError, failed, pipeline};
use crate::entry::Bucket;
use crate::health::ServerHealth;
use crate::lease::LEAST_FAILOVER_TIMEOUT;
use crate::options::{Access, Address, Mode, Peer};

/// How often the health and the sentinels of a server are read: its policy and role can change at any time.
pub const RECHECK: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Probe {
    pub connection: Arc<Connection>,
    pub health: ServerHealth,
    /// When its health was read.
    health_read: Instant,
    /// When the sentinels of its buckets were read, and of which buckets.
    pub sentinels_read: Option<(Instant, Vec<Bucket>)>,
    pub claim: Claim,
}

/// A server's own view.
#[derive(Clone)]
pub enum Claim {
    /// A single server, which is not asked.
    None,
    View(View),
    Primary(bool),
}

/// Connects if necessary and asks the server for its state.
///
/// # Errors
/// It does not answer within `limit`, or not like a Redis.
pub async fn probe(
    access: &Access,
    mode: Mode,
    address: &Address,
    last: Option<Probe>,
    limit: Duration,
) -> Result<Probe, ConnectionError> {
    match timeout(limit, probe_now(access, mode, address, last, limit)).await {
        Ok(probed) => probed,
        Err(_) => Err(ConnectionError { error: StoreError::StoreSlow, reason: format!("no answer within {limit:?}") }),
    }
}

async fn probe_now(
    access: &Access,
    mode: Mode,
    address: &Address,
    last: Option<Probe>,
    limit: Duration,
) -> Result<Probe, ConnectionError> {
    let last = last.filter(|last| last.connection.closed().is_none());
    let connection = match &last {
        Some(last) => Arc::clone(&last.connection),
        // Each connection resolves the name again: it may lead to another server since.
        None => Arc::new(Connection::open(access, address, Peer::Redis, limit).await?),
    };
    let known = last.filter(|last| mode != Mode::Single && last.health_read.elapsed() < RECHECK);
    let mut asks = pipeline();
    match mode {
        Mode::Single => {}
        Mode::Cluster => {
            asks.cmd("CLUSTER").arg("NODES");
            asks.cmd("TIME");
        }
        Mode::Sentinel => {
            asks.cmd("ROLE");
        }
    }
    if known.is_none() {
        asks.cmd("INFO");
        if mode == Mode::Cluster {
            asks.cmd("CONFIG").arg("GET").arg("cluster-node-timeout");
        }
    }
    let asked = Instant::now();
    let mut replies = connection.ask(&asks, limit).await?.into_iter();
    let mut next = || replies.next().ok_or_else(|| failed(&"no reply"))?.map_err(ConnectionError::from);
    // The server's time in Unix milliseconds, where it is asked.
    let mut now = 0;
    let mut claim = match mode {
        Mode::Single => Claim::None,
        Mode::Cluster => {
            let nodes: String = parse(next()?)?;
            let (seconds, micros): (u64, u64) = parse(next()?)?;
            now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
            Claim::View(
                View::parse(&nodes, address).ok_or_else(|| failed(&"the reply to CLUSTER NODES cannot be parsed"))?,
            )
        }
        Mode::Sentinel => {
            let role: Vec<Value> = parse(next()?)?;
            let role = role.into_iter().next().and_then(|role| redis::from_redis_value::<String>(role).ok());
            Claim::Primary(role.as_deref() == Some("master"))
        }
    };
    // A managed server may hide its timeout. Then the smallest is assumed.
    let mut doubt = |failover_timeout: Option<Duration>| {
        if let Claim::View(view) = &mut claim {
            view.doubt_the_silent(now, failover_timeout.unwrap_or(LEAST_FAILOVER_TIMEOUT));
        }
    };
    if let Some(known) = known {
        doubt(known.health.failover_timeout);
        return Ok(Probe { claim, ..known });
    }
    let info: String = parse(next()?)?;
    let mut health = ServerHealth::parse(&info);
    if health.version.is_none() && health.role.is_none() {
        return Err(failed(&"the reply to INFO cannot be parsed"));
    }
    if mode == Mode::Cluster {
        health.failover_timeout = next().ok().and_then(|reply| {
            let config: BTreeMap<String, u64> = redis::from_redis_value(reply).ok()?;
            config.into_values().next().map(Duration::from_millis)
        });
    }
    doubt(health.failover_timeout);
    Ok(Probe { connection, health, health_read: asked, sentinels_read: None, claim })
}

fn parse<T: redis::FromRedisValue>(value: Value) -> Result<T, ConnectionError> {
    redis::from_redis_value(value).map_err(|error| failed(&error))
}
