//! Reads: a question split by the servers that have its parts, one round trip to each, all at once; and the proof, in the
//! same round trips, that it was our store that answered.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::{Cmd, Pipeline, RedisError, Value};
use wire::{Answer, RevocationKey};

use super::Pin;
use super::connect::{Failure, Wire, pipeline};
use super::create::is_about_slots;
use super::entry::{self, Bucket, Entry, PATTERN, Sentinel};
use super::keeper::Kept;
use super::routes::Routes;
use store::{ListError, Observer, Page, StoreError, StoredRevocation};

/// Where a list's cursor has the number of the server; below it is SCAN's own.
const SERVER_SHIFT: u32 = 48;

#[derive(Debug, Clone)]
pub struct Reader {
    pub kept: Arc<Kept>,
    pub pin: Pin,
    pub limit: Duration,
    pub observer: Arc<dyn Observer>,
}

/// Why a try gave no answers.
enum Missed {
    StoreError(StoreError),
    /// A bucket is on its way to another server, or has arrived there.
    Moved(Bucket),
}

impl From<StoreError> for Missed {
    fn from(trouble: StoreError) -> Self {
        Missed::StoreError(trouble)
    }
}

impl Reader {
    pub async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let sent = Instant::now();
        let answers = self.answers(keys).await;
        self.observer.read(sent.elapsed());
        answers
    }

    /// The answer for each key, read from a store that proved to be ours.
    async fn answers(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut routes = self.kept.routes();
        loop {
            let missed = match self.try_answers(&routes, keys, deadline).await {
                Ok(answers) => return Ok(answers),
                Err(Missed::StoreError(trouble)) => return Err(trouble),
                Err(Missed::Moved(bucket)) => bucket,
            };
            tracing::debug!(bucket = %missed, "a bucket has moved");
            let left = deadline.saturating_duration_since(Instant::now());
            routes = self.kept.newer(routes.number, left).await.ok_or(StoreError::StoreFailed)?;
        }
    }

    async fn try_answers(
        &self,
        routes: &Routes,
        keys: &[RevocationKey],
        deadline: Instant,
    ) -> Result<Vec<Answer>, Missed> {
        let asking = split(routes, keys)?.into_iter().map(async |(member, parts)| {
            let member = routes.members.get(member).ok_or(StoreError::StoreFailed)?;
            self.ask_parts(&member.wire, parts, deadline).await
        });
        let mut answers = vec![None; keys.len()];
        for (place, answer) in try_join_all(asking).await?.into_iter().flatten() {
            *answers.get_mut(place).ok_or(StoreError::StoreFailed)? = Some(answer);
        }
        Ok(answers.into_iter().collect::<Option<_>>().ok_or(StoreError::StoreFailed)?)
    }

    /// The answers for the keys of `parts`, each with its place in the question.
    async fn ask_parts(
        &self,
        wire: &Arc<Wire>,
        parts: Vec<Part>,
        deadline: Instant,
    ) -> Result<Vec<(usize, Answer)>, Missed> {
        let mut asks = pipeline();
        for part in &parts {
            let mut ask = Cmd::with_capacity(part.keys.len() + 2, 64 + part.keys.len() * entry::NAME_BYTES);
            ask.arg("MGET").arg(part.bucket.sentinel());
            for (_, key) in &part.keys {
                ask.arg(entry::name(*key));
            }
            asks.add_command(ask);
        }
        let replies = self.ask(wire, &asks, deadline).await?;
        if replies.len() != parts.len() {
            return Err(StoreError::StoreFailed.into());
        }
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.keys.len()).sum());
        for (part, reply) in parts.into_iter().zip(replies) {
            let values = match reply {
                Ok(Value::Array(values)) => values,
                Ok(_) => return Err(StoreError::StoreFailed.into()),
                Err(error) => self.after(wire, &part, &error, deadline).await?,
            };
            let Some((sentinel, values)) = values.split_first() else { return Err(StoreError::StoreFailed.into()) };
            self.judge(wire, part.bucket, text(sentinel)?)?;
            if values.len() != part.keys.len() {
                return Err(StoreError::StoreFailed.into());
            }
            for ((place, _), value) in part.keys.iter().zip(values) {
                all.push((*place, answer(value)?));
            }
        }
        Ok(all)
    }

    /// What to do when a bucket's command was refused. The sentinel's value and those of the keys, if it helped.
    ///
    /// While a slot is on its way, some of its names are here and some there, and no MGET is answered. Then each name is
    /// asked for by itself, first here, where it is if it has not left. The sentinel comes last: what was lost before it
    /// was read is noticed.
    async fn after(
        &self,
        wire: &Arc<Wire>,
        part: &Part,
        error: &RedisError,
        deadline: Instant,
    ) -> Result<Vec<Value>, Missed> {
        if !is_about_slots(error) {
            tracing::warn!(code = error.code(), "Redis refused a read");
            return Err(StoreError::StoreFailed.into());
        }
        if !matches!(error.code(), Some("ASK" | "TRYAGAIN")) {
            return Err(Missed::Moved(part.bucket));
        }
        let names: Vec<_> =
            part.keys.iter().map(|(_, key)| entry::name(*key)).chain(std::iter::once(part.bucket.sentinel())).collect();
        let mut asks = pipeline();
        for name in &names {
            asks.cmd("GET").arg(name);
        }
        let mut values = vec![Value::Nil; names.len()];
        let mut there: BTreeMap<(String, u16), Vec<usize>> = BTreeMap::new();
        for (at, reply) in self.ask(wire, &asks, deadline).await?.into_iter().enumerate() {
            match (reply, values.get_mut(at)) {
                (Ok(value), Some(kept)) => *kept = value,
                (Err(error), _) if error.code() == Some("ASK") => {
                    let place = error.redirect_node().and_then(|(place, _slot)| place.rsplit_once(':'));
                    let place = place.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
                    there.entry(place.ok_or(StoreError::StoreFailed)?).or_default().push(at);
                }
                _ => return Err(Missed::Moved(part.bucket)),
            }
        }
        for ((host, port), places) in there {
            let routes = self.kept.routes();
            let Some(other) = routes.importing(&host, port) else { return Err(Missed::Moved(part.bucket)) };
            let mut asks = pipeline();
            for name in places.iter().filter_map(|at| names.get(*at)) {
                asks.cmd("ASKING");
                asks.cmd("GET").arg(name);
            }
            let replies = self.ask(&other.wire, &asks, deadline).await?;
            if self.kept.routes().importing(&host, port).is_none_or(|now| !Arc::ptr_eq(&now.wire, &other.wire)) {
                return Err(Missed::Moved(part.bucket));
            }
            for (at, reply) in places.iter().zip(replies.into_iter().skip(1).step_by(2)) {
                let value = reply.map_err(|_| Missed::Moved(part.bucket))?;
                if let Some(kept) = values.get_mut(*at) {
                    *kept = value;
                }
            }
        }
        values.rotate_right(1);
        Ok(values)
    }

    pub async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        Ok(self.stored(&[key]).await?.pop())
    }

    pub async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let cursor: u64 = cursor.map_or(Ok(0), |cursor| cursor.parse().map_err(|_| ListError::InvalidCursor))?;
        let (server, cursor) = (cursor >> SERVER_SHIFT, cursor & ((1 << SERVER_SHIFT) - 1));
        let routes = self.kept.routes();
        let parts = routes.parts()?;
        let at = usize::try_from(server).unwrap_or(usize::MAX);
        let Some((member, buckets)) = parts.get(at) else {
            return Ok(Page { revocations: Vec::new(), cursor: None });
        };
        let bucket = buckets.first().copied().ok_or(StoreError::StoreFailed)?;
        routes.fit(bucket)?;
        let deadline = Instant::now() + self.limit;
        let (mut next, mut keys) = (cursor, Vec::new());
        // Other names lie between; a page with nothing on it helps nobody.
        loop {
            let mut asks = pipeline();
            asks.cmd("SCAN").arg(next).arg("MATCH").arg(PATTERN).arg("COUNT").arg(limit);
            let reply = self.ask(&member.wire, &asks, deadline).await?.pop();
            let reply = reply.and_then(Result::ok).ok_or(StoreError::StoreFailed)?;
            let names: Vec<Vec<u8>>;
            (next, names) = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
            keys.extend(names.iter().filter_map(|name| entry::key_of(name)));
            if next == 0 || !keys.is_empty() || Instant::now() + self.limit / 2 > deadline {
                break;
            }
        }
        if keys.is_empty() {
            // An empty page must come with proof too that it is our store which has nothing.
            self.read(bucket, &[]).await?;
        }
        let cursor = match next {
            0 if at + 1 < parts.len() => Some((server + 1) << SERVER_SHIFT),
            0 => None,
            next if next >> SERVER_SHIFT == 0 => Some(server << SERVER_SHIFT | next),
            _ => return Err(StoreError::StoreFailed.into()),
        };
        Ok(Page { revocations: self.stored(&keys).await?, cursor: cursor.map(|cursor| cursor.to_string()) })
    }

    /// Whether checks can be answered at all, as far as is known without asking.
    pub fn standing(&self) -> Result<(), StoreError> {
        self.kept.routes().standing()
    }

    /// Whether one of these lies where it may be evicted, or by now on a replica.
    pub fn may_forget(&self, buckets: &[Bucket]) -> bool {
        let routes = self.kept.routes();
        buckets.iter().any(|bucket| routes.fit(*bucket) == Err(StoreError::StoreUnsafe))
    }

    /// One reply for each of `asks`, all of whose names are of `bucket`.
    pub async fn read(&self, bucket: Bucket, asks: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut routes = self.kept.routes();
        loop {
            let member = routes.fit(bucket)?;
            let member = routes.members.get(member).ok_or(StoreError::StoreFailed)?;
            let mut all = pipeline();
            for ask in asks {
                all.add_command(ask.clone());
            }
            // After the others: what a flush took from them, it took from here too.
            all.cmd("GET").arg(bucket.sentinel());
            let replies = self.ask(&member.wire, &all, deadline).await?;
            if replies.iter().any(|reply| reply.as_ref().is_err_and(is_about_slots)) {
                let left = deadline.saturating_duration_since(Instant::now());
                routes = self.kept.newer(routes.number, left).await.ok_or(StoreError::StoreFailed)?;
                continue;
            }
            let values: Result<Vec<Value>, RedisError> = replies.into_iter().collect();
            let mut values = values.map_err(|error| {
                tracing::warn!(code = error.code(), "Redis refused a read");
                StoreError::StoreFailed
            })?;
            let sentinel = values.pop().ok_or(StoreError::StoreFailed)?;
            let sentinel: Option<Vec<u8>> = redis::from_redis_value(sentinel).map_err(|_| StoreError::StoreFailed)?;
            self.judge(&member.wire, bucket, sentinel.as_deref())?;
            return Ok(values);
        }
    }

    /// Those of `keys` that are there.
    async fn stored(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        let mut of: BTreeMap<Bucket, Vec<RevocationKey>> = BTreeMap::new();
        for key in keys {
            of.entry(Bucket::of(key.0)).or_default().push(*key);
        }
        let reading = of.into_iter().map(async |(bucket, keys)| {
            let asks = keys.iter().flat_map(|key| {
                let name = entry::name(*key);
                [redis::cmd("GET").arg(&name).clone(), redis::cmd("PTTL").arg(&name).clone()]
            });
            let asks: Vec<_> = asks.collect();
            let mut values = self.read(bucket, &asks).await?.into_iter();
            let mut stored = Vec::with_capacity(keys.len());
            for key in keys {
                let (Some(value), Some(pttl)) = (values.next(), values.next()) else {
                    return Err(StoreError::StoreFailed);
                };
                let value: Option<Vec<u8>> = redis::from_redis_value(value).map_err(|_| StoreError::StoreFailed)?;
                let pttl: i64 = redis::from_redis_value(pttl).map_err(|_| StoreError::StoreFailed)?;
                let Some(value) = value else { continue };
                let entry = Entry::parse(&value);
                stored.push(StoredRevocation {
                    key,
                    answer: entry.map(|entry| entry.ending.into()),
                    sealed: entry.map(|entry| entry.sealed.to_vec()).unwrap_or_default(),
                    expires_in: u64::try_from(pttl).ok().map(Duration::from_millis),
                });
            }
            Ok(stored)
        });
        Ok(try_join_all(reading).await?.into_iter().flatten().collect())
    }

    async fn ask(
        &self,
        wire: &Wire,
        asks: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, RedisError>>, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        wire.ask(asks, left).await.map_err(|Failure { trouble, why }| {
            tracing::debug!(trouble = trouble.name(), why, "no answer from Redis");
            // The connection was left: a late reply can reach nobody. The keeper makes another.
            self.kept.wake.notify_one();
            trouble
        })
    }

    /// Whether what came with `sentinel` over `wire` counts.
    fn judge(&self, wire: &Arc<Wire>, bucket: Bucket, sentinel: Option<&[u8]>) -> Result<(), StoreError> {
        let routes = self.kept.routes();
        if !routes.is_still(bucket, wire) {
            // It may have been replaced while it answered.
            return Err(routes.fit(bucket).err().unwrap_or(StoreError::StoreSlow));
        }
        match self.pin.takes(Sentinel::parse(sentinel)) {
            true => Ok(()),
            false => Err(StoreError::StoreChanged),
        }
    }
}

