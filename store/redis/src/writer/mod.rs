//! Writes, on connections of their own, since WAIT and WAITAOF count what their connection wrote. Each server has a lane:
//! one task that takes whatever has queued up for it, writes it in one round trip and waits once for all of it.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wire::RevocationKey;

use super::Pin;
use super::connect::{Failure, Wire, pipeline};
use super::create::is_about_slots;
use super::entry::{self, Bucket, Entry, Sentinel};
use super::keeper::Kept;
use super::lag;
use super::redis_options::{Access, Address, Mode, Whom};
use super::routes::Routes;
use super::standing::{Allow, Standing, Unfit};
use crate::Config;
use store::clock::unix_seconds;
use store::{Durability, Ends, InForce, Revocation, StoreError, WriteError};

/// The most writes in one round trip.
const BATCH: usize = 512;
/// The most that queue up before senders wait.
const QUEUE: usize = 1024;
/// The script's word, and PTTL's, for no expiry.
const FOR_EVER: i64 = -1;
const SCRIPT: &str = concat!(include_str!("lives.lua"), include_str!("revoke.lua"));

/// What a write is held to.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub redis_timeout: Duration,
    pub confirm_timeout: Duration,
    pub min_replicas: u32,
    pub require_disk: bool,
    /// Whether disks and replicas are waited for at all.
    pub confirm: bool,
    pub future_iat_tolerance_seconds: u64,
    pub allow: Allow,
}

#[derive(Debug)]
pub struct Writer {
    access: Access,
    kept: Arc<Kept>,
    pin: Pin,
    terms: Terms,
    lanes: Mutex<HashMap<Address, mpsc::Sender<Job>>>,
}

/// The replies to some writes, and how safe they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Of revocations, in order.
    pub in_force: Vec<InForce>,
    /// Of lifts: how many entries there were.
    pub removed: u64,
    /// Of other commands, in order.
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
    /// Nothing was written: the server does not have the bucket, or not wholly.
    Moved,
}

impl From<&Config> for Terms {
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

impl Terms {
    /// For what may be lost.
    pub fn of_no_matter(self) -> Self {
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
    /// Of another part of the service.
    Run(Bucket, Cmd),
}

impl Writer {
    pub fn new(access: Access, kept: Arc<Kept>, pin: Pin, terms: Terms) -> Self {
        Self { access, kept, pin, terms, lanes: Mutex::default() }
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

    /// Everything is sent before the first answer is awaited, so that it shares a round trip.
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
                    whole.durability.on_disk &= part.durability.on_disk;
                    whole.durability.replicas = whole.durability.replicas.min(part.durability.replicas);
                    whole
                }
            });
        }
        whole.ok_or(WriteError::NotWritten(StoreError::StoreFailed))
    }

    /// Writes what met a server that does not have its bucket, once it is known which does. Nothing was written before.
    async fn again(&self, work: &Work) -> Result<Outcome, WriteError> {
        let deadline = Instant::now() + self.terms.confirm_timeout;
        let mut number = self.kept.routes().number;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let newer = self.kept.newer(number, left).await;
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
        let routes = self.kept.routes();
        let member = routes.to(work.bucket()).ok().and_then(|to| routes.members.get(to));
        let address = match (member, self.kept_address(&routes)) {
            (Some(member), _) => member.address.clone(),
            (None, Some(address)) => address,
            (None, None) => {
                let trouble = routes.to(work.bucket()).err().unwrap_or(StoreError::StoreFailed);
                return Err(WriteError::NotWritten(trouble));
            }
        };
        let lane = self.lane(address, &routes);
        let (done, answer) = oneshot::channel();
        let job = Job { work: work.clone(), done };
        lane.send(job).await.map_err(|_| WriteError::NotWritten(StoreError::StoreFailed))?;
        Ok(answer)
    }

    /// A single server is written to whether reads find it or not: a slow one may be about to go on.
    fn kept_address(&self, routes: &Routes) -> Option<Address> {
        let is_single = self.access.options.mode == Mode::Single;
        is_single.then(|| self.access.seeds.first().cloned()).flatten().filter(|_| routes.number > 0)
    }

    fn lane(&self, address: Address, routes: &Routes) -> mpsc::Sender<Job> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.contains_key(&address) {
            // Those of servers that are gone end when their queues are empty.
            lanes.retain(|address, _| routes.members.iter().any(|member| member.address == *address));
        }
        let lane = lanes.entry(address.clone()).or_insert_with(|| {
            let (send, receive) = mpsc::channel(QUEUE);
            let lane = Lane {
                address,
                access: self.access.clone(),
                kept: Arc::clone(&self.kept),
                pin: self.pin.clone(),
                terms: self.terms,
                connected: None,
            };
            tokio::spawn(lane.run(receive));
            send
        });
        lane.clone()
    }
}

struct Lane {
    address: Address,
    access: Access,
    kept: Arc<Kept>,
    pin: Pin,
    terms: Terms,
    connected: Option<Connected>,
}

/// A connection, and what its server said of itself when it was made.
struct Connected {
    wire: Wire,
    standing: Standing,
}

