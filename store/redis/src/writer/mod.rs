//! Writes, on their own connections, because WAIT and WAITAOF count the writes of their connection. Each server has a
//! lane: a task that writes everything queued for it.
mod confirmation;
mod lane;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, RedisError, Value};
use store::{Durability, InForce, Revocation, StoreError, WriteError};
use tokio::sync::{mpsc, oneshot};
use wire::RevocationKey;

use crate::config::Config;
use crate::connection::is_about_slots;
use crate::entry::{Bucket, Entry};
use crate::health::Allow;
use crate::identity::StoreIdentity;
use crate::options::{Access, Address, Mode};
use crate::routes::Routes;
use crate::topology::MonitorHandle;
use lane::Lane;

/// The most writes that queue up for a server before senders wait.
const QUEUE: usize = 1024;

/// What must be confirmed before a write is acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct WriteTerms {
    pub redis_timeout: Duration,
    pub confirm_timeout: Duration,
    pub min_replicas: u32,
    pub require_disk: bool,
    /// Whether to wait for disks and replicas at all.
    pub confirm: bool,
    pub future_iat_tolerance_seconds: u64,
    pub allow: Allow,
}

#[derive(Debug)]
pub struct Writer {
    access: Access,
    topology: Arc<MonitorHandle>,
    identity: StoreIdentity,
    terms: WriteTerms,
    lanes: Mutex<HashMap<Address, mpsc::Sender<Job>>>,
}

/// The replies to some writes, and their durability.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// For revocations, in order.
    pub in_force: Vec<InForce>,
    /// For lifts: how many entries there were.
    pub removed: u64,
    /// For other commands, in order.
    pub replies: Vec<Value>,
    pub durability: Durability,
}

#[derive(Debug)]
struct Job {
    work: Work,
    done: oneshot::Sender<Result<Outcome, Refused>>,
}

/// Why a write is not acknowledged.
#[derive(Debug, Clone)]
enum Refused {
    For(WriteError),
    /// Nothing was written: the server does not have the bucket, or only a part of it.
    Moved,
}

impl From<&Config> for WriteTerms {
    fn from(config: &Config) -> Self {
        Self {
            redis_timeout: config.redis_timeout,
            confirm_timeout: config.confirm_timeout,
            min_replicas: config.min_replicas,
            require_disk: config.require_disk,
            confirm: true,
            future_iat_tolerance_seconds: config.future_iat_tolerance_seconds,
            allow: config.allow,
        }
    }
}

impl WriteTerms {
    /// For writes that may be lost: they wait for no disk and no replica.
    pub fn fire_and_forget(self) -> Self {
        Self { confirm: false, ..self }
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        Refused::For(error)
    }
}

#[derive(Debug, Clone)]
enum Work {
    Revoke(Revocation),
    Lift(RevocationKey),
    /// A command of another module, which writes to one bucket.
    Run(Bucket, Cmd),
}

impl Writer {
    pub fn new(access: Access, topology: Arc<MonitorHandle>, identity: StoreIdentity, terms: WriteTerms) -> Self {
        Self { access, topology, identity, terms, lanes: Mutex::default() }
    }

    pub async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Outcome, WriteError> {
        self.all(revocations.into_iter().map(Work::Revoke)).await
    }

    pub async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Outcome, WriteError> {
        self.all(keys.into_iter().map(Work::Lift)).await
    }

    /// One reply for each, in order.
    pub async fn run_all(&self, commands: Vec<(Bucket, Cmd)>) -> Result<Outcome, WriteError> {
        self.all(commands.into_iter().map(|(bucket, command)| Work::Run(bucket, command))).await
    }

    pub async fn run(&self, bucket: Bucket, command: Cmd) -> Result<(Value, Durability), WriteError> {
        let mut written = self.run_all(vec![(bucket, command)]).await?;
        let reply = written.replies.pop().ok_or(WriteError::Unknown(StoreError::StoreFailed))?;
        Ok((reply, written.durability))
    }

    /// All are sent before the first answer is awaited, so that they share a round trip.
    async fn all(&self, works: impl Iterator<Item = Work>) -> Result<Outcome, WriteError> {
        let mut waiting = Vec::new();
        for work in works {
            let sent = self.send(&work).await;
            waiting.push((work, sent));
        }
        let mut whole: Option<Outcome> = None;
        for (work, sent) in waiting {
            let part = match sent {
                Ok(answer) => answer.await.map_err(|_| WriteError::Unknown(StoreError::StoreFailed))?,
                Err(error) => Err(error.into()),
            };
            let part = match part {
                Ok(part) => part,
                Err(Refused::For(error)) => return Err(error),
                Err(Refused::Moved) => self.again(&work).await?,
            };
            whole = Some(match whole {
                None => part,
                Some(mut whole) => {
                    whole.in_force.extend(part.in_force);
                    whole.removed += part.removed;
                    whole.replies.extend(part.replies);
                    whole.durability = whole.durability.and(Some(part.durability));
                    whole
                }
            });
        }
        whole.ok_or(WriteError::NotWritten(StoreError::StoreFailed))
    }