/// The keys of one command, whose sentinel is that of `bucket`, each with its place in the question.
struct Part {
    bucket: Bucket,
    keys: Vec<(usize, RevocationKey)>,
}

/// What to ask each server that has some of `keys`. One command for a bucket and not two: no flush can come between the
/// sentinel and the answers. MGET shows an entry of another type than string as absent, but who can write such a thing
/// can delete ours as well.
fn split(routes: &Routes, keys: &[RevocationKey]) -> Result<BTreeMap<usize, Vec<Part>>, StoreError> {
    let mut parts: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
    let mut add = |part: Part| {
        parts.entry(routes.fit(part.bucket)?).or_default().push(part);
        Ok::<_, StoreError>(())
    };
    if keys.is_empty() {
        // What nobody asks about must be there all the same.
        routes.standing()?;
        for bucket in routes.parts()?.iter().filter_map(|(_, buckets)| buckets.first().copied()) {
            add(Part { bucket, keys: Vec::new() })?;
        }
    } else if routes.one_keyspace {
        add(Part { bucket: Bucket::FIRST, keys: keys.iter().copied().enumerate().collect() })?;
    } else {
        let bucket_of = |(_, key): &(usize, RevocationKey)| Bucket::of(key.0);
        let mut asked: Vec<_> = keys.iter().copied().enumerate().collect();
        asked.sort_unstable_by_key(bucket_of);
        for keys in asked.chunk_by(|one, other| bucket_of(one) == bucket_of(other)) {
            let Some(bucket) = keys.first().map(bucket_of) else { continue };
            add(Part { bucket, keys: keys.to_vec() })?;
        }
    }
    Ok(parts)
}

/// A string as Redis told it, or that there is none.
fn text(value: &Value) -> Result<Option<&[u8]>, StoreError> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(text) => Ok(Some(text)),
        _ => Err(StoreError::StoreFailed),
    }
}

fn answer(value: &Value) -> Result<Answer, StoreError> {
    match text(value)? {
        None => Ok(Answer::Live),
        Some(value) => Entry::parse(value).map(|entry| entry.ending.into()).ok_or(StoreError::StoreFailed),
    }
}
