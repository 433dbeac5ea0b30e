//! The issuers that filters ask about, on Redis.
//!
//! ```text
//! portcullis:{00}:issuers   sorted set, by Unix seconds of the last announcement. A member is the kinds that are asked
//!                           about in two hexadecimal digits, a space, and the issuer.
//! ```
//! It is not copied to another store: filters announce their issuers again and again.
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use store::clock::unix_seconds;
use store::{IssuerBounds, IssuerRegistry, KnownIssuer, StoreError, WriteError};
use wire::Kinds;

use crate::RedisStore;
use crate::contents::Name;
use crate::entry::Bucket;

const SCRIPT: &str = include_str!("lua/issuers.lua");

#[async_trait]
impl IssuerRegistry for RedisStore {
    async fn remember(&self, issuers: &[KnownIssuer], bounds: IssuerBounds) -> Result<(), WriteError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(1).arg(Name::of_issuers());
        eval.arg(unix_seconds()).arg(bounds.max_age.as_secs()).arg(bounds.max_entries);
        for KnownIssuer { issuer, kinds } in issuers {
            eval.arg(format!("{:02x} {issuer}", kinds.byte()));
        }
        self.quick_writer.run(Bucket::FIRST, eval).await.map(|_| ())
    }

    async fn known(&self, max_age: Duration) -> Result<Vec<KnownIssuer>, StoreError> {
        let oldest = unix_seconds().saturating_sub(max_age.as_secs());
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range.arg(Name::of_issuers()).arg(oldest).arg("+inf");
        let reply = self.read(Bucket::FIRST, &[range]).await?.pop().unwrap_or(Value::Nil);
        let members: Vec<Vec<u8>> = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
        Ok(members.iter().filter_map(|member| parse(member)).collect())
    }
}

fn parse(member: &[u8]) -> Option<KnownIssuer> {
    let (kinds, issuer) = std::str::from_utf8(member).ok()?.split_once(' ')?;
    let kinds = Kinds::from_byte(u8::from_str_radix(kinds, 16).ok()?);
    Some(KnownIssuer { issuer: issuer.to_owned(), kinds })
}
