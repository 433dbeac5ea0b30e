//! Which issuers filters ask about, and when an instance was last told of each.
//!
//! ```text
//! portcullis:{00}:issuers   sorted set: iss, by Unix seconds
//! ```
//! Filters tell again and again, so what is lost comes back, and nothing of it moves to another store.
use std::time::Duration;

use redis::Value;
use wire::check::Trouble;

use super::{Bucket, Store, WriteError};
use crate::clock::unix_seconds;

const SCRIPT: &str = include_str!("issuers.lua");

/// Issuers that are asked about now. Those that were told of longer ago than `kept` go, and the oldest beyond `most`.
#[derive(Debug)]
pub struct KnownIssuers<'i> {
    pub issuers: &'i [String],
    pub now: u64,
    pub kept: Duration,
    pub most: usize,
}

pub fn name() -> String {
    Bucket::FIRST.name("issuers")
}

impl Store {
    /// Nothing waits for disks or replicas.
    ///
    /// # Errors
    /// As for [`Store::revoke`].
    pub async fn remember_issuers(&self, known: &KnownIssuers<'_>) -> Result<(), WriteError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(1).arg(name()).arg(known.now).arg(known.kept.as_secs()).arg(known.most).arg(known.issuers);
        self.light.run(Bucket::FIRST, eval).await.map(|_| ())
    }

    /// Those that some instance was told of within `kept`.
    ///
    /// # Errors
    /// As for [`Store::check`].
    pub async fn known_issuers(&self, kept: Duration) -> Result<Vec<String>, Trouble> {
        let oldest = unix_seconds().saturating_sub(kept.as_secs());
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(name()).arg(oldest).arg("+inf");
        let reply = self.read(Bucket::FIRST, &[ask]).await?.pop().unwrap_or(Value::Nil);
        let issuers: Vec<Vec<u8>> = redis::from_redis_value(reply).map_err(|_| Trouble::StoreFailed)?;
        Ok(issuers.into_iter().filter_map(|issuer| String::from_utf8(issuer).ok()).collect())
    }
}
