//! What an operator wants to know of the servers of a store: their own reports, how fast they answer, their clocks, and
//! names that should expire and do not. It writes nothing.
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use store::StoreError;

use crate::connection::{Connection, ConnectionError, pipeline};
use crate::contents::{Found, Kind};
use crate::options::{Access, Address, Mode, Peer, RedisOptions, RedisOptionsError};

/// One server.
#[derive(Debug)]
pub struct Inspection {
    pub address: String,
    /// Why nothing is known of it, and in words.
    pub state: Result<ServerReport, (StoreError, String)>,
}

#[derive(Debug)]
pub struct ServerReport {
    /// The fields of INFO.
    pub info: BTreeMap<String, String>,
    /// The round trips of PING, shortest first.
    pub round_trips: Vec<Duration>,
    /// Its clock minus ours. The error is at most half a round trip.
    pub clock_ahead_millis: i64,
    pub names: Names,
}

/// The names that were looked at.
#[derive(Debug, Default)]
pub struct Names {
    pub seen: u64,
    /// There are more.
    pub is_cut: bool,
    /// Ours, which should expire and do not.
    pub without_expiry: u64,
    /// Some of them.
    pub examples: Vec<String>,
    /// Of other programs.
    pub foreign: u64,
}

/// How thorough an inspection is.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub pings: usize,
    pub names: u64,
    /// For each connection and round trip.
    pub limit: Duration,
}

const SCAN_COUNT: u64 = 500;
const EXAMPLES: usize = 3;

/// The servers that the options name. Of Sentinels, the primary that they name.
///
/// # Errors
/// The options cannot be used.
pub async fn inspect(redis: &RedisOptions, effort: Effort) -> Result<Vec<Inspection>, RedisOptionsError> {
    let access = redis.access()?;
    let mut inspections = Vec::new();
    for seed in &access.seeds {
        let found = match redis.mode {
            Mode::Single | Mode::Cluster => Ok(seed.clone()),
            Mode::Sentinel => primary(&access, seed, effort.limit).await,
        };
        let (address, state) = match found {
            Ok(address) => (address.to_string(), report(&access, &address, effort).await),
            Err(error) => (seed.to_string(), Err(error)),
        };
        if inspections.iter().all(|other: &Inspection| other.address != address) {
            let state = state.map_err(|ConnectionError { error, reason }| (error, reason));
            inspections.push(Inspection { address, state });
        }
    }
    // One Sentinel is enough to find the primary. [`inspect_sentinels`] tells of those that do not answer.
    if redis.mode == Mode::Sentinel && inspections.iter().any(|found| found.state.is_ok()) {
        inspections.retain(|found| found.state.is_ok());
    }
    Ok(inspections)
}

/// What one Sentinel says of the primary and its surroundings.
#[derive(Debug, Default)]
pub struct SentinelReport {
    /// The fields of SENTINEL MASTER.
    pub primary: BTreeMap<String, String>,
    /// The fields of each replica.
    pub replicas: Vec<BTreeMap<String, String>>,
    /// Why a failover could not be decided now.
    pub no_quorum: Option<String>,
}

/// The Sentinels that the options name, each with its report, or why there is none. Empty in other modes.
///
/// # Errors
/// The options cannot be used.
pub async fn inspect_sentinels(
    redis: &RedisOptions,
    limit: Duration,
) -> Result<Vec<(String, Result<SentinelReport, String>)>, RedisOptionsError> {
    let access = redis.access()?;
    let mut reports = Vec::new();
    if redis.mode == Mode::Sentinel {
        for seed in &access.seeds {
            let report = sentinel(&access, seed, limit).await.map_err(|failure| failure.reason);
            reports.push((seed.to_string(), report));
        }
    }
    Ok(reports)
}