    /// Repeats a write when a server did not have the bucket, as soon as the new server is known. The first attempt
    /// wrote nothing.
    async fn again(&self, work: &Work) -> Result<Outcome, WriteError> {
        let deadline = Instant::now() + self.terms.confirm_timeout;
        let mut number = self.topology.routes().number;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let newer = self.topology.newer(number, left).await;
            number = newer.ok_or(WriteError::NotWritten(StoreError::StoreFailed))?.number;
            let answer = self.send(work).await?.await;
            match answer.map_err(|_| WriteError::Unknown(StoreError::StoreFailed))? {
                Ok(written) => return Ok(written),
                Err(Refused::For(error)) => return Err(error),
                Err(Refused::Moved) => {}
            }
        }
    }

    async fn send(&self, work: &Work) -> Result<oneshot::Receiver<Result<Outcome, Refused>>, WriteError> {
        let routes = self.topology.routes();
        let server = routes.to(work.bucket()).ok().and_then(|to| routes.servers.get(to));
        let address = match (server, self.single_address(&routes)) {
            (Some(server), _) => server.address.clone(),
            (None, Some(address)) => address,
            (None, None) => {
                let error = routes.to(work.bucket()).err().unwrap_or(StoreError::StoreFailed);
                return Err(WriteError::NotWritten(error));
            }
        };
        let lane = self.lane(address, &routes);
        let (done, answer) = oneshot::channel();
        let job = Job { work: work.clone(), done };
        lane.send(job).await.map_err(|_| WriteError::NotWritten(StoreError::StoreFailed))?;
        Ok(answer)
    }

    /// A single server is written to even if reads from it fail: it may be slow and about to answer.
    fn single_address(&self, routes: &Routes) -> Option<Address> {
        let is_single = self.access.options.mode == Mode::Single;
        is_single.then(|| self.access.seeds.first().cloned()).flatten().filter(|_| routes.number > 0)
    }

    fn lane(&self, address: Address, routes: &Routes) -> mpsc::Sender<Job> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.contains_key(&address) {
            // The lane of a removed server ends when its queue is empty.
            lanes.retain(|address, _| routes.servers.iter().any(|server| server.address == *address));
        }
        let lane = lanes.entry(address.clone()).or_insert_with(|| {
            let (send, receive) = mpsc::channel(QUEUE);
            let topology = Arc::clone(&self.topology);
            let lane = Lane::new(address, self.access.clone(), topology, self.identity.clone(), self.terms);
            tokio::spawn(lane.run(receive));
            send
        });
        lane.clone()
    }
}

impl Work {
    fn bucket(&self) -> Bucket {
        match self {
            Work::Revoke(revocation) => Bucket::of(revocation.key.0),
            Work::Lift(key) => Bucket::of(key.0),
            Work::Run(bucket, _) => *bucket,
        }
    }

    fn read(&self, reply: Option<Result<Value, RedisError>>) -> Result<Outcome, Refused> {
        let failed = WriteError::NotWritten(StoreError::StoreFailed);
        let reply = match reply {
            Some(Ok(reply)) => reply,
            Some(Err(error)) if is_about_slots(&error) => return Err(Refused::Moved),
            Some(Err(error)) => {
                tracing::warn!(code = error.code(), "Redis refused a write");
                return Err(match error.code() {
                    Some("READONLY" | "MASTERDOWN") => WriteError::NotWritten(StoreError::StoreUnsafe).into(),
                    _ => failed.into(),
                });
            }
            None => return Err(failed.into()),
        };
        let mut written = Outcome { in_force: vec![], removed: 0, replies: vec![], durability: Durability::default() };
        match self {
            Work::Revoke(_) => {
                let (head, millis): (Vec<u8>, i64) =
                    redis::from_redis_value(reply).map_err(|_| WriteError::Unknown(StoreError::StoreFailed))?;
                let entry = Entry::parse(&head).ok_or(WriteError::Unknown(StoreError::StoreFailed))?;
                let expires_in = u64::try_from(millis).ok().map(Duration::from_millis);
                written.in_force.push(InForce { ending: entry.ending, expires_in });
            }
            Work::Lift(_) => {
                written.removed =
                    redis::from_redis_value(reply).map_err(|_| WriteError::Unknown(StoreError::StoreFailed))?;
            }
            Work::Run(..) => written.replies.push(reply),
        }
        Ok(written)
    }
}
