//! Which issuers filters ask about, and when an instance was last told of each.
//!
//! ```text
//! portcullis:{00}:issuers   sorted set: the kinds that are asked in two hexadecimal digits, a space, iss; by Unix seconds
//! ```
//! Filters tell again and again, so what is lost comes back, and nothing of it moves to another store.
use std::time::Duration;

use redis::Value;
use wire::Kinds;
use wire::check::{NamedIssuer, StoreError};

use store::WriteError;
use store::clock::unix_seconds;

use super::{Bucket, Store};

const SCRIPT: &str = include_str!("issuers.lua");

/// Issuers that are asked about now. Those that were told of longer ago than `kept` go, and the oldest beyond `most`.
#[derive(Debug)]
pub struct KnownIssuers<'i> {
    pub issuers: &'i [NamedIssuer],
    pub now: u64,
    pub kept: Duration,
    pub most: usize,
}

pub fn name() -> String {
    Bucket::FIRST.name("issuers")
}

fn read(member: &[u8]) -> Option<(String, Kinds)> {
    let (kinds, issuer) = std::str::from_utf8(member).ok()?.split_once(' ')?;
    Some((issuer.to_owned(), Kinds::from_byte(u8::from_str_radix(kinds, 16).ok()?)))
}

impl Store {
    /// Nothing waits for disks or replicas.
    ///
    /// # Errors
    /// As for [`Store::revoke`].
    pub async fn remember_issuers(&self, known: &KnownIssuers<'_>) -> Result<(), WriteError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(1).arg(name()).arg(known.now).arg(known.kept.as_secs()).arg(known.most);
        for NamedIssuer { issuer, kinds, .. } in known.issuers {
            eval.arg(format!("{:02x} {issuer}", kinds.byte()));
        }
        self.light.run(Bucket::FIRST, eval).await.map(|_| ())
    }

    /// Those that some instance was told of within `kept`.
    ///
    /// # Errors
    /// As for [`Store::check`].
    pub async fn known_issuers(&self, kept: Duration) -> Result<Vec<(String, Kinds)>, StoreError> {
        let oldest = unix_seconds().saturating_sub(kept.as_secs());
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(name()).arg(oldest).arg("+inf");
        let reply = self.read(Bucket::FIRST, &[ask]).await?.pop().unwrap_or(Value::Nil);
        let members: Vec<Vec<u8>> = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
        Ok(members.iter().filter_map(|member| read(member)).collect())
    }
}
