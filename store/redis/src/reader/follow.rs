//! Follows the logs: reads the head of each bucket, then the entries of those that changed. A bucket is read anew if its
//! log does not lead from the reader's place to the head.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use redis::{Cmd, Value};
use store::{LogEntry, Place, ShardNews, StoreError};

use super::Reader;
use super::check::text;
use super::moving::ReadError;
use crate::connection::{Connection, pipeline};
use crate::entry::Bucket;
use crate::log;
use crate::routes::{Routes, Server};
use crate::writer::Writer;

impl Reader {
    /// As [`store::RevocationLog::follow`]. `writer` begins the logs that are missing.
    pub async fn follow(&self, places: &[Option<Place>], writer: &Writer) -> Result<Vec<ShardNews>, StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut routes = self.topology.routes();
        loop {
            let moved = match self.try_follow(&routes, places, writer, deadline).await {
                Ok(news) => return Ok(news),
                Err(ReadError::Error(error)) => return Err(error),
                Err(ReadError::Moved(bucket)) => bucket,
            };
            tracing::debug!(bucket = %moved, "a bucket has moved");
            let left = deadline.saturating_duration_since(Instant::now());
            routes = self.topology.newer(routes.number, left).await.ok_or(StoreError::StoreFailed)?;
        }
    }

    async fn try_follow(
        &self,
        routes: &Routes,
        places: &[Option<Place>],
        writer: &Writer,
        deadline: Instant,
    ) -> Result<Vec<ShardNews>, ReadError> {
        let place_of = |bucket: Bucket| places.get(bucket.index()).copied().flatten();
        let following = by_server(routes)?.into_iter().map(async |(server, buckets)| {
            let (known, unknown): (Vec<_>, Vec<_>) =
                buckets.into_iter().partition(|bucket| place_of(*bucket).is_some());
            let mut news = self.changes(server, routes.one_keyspace, &known, place_of, deadline).await?;
            if !unknown.is_empty() {
                news.extend(self.read_anew(server, routes.one_keyspace, &unknown, writer).await?);
            }
            Ok::<_, ReadError>(news)
        });
        let mut all: Vec<_> = Bucket::all().map(|_| None).collect();
        for (bucket, news) in try_join_all(following).await?.into_iter().flatten() {
            *all.get_mut(bucket.index()).ok_or(StoreError::StoreFailed)? = Some(news);
        }
        Ok(all.into_iter().collect::<Option<_>>().ok_or(StoreError::StoreFailed)?)
    }

    /// What changed in `buckets`, whose places are known.
    async fn changes(
        &self,
        server: &Server,
        one_keyspace: bool,
        buckets: &[Bucket],
        place_of: impl Fn(Bucket) -> Option<Place>,
        deadline: Instant,
    ) -> Result<Vec<(Bucket, ShardNews)>, ReadError> {
        let heads = self.heads(&server.connection, one_keyspace, buckets, deadline).await?;
        let mut news = Vec::with_capacity(buckets.len());
        let mut changed = Vec::new();
        for (bucket, head) in heads {
            match (place_of(bucket), head) {
                (Some(place), Some(head)) if place == head => news.push((bucket, ShardNews::Nothing)),
                (Some(place), Some(head)) if place.sequence < head.sequence => changed.push((bucket, place, head)),
                _ => news.push((bucket, ShardNews::Gap)),
            }
        }
        if changed.is_empty() {
            return Ok(news);
        }
        let range = |bucket: &Bucket, place: &Place| {
            // It begins with the entry that the reader has, which proves that the past is the same.
            redis::cmd("XRANGE").arg(bucket.log()).arg(place.sequence).arg("+").clone()
        };
        let mut asks = pipeline();
        for (bucket, place, _) in &changed {
            asks.add_command(range(bucket, place));
        }
        let replies = self.ask(&server.connection, &asks, deadline).await?;
        for ((bucket, place, head), reply) in changed.into_iter().zip(replies) {
            let reply = match reply {
                Ok(reply) => reply,
                // A name of another type.
                Err(error) if error.code() == Some("WRONGTYPE") => Value::Array(Vec::new()),
                Err(error) => {
                    let asks = [range(&bucket, &place)];
                    let mut values = self.read_moving(&server.connection, bucket, &asks, &error, deadline).await?;
                    values.pop().ok_or(StoreError::StoreFailed)?
                }
            };
            self.is_still(&server.connection, bucket)?;
            news.push((bucket, log::entries(reply).map_or(ShardNews::Gap, |entries| between(entries, place, head))));
        }
        Ok(news)
    }

    /// The head of each of `buckets`, from a store that proved to be ours.
    pub async fn heads(
        &self,
        connection: &Arc<Connection>,
        one_keyspace: bool,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<(Bucket, Option<Place>)>, ReadError> {
        let parts: Vec<&[Bucket]> = if one_keyspace { vec![buckets] } else { buckets.chunks(1).collect() };
        let mut asks = pipeline();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let sentinel = if one_keyspace { Some(&Bucket::FIRST) } else { part.first() };
            let mut ask = Cmd::with_capacity(part.len() + 2, 32 * (part.len() + 2));
            ask.arg("MGET");
            for name in sentinel.map(|bucket| bucket.sentinel()).into_iter().chain(part.iter().map(|it| it.head())) {
                ask.arg(name);
            }
            asks.add_command(ask);
        }
        if buckets.is_empty() {
            return Ok(Vec::new());
        }
        let mut heads = Vec::with_capacity(buckets.len());
        for (part, reply) in parts.into_iter().zip(self.ask(connection, &asks, deadline).await?) {
            let Some(first) = part.first().copied() else { continue };
            let values = match reply {
                Ok(Value::Array(values)) => values,
                Ok(_) => return Err(StoreError::StoreFailed.into()),
                Err(error) => {
                    // The sentinel is read last, so that an earlier loss is noticed.
                    let names = part.iter().map(|bucket| bucket.head()).chain([first.sentinel()]);
                    let asks: Vec<_> = names.map(|name| redis::cmd("GET").arg(name).clone()).collect();
                    let mut values = self.read_moving(connection, first, &asks, &error, deadline).await?;
                    values.rotate_right(1);
                    values
                }
            };
            let Some((sentinel, values)) = values.split_first() else { return Err(StoreError::StoreFailed.into()) };
            if values.len() != part.len() {
                return Err(StoreError::StoreFailed.into());
            }
            self.judge(connection, first, text(sentinel)?)?;
            for (bucket, value) in part.iter().zip(values) {
                self.is_still(connection, *bucket)?;
                heads.push((*bucket, log::head(text(value)?)));
            }
        }
        match heads.len() == buckets.len() {
            true => Ok(heads),
            false => Err(StoreError::StoreFailed.into()),
        }
    }

    /// Whether what `connection` just said about `bucket` counts.
    pub fn is_still(&self, connection: &Arc<Connection>, bucket: Bucket) -> Result<(), StoreError> {
        let routes = self.topology.routes();
        routes.usable(bucket)?;
        if routes.is_still(bucket, connection) { Ok(()) } else { Err(StoreError::StoreSlow) }
    }
}

