//! From where sessions were used, on Redis.
//!
//! ```text
//! portcullis:{<bucket>}:w:<session>     the record, as it was encrypted
//! ```
//! Records are not copied to another store: each begins anew with the next sighting.
use std::time::Duration;

use async_trait::async_trait;
use redis::FromRedisValue;
use redis::Value;
use store::{SightingStore, StoreError, WriteError};
use wire::RevocationKey;

use crate::RedisStore;
use crate::contents::Name;
use crate::entry::Bucket;

const REPLACE: &str = include_str!("lua/sightings.lua");

#[async_trait]
impl SightingStore for RedisStore {
    async fn sightings(&self, session: RevocationKey) -> Result<Option<Vec<u8>>, StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(Name::of_sightings(session));
        let record = self.read(Bucket::of(session.0), &[get]).await?.pop().ok_or(StoreError::StoreFailed)?;
        parse(record)
    }

    async fn replace_sightings(
        &self,
        session: RevocationKey,
        earlier: Option<&[u8]>,
        record: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, WriteError> {
        let mut eval = redis::cmd("EVAL");
        // Redis refuses a time to live of 0.
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        eval.arg(REPLACE).arg(1).arg(Name::of_sightings(session)).arg(record).arg(millis);
        eval.arg(i32::from(earlier.is_some())).arg(earlier.unwrap_or_default());
        let (reply, _) = self.quick_writer.run(Bucket::of(session.0), eval).await?;
        parse(reply).map_err(WriteError::Unknown)
    }
}

fn parse<T: FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)
}