async fn sentinel(access: &Access, seed: &Address, limit: Duration) -> Result<SentinelReport, ConnectionError> {
    let connection = Connection::open(access, seed, Peer::Sentinel, limit).await?;
    let name = access.options.sentinel_master.as_deref().unwrap_or_default();
    let ask = |what: &str| {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg(what).arg(name);
        ask
    };
    let primary = connection.ask_one(ask("MASTER"), limit).await?;
    let replicas = connection.ask_one(ask("REPLICAS"), limit).await?;
    let quorum: Result<String, ConnectionError> = connection.ask_one(ask("CKQUORUM"), limit).await;
    Ok(SentinelReport { primary, replicas, no_quorum: quorum.err().map(|failure| failure.reason) })
}

async fn primary(access: &Access, seed: &Address, limit: Duration) -> Result<Address, ConnectionError> {
    let sentinel = Connection::open(access, seed, Peer::Sentinel, limit).await?;
    let name = access.options.sentinel_master.as_deref().unwrap_or_default();
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let (host, port): (String, u16) = sentinel.ask_one(ask, limit).await?;
    Ok(Address { host, port })
}

async fn report(access: &Access, address: &Address, effort: Effort) -> Result<ServerReport, ConnectionError> {
    let limit = effort.limit;
    let connection = Connection::open(access, address, Peer::Redis, limit).await?;
    let text: String = connection.ask_one(redis::cmd("INFO"), limit).await?;
    let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    let info = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut round_trips = Vec::new();
    for _ in 0..effort.pings {
        let began = Instant::now();
        let _: String = connection.ask_one(redis::cmd("PING"), limit).await?;
        round_trips.push(began.elapsed());
    }
    round_trips.sort_unstable();
    let began = millis_now();
    let (seconds, micros): (i64, i64) = connection.ask_one(redis::cmd("TIME"), limit).await?;
    let ended = millis_now();
    let clock_ahead_millis = seconds * 1000 + micros / 1000 - (began + ended) / 2;
    let names = names(&connection, effort).await?;
    Ok(ServerReport { info, round_trips, clock_ahead_millis, names })
}

async fn names(connection: &Connection, effort: Effort) -> Result<Names, ConnectionError> {
    let mut names = Names::default();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(SCAN_COUNT);
        let (next, found): (String, Vec<Vec<u8>>) = connection.ask_one(scan, effort.limit).await?;
        let mut asks = pipeline();
        for name in &found {
            asks.cmd("PTTL").arg(name);
        }
        let lives = if found.is_empty() { Vec::new() } else { connection.ask(&asks, effort.limit).await? };
        for (name, life) in found.iter().zip(lives) {
            let life = life.ok().and_then(|life| redis::from_redis_value::<i64>(life).ok());
            names.look_at(name, life);
        }
        cursor = next;
        names.is_cut = cursor != "0" && names.seen >= effort.names;
        if cursor == "0" || names.is_cut {
            return Ok(names);
        }
    }
}

impl Names {
    /// `life` in milliseconds; -1 without an expiry.
    fn look_at(&mut self, name: &[u8], life: Option<i64>) {
        self.seen += 1;
        let must_expire = match Found::parse(name) {
            Found::Strange => {
                self.foreign += 1;
                false
            }
            // A revoked signing key has none, and the audit log is trimmed.
            Found::Ours(name) => !matches!(name.kind, Kind::Revocation | Kind::Audit),
            Found::Timing | Found::Sightings => true,
            Found::Sentinel | Found::Log | Found::Issuers => false,
        };
        if must_expire && life == Some(-1) {
            self.without_expiry += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
}

fn millis_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_should_expire_are_told_from_those_that_need_not() {
        let mut names = Names::default();
        for (name, life) in [
            ("portcullis:{00}:sentinel", -1),
            ("portcullis:{00}:head", -1),
            ("portcullis:{00}:r:AAAAAAAAAAAAAAAAAAAAAA", -1),
            ("portcullis:{00}:s:x", 1000),
            ("portcullis:{00}:s:y", -1),
            ("cache:1", -1),
        ] {
            names.look_at(name.as_bytes(), Some(life));
        }
        assert_eq!((names.seen, names.without_expiry, names.foreign), (6, 1, 1));
        assert_eq!(names.examples, ["portcullis:{00}:s:y"]);
    }
}
