//! Marks of tokens that may be used once: claimed before the work, kept when it is done, given back when it failed. So
//! nothing is done twice, and what failed can be tried again.
//!
//! ```text
//! portcullis:{<bucket>}:j:<digest>     p   claimed: somebody is at it, for as long as that can take
//!                                      d   done, until the token is too old to be taken
//! ```
//! A mark lost to a failover lets a token be used again while it is young; no revocation depends on it.
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::check::Trouble;

use super::{Bucket, Store, WriteError};

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
    pub async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, Trouble> {
        self.standing()?;
        let (bucket, name) = place(digest);
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(PENDING).arg("NX").arg("PX").arg(millis(pending));
        let (reply, _) = self.write(bucket, set).await.map_err(|error| trouble_of(&error))?;
        let ours: Option<String> = redis::from_redis_value(reply).map_err(|_| Trouble::StoreFailed)?;
        if ours.is_some() {
            return Ok(Claim::Ours);
        }
        let mut get = redis::cmd("GET");
        get.arg(&name);
        let reply = self.read(bucket, &[get]).await?.into_iter().next().ok_or(Trouble::StoreFailed)?;
        let there: Option<String> = redis::from_redis_value(reply).map_err(|_| Trouble::StoreFailed)?;
        // Gone in between: whoever had it gave it back, and the next attempt gets it.
        Ok(if there.as_deref() == Some(DONE) { Claim::Done } else { Claim::Pending })
    }

    /// # Errors
    /// As for [`Store::check`]. The claim then ends by itself.
    pub async fn keep(&self, digest: &str, ttl: Duration) -> Result<(), Trouble> {
        let (bucket, name) = place(digest);
        let mut set = redis::cmd("SET");
        set.arg(name).arg(DONE).arg("PX").arg(millis(ttl));
        self.write(bucket, set).await.map(|_| ()).map_err(|error| trouble_of(&error))
    }

    /// # Errors
    /// As for [`Store::check`]. The claim then ends by itself.
    pub async fn give_back(&self, digest: &str) -> Result<(), Trouble> {
        let (bucket, name) = place(digest);
        let mut delete = redis::cmd("DEL");
        delete.arg(name);
        self.write(bucket, delete).await.map(|_| ()).map_err(|error| trouble_of(&error))
    }
}

/// Its bucket is that of its first characters, which are as good as random.
fn place(digest: &str) -> (Bucket, String) {
    let mut start = [0; 16];
    URL_SAFE_NO_PAD.decode_slice(digest.get(..20).unwrap_or_default(), &mut start).unwrap_or_default();
    let bucket = Bucket::of(start);
    (bucket, bucket.name(format_args!("j:{digest}")))
}

fn trouble_of(error: &WriteError) -> Trouble {
    match error {
        WriteError::NotWritten(trouble) | WriteError::Unknown(trouble) => *trouble,
        WriteError::Unconfirmed(_) => Trouble::StoreUnsafe,
    }
}

/// At least 1: Redis refuses a life of 0.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
