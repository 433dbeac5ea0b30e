//! Checks: splits the keys by server. Each server needs one round trip, all at the same time.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use redis::{Cmd, RedisError, Value};
use store::StoreError;
use wire::{Answer, RevocationKey};

use super::Reader;
use super::moving::ReadError;
use crate::connection::{Connection, pipeline};
use crate::entry::{self, Bucket, Entry};
use crate::routes::Routes;

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
        let mut routes = self.topology.routes();
        loop {
            let moved = match self.try_answers(&routes, keys, deadline).await {
                Ok(answers) => return Ok(answers),
                Err(ReadError::Error(error)) => return Err(error),
                Err(ReadError::Moved(bucket)) => bucket,
            };
            tracing::debug!(bucket = %moved, "a bucket has moved");
            let left = deadline.saturating_duration_since(Instant::now());
            routes = self.topology.newer(routes.number, left).await.ok_or(StoreError::StoreFailed)?;
        }
    }

    async fn try_answers(
        &self,
        routes: &Routes,
        keys: &[RevocationKey],
        deadline: Instant,
    ) -> Result<Vec<Answer>, ReadError> {
        let asking = split(routes, keys)?.into_iter().map(async |(server, parts)| {
            let server = routes.servers.get(server).ok_or(StoreError::StoreFailed)?;
            self.ask_parts(&server.connection, parts, deadline).await
        });
        let mut answers = vec![None; keys.len()];
        for (index, answer) in try_join_all(asking).await?.into_iter().flatten() {
            *answers.get_mut(index).ok_or(StoreError::StoreFailed)? = Some(answer);
        }
        Ok(answers.into_iter().collect::<Option<_>>().ok_or(StoreError::StoreFailed)?)
    }

    /// The answers for the keys of `parts`, each with its index in the check.
    async fn ask_parts(
        &self,
        connection: &Arc<Connection>,
        parts: Vec<Part>,
        deadline: Instant,
    ) -> Result<Vec<(usize, Answer)>, ReadError> {
        let mut asks = pipeline();
        for part in &parts {
            let mut ask = Cmd::with_capacity(part.keys.len() + 2, 64 + part.keys.len() * entry::NAME_BYTES);
            ask.arg("MGET").arg(part.bucket.sentinel());
            for (_, key) in &part.keys {
                ask.arg(entry::name(*key));
            }
            asks.add_command(ask);
        }
        let replies = self.ask(connection, &asks, deadline).await?;
        if replies.len() != parts.len() {
            return Err(StoreError::StoreFailed.into());
        }
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.keys.len()).sum());
        for (part, reply) in parts.into_iter().zip(replies) {
            let values = match reply {
                Ok(Value::Array(values)) => values,
                Ok(_) => return Err(StoreError::StoreFailed.into()),
                Err(error) => self.after_refusal(connection, &part, &error, deadline).await?,
            };
            let Some((sentinel, values)) = values.split_first() else { return Err(StoreError::StoreFailed.into()) };
            self.judge(connection, part.bucket, text(sentinel)?)?;
            if values.len() != part.keys.len() {
                return Err(StoreError::StoreFailed.into());
            }
            for ((index, _), value) in part.keys.iter().zip(values) {
                all.push((*index, answer(value)?));
            }
        }
        Ok(all)
    }

    /// Handles a refused command. Returns the values of the sentinel and the keys, if they could be read. The sentinel
    /// is read last, so that an earlier loss is noticed.
    async fn after_refusal(
        &self,
        connection: &Arc<Connection>,
        part: &Part,
        error: &RedisError,
        deadline: Instant,
    ) -> Result<Vec<Value>, ReadError> {
        let names = part.keys.iter().map(|(_, key)| entry::name(*key)).chain([part.bucket.sentinel()]);
        let asks: Vec<_> = names.map(|name| redis::cmd("GET").arg(name).clone()).collect();
        let mut values = self.read_moving(connection, part.bucket, &asks, error, deadline).await?;
        values.rotate_right(1);
        Ok(values)
    }
}

/// The keys of one command, whose sentinel is that of `bucket`, each with its index in the check.
struct Part {
    bucket: Bucket,
    keys: Vec<(usize, RevocationKey)>,
}

/// The commands for each server that has some of `keys`.
///
/// One command for a bucket, not two: no flush can come between the sentinel and the answers. MGET reports an entry of
/// another type as absent. A client that can write such an entry can also delete ours.
fn split(routes: &Routes, keys: &[RevocationKey]) -> Result<BTreeMap<usize, Vec<Part>>, StoreError> {
    let mut parts: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
    let mut add = |part: Part| {
        parts.entry(routes.usable(part.bucket)?).or_default().push(part);
        Ok::<_, StoreError>(())
    };
    if keys.is_empty() {
        // Without keys, every server must answer.
        routes.health()?;
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

/// A string, or `None` for nil.
pub fn text(value: &Value) -> Result<Option<&[u8]>, StoreError> {
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
