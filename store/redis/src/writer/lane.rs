//! The task that writes to one server. It takes all queued writes, sends them in one round trip, and waits once until
//! all of them are confirmed.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redis::{Pipeline, RedisError, Value};
use store::clock::unix_seconds;
use store::{Ends, StoreError, WriteError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::confirmation::{Confirmation, confirmed};
use super::{Job, Outcome, Refused, Work, WriteTerms};
use crate::connection::{Connection, ConnectionError, pipeline};
use crate::entry::{self, Bucket, Sentinel};
use crate::health::{HealthError, ServerHealth};
use crate::identity::StoreIdentity;
use crate::log;
use crate::options::{Access, Address, Mode, Peer};
use crate::topology::MonitorHandle;

/// The most writes in one round trip.
const BATCH: usize = 512;
/// The script's and PTTL's value for no expiry.
const FOR_EVER: i64 = -1;
const SCRIPT: &str =
    concat!(include_str!("../lua/lives.lua"), include_str!("../lua/log.lua"), include_str!("../lua/revoke.lua"));

pub struct Lane {
    address: Address,
    access: Access,
    topology: Arc<MonitorHandle>,
    identity: StoreIdentity,
    terms: WriteTerms,
    connected: Option<Connected>,
}

/// A connection, and its server's health when it was opened.
struct Connected {
    connection: Connection,
    health: ServerHealth,
}

impl Lane {
    pub fn new(
        address: Address,
        access: Access,
        topology: Arc<MonitorHandle>,
        identity: StoreIdentity,
        terms: WriteTerms,
    ) -> Self {
        Self { address, access, topology, identity, terms, connected: None }
    }

    pub async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            let answers = match self.write(&jobs).await {
                Ok(answers) => answers,
                Err(error) => vec![Err(error.into()); jobs.len()],
            };
            for (job, answer) in jobs.drain(..).zip(answers) {
                // The caller may be gone. The write stays.
                let _ = job.done.send(answer);
            }
        }
    }

    async fn connect(&self) -> Result<Connected, WriteError> {
        let limit = self.terms.redis_timeout;
        let connecting = async {
            let connection = Connection::open(&self.access, &self.address, Peer::Redis, limit).await?;
            let health = connection.ask_health(limit).await?;
            Ok::<_, ConnectionError>(Connected { connection, health })
        };
        match timeout(limit, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(failure)) => Err(WriteError::NotWritten(failure.error)),
            Err(_) => Err(WriteError::NotWritten(StoreError::StoreSlow)),
        }
    }

    /// One answer for each job, or one error for all.
    async fn write(&mut self, jobs: &[Job]) -> Result<Vec<Result<Outcome, Refused>>, WriteError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        if let Err(HealthError::Replica) = connected.health.judge(self.terms.allow) {
            return Err(WriteError::NotWritten(StoreError::StoreUnsafe));
        }
        let confirmation = match (self.terms.confirm, connected.health.has_waitaof()) {
            (true, true) => Confirmation::WaitAof,
            (true, false) => Confirmation::Fsync,
            (false, _) => Confirmation::None,
        };
        let buckets: BTreeSet<_> = jobs.iter().map(|job| job.work.bucket()).collect();
        let pipeline = self.pipeline(&buckets, jobs, confirmation, unix_seconds());
        let limit = self.terms.redis_timeout.saturating_add(self.terms.confirm_timeout);
        // After a failure the connection is not used again. A late reply must not be taken for the answer to a later
        // command.
        let replies = connected.connection.ask(&pipeline, limit).await;
        let mut replies = replies.map_err(|failure| WriteError::Unknown(failure.error))?.into_iter();
        let ours: BTreeMap<_, _> = buckets.iter().map(|bucket| (*bucket, self.is_ours(replies.next()))).collect();
        let written: Vec<_> = jobs.iter().map(|job| job.work.read(replies.next())).collect();
        let confirmed = confirmed(&self.terms, confirmation, replies);
        // A demoted primary refuses (READONLY), and so does one that is loading its data or lost its own primary. If
        // the store is another one, the name may have resolved to another server. The next write resolves the name
        // again.
        if ours.values().all(|ours| *ours) && written.iter().all(Result::is_ok) {
            self.connected = Some(connected);
        }
        let routes = self.topology.routes();
        let is_still_here = |bucket| {
            let server = routes.to(bucket).ok().and_then(|to| routes.servers.get(to));
            self.access.options.mode == Mode::Single || server.is_some_and(|server| server.address == self.address)
        };
        Ok(jobs
            .iter()
            .zip(written)
            .map(|(job, written)| {
                let (bucket, written) = (job.work.bucket(), written?);
                if ours.get(&bucket) != Some(&true) {
                    let changed = "the store is not the one that checks are answered from (store_changed)";
                    return Err(WriteError::Unconfirmed(changed.into()).into());
                }
                // A server that is replaced meanwhile may lose it.
                if !is_still_here(bucket) {
                    let replaced = "its server may have been replaced since (store_unsafe)";
                    return Err(WriteError::Unconfirmed(replaced.into()).into());
                }
                Ok(Outcome { durability: confirmed.clone()?, ..written })
            })
            .collect())
    }

    fn is_ours(&self, reply: Option<Result<Value, RedisError>>) -> bool {
        let Some(Ok(value)) = reply else { return false };
        let value: Option<Vec<u8>> = redis::from_redis_value(value).unwrap_or_default();
        self.identity.is_ours(Sentinel::parse(value.as_deref()))
    }

    fn pipeline(&self, buckets: &BTreeSet<Bucket>, jobs: &[Job], confirmation: Confirmation, now: u64) -> Pipeline {
        // A refused write must not hide that the others succeeded.
        let mut pipeline = pipeline();
        for bucket in buckets {
            pipeline.cmd("GET").arg(bucket.sentinel());
        }
        let tolerance = self.terms.future_iat_tolerance_seconds;
        // Redis's clock shows how long the write took to arrive. If the time is impossible, the clock is wrong. A wrong
        // clock must not lock out logins.
        let max_delay = self.terms.redis_timeout.saturating_add(self.terms.confirm_timeout).as_secs().saturating_add(1);
        for job in jobs {
            match &job.work {
                Work::Revoke(revocation) => {
                    let (form, now, max_delay) = match revocation.ends {
                        Ends::ForGood => ("D", now, max_delay),
                        Ends::IssuedUntilNow => ("B", now, max_delay),
                        Ends::IssuedUntil(then) => ("B", then.min(now), 0),
                    };
                    let millis = match revocation.ttl {
                        Some(ttl) => i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
                        None => FOR_EVER,
                    };
                    let bucket = job.work.bucket();
                    pipeline.cmd("EVAL").arg(SCRIPT).arg(3).arg(entry::name(revocation.key));
                    pipeline.arg(bucket.head()).arg(bucket.log());
                    pipeline.arg(&revocation.sealed).arg(form).arg(millis).arg(now).arg(tolerance).arg(max_delay);
                    // Not one of its KEYS: while a slot migrates, a script is refused if one of them has moved.
                    pipeline.arg(entry::mark_name(revocation.key)).arg(entry::MARK_TTL.as_millis() as u64);
                }
                Work::Lift(key) => {
                    pipeline.add_command(log::lift(*key));
                }
                Work::Run(_, command) => {
                    pipeline.add_command(command.clone());
                }
            }
        }
        let replicas = self.terms.min_replicas;
        // At least 1: a limit of 0 would wait forever.
        let millis = u64::try_from(self.terms.confirm_timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        match confirmation {
            Confirmation::WaitAof => {
                pipeline.cmd("WAITAOF").arg(1).arg(replicas).arg(millis);
            }
            Confirmation::Fsync => {
                pipeline.cmd("CONFIG").arg("GET").arg("appendonly");
                pipeline.cmd("CONFIG").arg("GET").arg("appendfsync");
                if replicas > 0 {
                    pipeline.cmd("WAIT").arg(replicas).arg(millis);
                }
            }
            Confirmation::None => {}
        }
        pipeline
    }
}