/// How this server can tell that a write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// On disk and on replicas, in one answer.
    WaitAof,
    /// The reply itself comes after fsync if the server says `appendonly yes` and `appendfsync always`.
    Fsync,
    /// It need not be.
    Unasked,
}

impl Lane {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            let answers = match self.write(&jobs).await {
                Ok(answers) => answers,
                Err(error) => vec![Err(error.into()); jobs.len()],
            };
            for (job, answer) in jobs.drain(..).zip(answers) {
                // Whoever asked may have gone; the write stands.
                let _ = job.done.send(answer);
            }
        }
    }

    async fn connect(&self) -> Result<Connected, WriteError> {
        let limit = self.terms.redis_timeout;
        let connecting = async {
            let wire = Wire::open(&self.access, &self.address, Whom::Redis, limit).await?;
            let standing = wire.ask_standing(limit).await?;
            Ok::<_, Failure>(Connected { wire, standing })
        };
        match timeout(limit, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(failure)) => Err(WriteError::NotWritten(failure.trouble)),
            Err(_) => Err(WriteError::NotWritten(StoreError::StoreSlow)),
        }
    }

    /// One answer for each job, or one error for all.
    async fn write(&mut self, jobs: &[Job]) -> Result<Vec<Result<Outcome, Refused>>, WriteError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        if let Err(Unfit::Replica) = connected.standing.judge(self.terms.allow) {
            return Err(WriteError::NotWritten(StoreError::StoreUnsafe));
        }
        let proof = match (self.terms.confirm, connected.standing.has_waitaof()) {
            (true, true) => Proof::WaitAof,
            (true, false) => Proof::Fsync,
            (false, _) => Proof::Unasked,
        };
        let buckets: BTreeSet<_> = jobs.iter().map(|job| job.work.bucket()).collect();
        let pipeline = self.pipeline(&buckets, jobs, proof, unix_seconds());
        let limit = self.terms.redis_timeout.saturating_add(self.terms.confirm_timeout);
        // On any failure the connection is left: what it still has to say must not be taken for a later answer.
        let replies = connected.wire.ask(&pipeline, limit).await;
        let mut replies = replies.map_err(|failure| WriteError::Unknown(failure.trouble))?.into_iter();
        let ours: BTreeMap<_, _> = buckets.iter().map(|bucket| (*bucket, self.is_ours(replies.next()))).collect();
        let written: Vec<_> = jobs.iter().map(|job| job.work.read(replies.next())).collect();
        let confirmed = confirmed(&self.terms, proof, replies);
        // A demoted primary refuses (READONLY), and so does one that loads or lost its own primary; a store that is not
        // ours is perhaps another server's. The next write resolves the name again.
        if ours.values().all(|ours| *ours) && written.iter().all(Result::is_ok) {
            self.connected = Some(connected);
        }
        let routes = self.kept.routes();
        let is_still_here = |bucket| {
            let member = routes.to(bucket).ok().and_then(|to| routes.members.get(to));
            self.access.options.mode == Mode::Single || member.is_some_and(|member| member.address == self.address)
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
                // Who is replaced meanwhile may forget it.
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
        self.pin.takes(Sentinel::parse(value.as_deref()))
    }

    fn pipeline(&self, buckets: &BTreeSet<Bucket>, jobs: &[Job], proof: Proof, now: u64) -> Pipeline {
        // One write that is refused does not hide that the others were done.
        let mut pipeline = pipeline();
        for bucket in buckets {
            pipeline.cmd("GET").arg(bucket.sentinel());
        }
        let lead = self.terms.future_iat_tolerance_seconds;
        // Redis's clock tells how long the write was under way; if it says more than that can be, it is wrong, and must
        // not lock out logins for as long as it is ahead.
        let trusted = self.terms.redis_timeout.saturating_add(self.terms.confirm_timeout).as_secs().saturating_add(1);
        for job in jobs {
            match &job.work {
                Work::Revoke(revocation) => {
                    let (form, now, trusted) = match revocation.ends {
                        Ends::ForGood => ("D", now, trusted),
                        Ends::IssuedUntilNow => ("B", now, trusted),
                        Ends::IssuedUntil(then) => ("B", then.min(now), 0),
                    };
                    let millis = match revocation.ttl {
                        Some(ttl) => i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
                        None => FOR_EVER,
                    };
                    pipeline.cmd("EVAL").arg(SCRIPT).arg(1).arg(entry::name(revocation.key));
                    pipeline.arg(&revocation.sealed).arg(form).arg(millis).arg(now).arg(lead).arg(trusted);
                    // Not among its KEYS: where a slot is on its way, two keys of which one is there are refused.
                    pipeline.arg(lag::name(revocation.key)).arg(lag::KEPT.as_millis() as u64);
                }
                Work::Lift(key) => {
                    pipeline.cmd("DEL").arg(entry::name(*key));
                }
                Work::Run(_, command) => {
                    pipeline.add_command(command.clone());
                }
            }
        }
        let replicas = self.terms.min_replicas;
        // At least 1: a limit of 0 would wait for ever.
        let millis = u64::try_from(self.terms.confirm_timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        match proof {
            Proof::WaitAof => {
                pipeline.cmd("WAITAOF").arg(1).arg(replicas).arg(millis);
            }
            Proof::Fsync => {
                pipeline.cmd("CONFIG").arg("GET").arg("appendonly");
                pipeline.cmd("CONFIG").arg("GET").arg("appendfsync");
                if replicas > 0 {
                    pipeline.cmd("WAIT").arg(replicas).arg(millis);
                }
            }
            Proof::Unasked => {}
        }
        pipeline
    }
}

