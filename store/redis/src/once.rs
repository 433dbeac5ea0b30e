//! Marks of tokens that may be used once: claimed before the work, kept when it is done, given back when it failed. So
//! nothing is done twice, and what failed can be tried again.
//!
//! ```text
//! portcullis:{<bucket>}:j:<digest>     p   claimed: somebody is at it, for as long as that can take
//!                                      d   done, until the token is too old to be taken
//! ```
//! A mark lost to a failover lets a token be used again while it is young; no revocation depends on it.
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use wire::check::StoreError;

use super::also::Just;
use super::{Bucket, Name, Store};

const PENDING: &str = "p";
const DONE: &str = "d";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours: [`Store::keep`] or [`Store::give_back`] follows.
    Ours,
    /// Somebody is at it.
    Pending,
    Done,
}

impl Store {
    /// Of all who ask at once, one gets it.
    ///
    /// # Errors
    /// As for [`Store::check`].
    pub async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(name(digest)).arg(PENDING).arg("NX").arg("PX").arg(millis(pending));
        let ours: Option<String> = self.put(digest, set).await?;
        if ours.is_some() {
            // What the other store lacks of it is brought later. It answers nobody, so what the token ends is not to wait
            // for it: perhaps the token never comes again.
            let _ = self.bring_mark(digest).await;
            return Ok(Claim::Ours);
        }
        let mut get = redis::cmd("GET");
        get.arg(name(digest));
        let mut there = self.read(Bucket::of_text(digest), &[get]).await?;
        let there: Option<String> = read(there.pop().ok_or(StoreError::StoreFailed)?)?;
        // Gone in between: whoever had it gave it back, and the next attempt gets it.
        Ok(if there.as_deref() == Some(DONE) { Claim::Done } else { Claim::Pending })
    }

    /// # Errors
    /// As for [`Store::check`]. The claim then ends by itself.
    pub async fn keep(&self, digest: &str, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(name(digest)).arg(DONE).arg("PX").arg(millis(ttl));
        self.put::<()>(digest, set).await?;
        self.bring_mark(digest).await
    }

    /// # Errors
    /// As for [`Store::check`]. The claim then ends by itself.
    pub async fn give_back(&self, digest: &str) -> Result<(), StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(name(digest));
        self.put::<u64>(digest, delete.clone()).await?;
        let Some(also) = &self.also else { return Ok(()) };
        also.remove(&[Name::of_mark(digest)], vec![delete]).await.map(|_| ()).map_err(|error| error.store_error())
    }

    async fn bring_mark(&self, digest: &str) -> Result<(), StoreError> {
        let Some(also) = &self.also else { return Ok(()) };
        also.bring(&[Name::of_mark(digest)], Just::Changed).await.map(|_| ()).map_err(|error| error.store_error())
    }

    /// Nothing waits for disks or replicas: see above.
    async fn put<T: FromRedisValue>(&self, digest: &str, command: Cmd) -> Result<T, StoreError> {
        let put = self.light.run(Bucket::of_text(digest), command).await;
        read(put.map_err(|error| error.store_error())?.0)
    }
}

fn read<T: FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)
}

fn name(digest: &str) -> String {
    Name::of_mark(digest).text
}

/// At least 1: Redis refuses a life of 0.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
