//! Entries as operators see them: one, or page by page.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use store::{ListError, Page, StoreError, StoredRevocation};
use wire::RevocationKey;

use super::Reader;
use crate::connection::pipeline;
use crate::entry::{self, Bucket, Entry, PATTERN};

/// A cursor has the number of the server above this bit, and SCAN's own cursor below.
const SERVER_SHIFT: u32 = 48;

impl Reader {
    pub async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        Ok(self.stored(&[key]).await?.pop())
    }

    pub async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let cursor: u64 = cursor.map_or(Ok(0), |cursor| cursor.parse().map_err(|_| ListError::InvalidCursor))?;
        let (number, cursor) = (cursor >> SERVER_SHIFT, cursor & ((1 << SERVER_SHIFT) - 1));
        let routes = self.topology.routes();
        let parts = routes.parts()?;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let Some((server, buckets)) = parts.get(at) else {
            return Ok(Page { revocations: Vec::new(), cursor: None });
        };
        let bucket = buckets.first().copied().ok_or(StoreError::StoreFailed)?;
        routes.usable(bucket)?;
        let deadline = Instant::now() + self.limit;
        let (mut next, mut keys) = (cursor, Vec::new());
        // Most scanned names may be of other kinds, and an empty page is of no use to the caller.
        loop {
            let mut asks = pipeline();
            asks.cmd("SCAN").arg(next).arg("MATCH").arg(PATTERN).arg("COUNT").arg(limit);
            let reply = self.ask(&server.connection, &asks, deadline).await?.pop();
            let reply = reply.and_then(Result::ok).ok_or(StoreError::StoreFailed)?;
            let names: Vec<Vec<u8>>;
            (next, names) = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
            keys.extend(names.iter().filter_map(|name| entry::key_of(name)));
            if next == 0 || !keys.is_empty() || Instant::now() + self.limit / 2 > deadline {
                break;
            }
        }
        if keys.is_empty() {
            // An empty page needs proof too that our store answered.
            self.read(bucket, &[]).await?;
        }
        let cursor = match next {
            0 if at + 1 < parts.len() => Some((number + 1) << SERVER_SHIFT),
            0 => None,
            next if next >> SERVER_SHIFT == 0 => Some(number << SERVER_SHIFT | next),
            _ => return Err(StoreError::StoreFailed.into()),
        };
        Ok(Page { revocations: self.stored(&keys).await?, cursor: cursor.map(|cursor| cursor.to_string()) })
    }

    /// The entries of those of `keys` that have one.
    pub async fn stored(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
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
}