fn confirmed(
    terms: &Terms,
    proof: Proof,
    mut replies: impl Iterator<Item = Result<Value, RedisError>>,
) -> Result<Durability, WriteError> {
    let mut next = || replies.next().and_then(Result::ok);
    let confirmed = match proof {
        Proof::WaitAof => {
            let counts = next().and_then(|reply| redis::from_redis_value::<(u64, u64)>(reply).ok());
            let (disks, replicas) = counts.unwrap_or_default();
            Durability { on_disk: disks >= 1, replicas }
        }
        Proof::Fsync => {
            let mut config = || {
                let config: BTreeMap<String, String> = redis::from_redis_value(next()?).ok()?;
                config.into_values().next()
            };
            let (appendonly, appendfsync) = (config(), config());
            let on_disk = appendonly.as_deref() == Some("yes") && appendfsync.as_deref() == Some("always");
            let replicas = next().and_then(|reply| redis::from_redis_value(reply).ok()).unwrap_or_default();
            Durability { on_disk, replicas }
        }
        Proof::Unasked => return Ok(Durability::default()),
    };
    // Where WAITAOF exists it was asked, so a missing disk is a failure and not a Redis that cannot say.
    if !confirmed.on_disk && (terms.require_disk || proof == Proof::WaitAof) {
        return Err(WriteError::Unconfirmed("Redis did not confirm that it is on disk".into()));
    }
    let wanted = u64::from(terms.min_replicas);
    if confirmed.replicas < wanted {
        let replicas = confirmed.replicas;
        return Err(WriteError::Unconfirmed(format!("{replicas} of {wanted} replicas confirmed it")));
    }
    Ok(confirmed)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            redis_timeout: Duration::from_millis(200),
            confirm_timeout: Duration::from_secs(2),
            min_replicas: 0,
            require_disk: false,
            confirm: true,
            future_iat_tolerance_seconds: 1,
            allow: Allow::default(),
        }
    }

    fn counts(disks: i64, replicas: i64) -> Result<Value, RedisError> {
        Ok(Value::Array(vec![Value::Int(disks), Value::Int(replicas)]))
    }

    fn config(name: &str, value: &str) -> Result<Value, RedisError> {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Ok(Value::Array(vec![text(name), text(value)]))
    }

    fn refused() -> Result<Value, RedisError> {
        Err(RedisError::from((redis::ErrorKind::Client, "refused")))
    }

    fn by(terms: &Terms, proof: Proof, replies: Vec<Result<Value, RedisError>>) -> Option<(bool, u64)> {
        confirmed(terms, proof, replies.into_iter()).ok().map(|confirmed| (confirmed.on_disk, confirmed.replicas))
    }

    // Redis 7.2 and later only; the tests against a real Redis may meet an older one.
    #[test]
    fn waitaof_must_count_the_disk_and_enough_replicas() {
        let two = Terms { min_replicas: 2, ..terms() };
        assert_eq!(by(&terms(), Proof::WaitAof, vec![counts(1, 0)]), Some((true, 0)));
        assert_eq!(by(&terms(), Proof::WaitAof, vec![counts(0, 3)]), None);
        assert_eq!(by(&two, Proof::WaitAof, vec![counts(1, 1)]), None);
        assert_eq!(by(&two, Proof::WaitAof, vec![counts(1, 2)]), Some((true, 2)));
        assert_eq!(by(&terms(), Proof::WaitAof, vec![refused()]), None);
        assert_eq!(by(&terms(), Proof::WaitAof, vec![]), None);
    }

    #[test]
    fn before_waitaof_only_appendfsync_always_is_on_disk() {
        let strict = Terms { require_disk: true, ..terms() };
        let yes = || config("appendonly", "yes");
        let always = || config("appendfsync", "always");
        assert_eq!(by(&strict, Proof::Fsync, vec![yes(), always()]), Some((true, 0)));
        assert_eq!(by(&strict, Proof::Fsync, vec![config("appendonly", "no"), always()]), None);
        assert_eq!(by(&strict, Proof::Fsync, vec![yes(), config("appendfsync", "everysec")]), None);
        assert_eq!(by(&strict, Proof::Fsync, vec![refused(), refused()]), None);
        assert_eq!(by(&terms(), Proof::Fsync, vec![refused(), refused()]), Some((false, 0)));
        let one = Terms { min_replicas: 1, ..terms() };
        assert_eq!(by(&one, Proof::Fsync, vec![yes(), always(), Ok(Value::Int(0))]), None);
        assert_eq!(by(&one, Proof::Fsync, vec![refused(), refused(), Ok(Value::Int(1))]), Some((false, 1)));
    }
}
