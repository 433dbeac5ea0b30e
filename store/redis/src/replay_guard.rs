//! The replay guard on Redis.
//!
//! ```text
//! portcullis:{<bucket>}:j:<digest>     p   claimed, for as long as the work can take
//!                                      d   done, until the token is too old to be accepted
//! ```
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, FromRedisValue, Value};
use store::{Claim, ReplayGuard, StoreError};

use crate::RedisStore;
use crate::contents::Name;
use crate::entry::Bucket;
use crate::mirror::Change;

const PENDING: &str = "p";
const DONE: &str = "d";

#[async_trait]
impl ReplayGuard for RedisStore {
    async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(name(digest)).arg(PENDING).arg("NX").arg("PX").arg(millis(pending));
        let claimed: Option<String> = self.write_mark(digest, set).await?;
        if claimed.is_some() {
            // The mirror answers no request, and the token may never come again. So the revocation does not wait until the
            // mirror has the claim; it is brought there later.
            let _ = self.mirror_mark(digest).await;
            return Ok(Claim::Claimed);
        }
        let mut get = redis::cmd("GET");
        get.arg(name(digest));
        let mark = self.read(Bucket::of_text(digest), &[get]).await?.pop().ok_or(StoreError::StoreFailed)?;
        let mark: Option<String> = parse(mark)?;
        // No mark: it was released in between, and the next attempt gets the claim.
        Ok(if mark.as_deref() == Some(DONE) { Claim::Done } else { Claim::Pending })
    }

    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(name(digest)).arg(DONE).arg("PX").arg(millis(ttl));
        self.write_mark::<()>(digest, set).await?;
        self.mirror_mark(digest).await
    }

    async fn release(&self, digest: &str) -> Result<(), StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(name(digest));
        self.write_mark::<u64>(digest, delete.clone()).await?;
        let Some(mirror) = &self.mirror else { return Ok(()) };
        mirror.remove(&[Name::of_mark(digest)], vec![delete]).await.map(|_| ()).map_err(|error| error.store_error())
    }
}

impl RedisStore {
    async fn mirror_mark(&self, digest: &str) -> Result<(), StoreError> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        mirror.copy(&[Name::of_mark(digest)], Change::Other).await.map(|_| ()).map_err(|error| error.store_error())
    }

    /// Does not wait for disks or replicas: no revocation depends on a mark.
    async fn write_mark<T: FromRedisValue>(&self, digest: &str, command: Cmd) -> Result<T, StoreError> {
        let written = self.quick_writer.run(Bucket::of_text(digest), command).await;
        parse(written.map_err(|error| error.store_error())?.0)
    }
}

fn parse<T: FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)
}

fn name(digest: &str) -> String {
    Name::of_mark(digest).text
}

/// At least 1, since Redis refuses a time to live of 0.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
