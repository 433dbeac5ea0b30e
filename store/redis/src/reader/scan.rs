//! Reads buckets anew: every revocation in them, by SCAN, since the revocations themselves are the truth.
//!
//! SCAN finds each name that is there from its beginning to its end. The place is the head before it began. So everything
//! before the place is found, and everything after it is in the log.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisError, Value};
use store::{LogEntry, Place, ShardNews, StoreError};
use wire::RevocationKey;

use super::Reader;
use super::moving::ReadError;
use crate::connection::{Connection, is_about_slots, pipeline};
use crate::entry::{self, Bucket};
use crate::log;
use crate::routes::Server;
use crate::writer::Writer;

/// Names that SCAN visits at once.
const PAGE: usize = 2000;
/// Entries of the log that are read with a bucket.
const RECENT: usize = 256;

type Found = BTreeMap<Bucket, Vec<(RevocationKey, Option<Duration>)>>;

impl Reader {
    /// All of `buckets`, which `server` has. The server must have them all the time.
    pub async fn read_anew(
        &self,
        server: &Server,
        one_keyspace: bool,
        buckets: &[Bucket],
        writer: &Writer,
    ) -> Result<Vec<(Bucket, ShardNews)>, ReadError> {
        let connection = &server.connection;
        let before = self.slots(connection, one_keyspace).await?;
        let places = self.begin(connection, one_keyspace, buckets, writer).await?;
        let mut found = self.scan(connection, &places).await?;
        let mut recent = self.recent(connection, &places).await?;
        // The sentinel is there still, so nothing was flushed meanwhile.
        self.heads(connection, one_keyspace, buckets, self.deadline()).await?;
        if self.slots(connection, one_keyspace).await? != before {
            return Err(StoreError::StoreFailed.into());
        }
        let whole = |(bucket, place)| {
            let mut revocations = found.remove(&bucket).unwrap_or_default();
            // SCAN may find a name twice.
            revocations.sort_unstable_by_key(|(key, _)| *key);
            revocations.dedup_by_key(|(key, _)| *key);
            let recent = recent.remove(&bucket).unwrap_or_default();
            (bucket, ShardNews::Whole { revocations, place, recent })
        };
        Ok(places.into_iter().map(whole).collect())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// The heads of `buckets`. The logs of those that have none are begun.
    async fn begin(
        &self,
        connection: &Arc<Connection>,
        one_keyspace: bool,
        buckets: &[Bucket],
        writer: &Writer,
    ) -> Result<BTreeMap<Bucket, Place>, ReadError> {
        let heads = self.heads(connection, one_keyspace, buckets, self.deadline()).await?;
        let missing: Vec<_> = heads.iter().filter(|(_, head)| head.is_none()).map(|(bucket, _)| *bucket).collect();
        let mut places: BTreeMap<_, _> = heads.into_iter().filter_map(|(bucket, head)| Some((bucket, head?))).collect();
        if !missing.is_empty() {
            let commands = missing.iter().map(|bucket| (*bucket, log::begin(*bucket))).collect();
            writer.run_all(commands).await.map_err(|error| error.store_error())?;
            for (bucket, head) in self.heads(connection, one_keyspace, &missing, self.deadline()).await? {
                places.insert(bucket, head.ok_or(StoreError::StoreFailed)?);
            }
        }
        Ok(places)
    }

    async fn scan(&self, connection: &Arc<Connection>, wanted: &BTreeMap<Bucket, Place>) -> Result<Found, ReadError> {
        let pattern = match wanted.first_key_value() {
            Some((bucket, _)) if wanted.len() == 1 => bucket.name("r:*"),
            _ => entry::PATTERN.to_owned(),
        };
        let mut found = Found::new();
        let (mut cursor, mut keys) = (Some(0_u64), Vec::new());
        while cursor.is_some() || !keys.is_empty() {
            // The times to live of one page are asked for together with the next page.
            let mut asks = pipeline();
            for key in &keys {
                asks.cmd("PTTL").arg(entry::name(*key));
            }
            if let Some(cursor) = cursor {
                asks.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE);
            }
            let mut replies = self.ask(connection, &asks, self.deadline()).await?.into_iter();
            for (key, reply) in keys.drain(..).zip(&mut replies) {
                let left: i64 = value(Some(reply), Bucket::of(key.0))?;
                // -1: no expiry; -2: it has expired, or it was lifted.
                if left != -2 {
                    let expires_in = u64::try_from(left).ok().map(Duration::from_millis);
                    found.entry(Bucket::of(key.0)).or_default().push((key, expires_in));
                }
            }
            if cursor.is_some() {
                let (next, names): (u64, Vec<Vec<u8>>) = value(replies.next(), Bucket::FIRST)?;
                cursor = (next != 0).then_some(next);
                let of_wanted = |key: &RevocationKey| wanted.contains_key(&Bucket::of(key.0));
                keys.extend(names.iter().filter_map(|name| entry::key_of(name)).filter(of_wanted));
            }
            // Stop early if the server is no longer the one.
            if let Some((bucket, _)) = wanted.first_key_value() {
                self.is_still(connection, *bucket)?;
            }
        }
        Ok(found)
    }

    /// The last entries of the logs up to `places`. None of a log that does not have its place.
    async fn recent(
        &self,
        connection: &Arc<Connection>,
        places: &BTreeMap<Bucket, Place>,
    ) -> Result<BTreeMap<Bucket, Vec<LogEntry>>, ReadError> {
        let mut asks = pipeline();
        for (bucket, place) in places {
            asks.cmd("XREVRANGE").arg(bucket.log()).arg(place.sequence).arg("-").arg("COUNT").arg(RECENT);
        }
        let replies = self.ask(connection, &asks, self.deadline()).await?;
        let recent = |(bucket, place): (&Bucket, &Place), reply: Result<Value, RedisError>| {
            let mut entries = log::entries(reply.ok()?)?;
            entries.reverse();
            (entries.last()?.place == *place).then_some((*bucket, entries))
        };
        Ok(places.iter().zip(replies).filter_map(|(place, reply)| recent(place, reply)).collect())
    }

    /// Which slots the server has by its own word. Of a slot that migrates, some names are on another server.
    async fn slots(&self, connection: &Arc<Connection>, one_keyspace: bool) -> Result<String, ReadError> {
        if one_keyspace {
            return Ok(String::new());
        }
        let mut asks = pipeline();
        asks.cmd("CLUSTER").arg("NODES");
        let nodes: String = value(self.ask(connection, &asks, self.deadline()).await?.pop(), Bucket::FIRST)?;
        // `<id> <address> myself,<flags> <primary> <ping> <pong> <epoch> <link> <slot>…`; in brackets what migrates. The
        // epoch changes when a slot arrives.
        let own = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")));
        let slots: String = own.ok_or(StoreError::StoreFailed)?.split(' ').skip(6).collect::<Vec<_>>().join(" ");
        match slots.contains('[') {
            true => Err(StoreError::StoreFailed.into()),
            false => Ok(slots),
        }
    }
}

fn value<T: FromRedisValue>(reply: Option<Result<Value, RedisError>>, bucket: Bucket) -> Result<T, ReadError> {
    let reply = reply.ok_or(StoreError::StoreFailed)?.map_err(|error| match is_about_slots(&error) {
        true => ReadError::Moved(bucket),
        false => StoreError::StoreFailed.into(),
    })?;
    Ok(redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?)
}