/// The buckets of each server, if all buckets can be read.
fn by_server(routes: &Routes) -> Result<Vec<(&Server, Vec<Bucket>)>, StoreError> {
    let mut servers: BTreeMap<usize, Vec<Bucket>> = BTreeMap::new();
    for bucket in Bucket::all() {
        servers.entry(routes.usable(bucket)?).or_default().push(bucket);
    }
    let with = |(server, buckets)| routes.servers.get(server).map(|server| (server, buckets));
    servers.into_iter().map(with).collect::<Option<_>>().ok_or(StoreError::StoreFailed)
}

/// The entries after `place`, if they lead from there to at least `head`.
fn between(entries: Vec<LogEntry>, place: Place, head: Place) -> ShardNews {
    let is_next = |pair: &[LogEntry]| match pair {
        [one, next] => next.place.sequence == one.place.sequence.saturating_add(1),
        _ => false,
    };
    let leads = entries.first().is_some_and(|first| first.place == place)
        && entries.windows(2).all(is_next)
        && entries.iter().any(|entry| entry.place == head);
    match leads {
        true => ShardNews::Entries(entries.into_iter().skip(1).collect()),
        false => ShardNews::Gap,
    }
}

#[cfg(test)]
mod tests {
    use store::Change;

    use super::*;

    fn place(sequence: u64, chain: u8) -> Place {
        Place { sequence, chain: [chain; 8] }
    }

    #[test]
    fn entries_must_lead_from_the_place_to_the_head() {
        let log = |places: &[(u64, u8)]| {
            let entry =
                |(sequence, chain): &(u64, u8)| LogEntry { place: place(*sequence, *chain), change: Change::Begun };
            places.iter().map(entry).collect::<Vec<_>>()
        };
        let news = |entries: &[(u64, u8)]| between(log(entries), place(5, 5), place(7, 7));
        assert_eq!(news(&[(5, 5), (6, 6), (7, 7)]), ShardNews::Entries(log(&[(6, 6), (7, 7)])));
        assert_eq!(news(&[(5, 5), (6, 6), (7, 7), (8, 8)]), ShardNews::Entries(log(&[(6, 6), (7, 7), (8, 8)])));
        for gap in [
            &[][..],
            &[(6, 6), (7, 7)],
            &[(5, 9), (6, 6), (7, 7)],
            &[(5, 5), (7, 7)],
            &[(5, 5), (6, 6)],
            &[(5, 5), (6, 6), (7, 9)],
        ] {
            assert_eq!(news(gap), ShardNews::Gap, "{gap:?}");
        }
    }
}
