//! How Redis confirms that writes are on disk and on replicas (docs/decisions/0022).
use std::collections::BTreeMap;

use redis::{RedisError, Value};
use store::{Durability, WriteError};

use super::WriteTerms;

/// How a server confirms that a write is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// WAITAOF tells of disk and replicas, in one reply.
    WaitAof,
    /// The reply itself comes after fsync if the server says `appendonly yes` and `appendfsync always`.
    Fsync,
    /// It is not waited for.
    None,
}

/// # Errors
/// [`WriteError::Unconfirmed`]: less than what `terms` ask for.
pub fn confirmed(
    terms: &WriteTerms,
    confirmation: Confirmation,
    mut replies: impl Iterator<Item = Result<Value, RedisError>>,
) -> Result<Durability, WriteError> {
    let mut next = || replies.next().and_then(Result::ok);
    let confirmed = match confirmation {
        Confirmation::WaitAof => {
            let counts = next().and_then(|reply| redis::from_redis_value::<(u64, u64)>(reply).ok());
            let (disks, replicas) = counts.unwrap_or_default();
            Durability { on_disk: disks >= 1, replicas }
        }
        Confirmation::Fsync => {
            let mut config = || {
                let config: BTreeMap<String, String> = redis::from_redis_value(next()?).ok()?;
                config.into_values().next()
            };
            let (appendonly, appendfsync) = (config(), config());
            let on_disk = appendonly.as_deref() == Some("yes") && appendfsync.as_deref() == Some("always");
            let replicas = next().and_then(|reply| redis::from_redis_value(reply).ok()).unwrap_or_default();
            Durability { on_disk, replicas }
        }
        Confirmation::None => return Ok(Durability::default()),
    };
    // WAITAOF can tell of the disk, so a missing disk is a failure there. An older Redis may not be able to tell.
    if !confirmed.on_disk && (terms.require_disk || confirmation == Confirmation::WaitAof) {
        return Err(WriteError::Unconfirmed("Redis did not confirm that it is on disk".into()));
    }
    let wanted = u64::from(terms.min_replicas);
    if confirmed.replicas < wanted {
        let replicas = confirmed.replicas;
        return Err(WriteError::Unconfirmed(format!("{replicas} of {wanted} replicas confirmed it")));
    }
    Ok(confirmed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::Allow;

    fn terms() -> WriteTerms {
        WriteTerms {
            redis_timeout: Duration::from_millis(200),
            confirm_timeout: Duration::from_secs(2),
            min_replicas: 0,
            require_disk: false,
            confirm: true,
            future_iat_tolerance_seconds: 1,
            allow: Allow::default(),
        }
    }

    fn counts(disks: i64, replicas: i64) -> Result<Value, RedisError> {
        Ok(Value::Array(vec![Value::Int(disks), Value::Int(replicas)]))
    }

    fn config(name: &str, value: &str) -> Result<Value, RedisError> {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Ok(Value::Array(vec![text(name), text(value)]))
    }

    fn refused() -> Result<Value, RedisError> {
        Err(RedisError::from((redis::ErrorKind::Client, "refused")))
    }

    fn by(
        terms: &WriteTerms,
        confirmation: Confirmation,
        replies: Vec<Result<Value, RedisError>>,
    ) -> Option<(bool, u64)> {
        confirmed(terms, confirmation, replies.into_iter())
            .ok()
            .map(|confirmed| (confirmed.on_disk, confirmed.replicas))
    }

    // Redis 7.2 and later. The tests against a real Redis may run against an older one.
    #[test]
    fn waitaof_must_count_the_disk_and_enough_replicas() {
        let two = WriteTerms { min_replicas: 2, ..terms() };
        assert_eq!(by(&terms(), Confirmation::WaitAof, vec![counts(1, 0)]), Some((true, 0)));
        assert_eq!(by(&terms(), Confirmation::WaitAof, vec![counts(0, 3)]), None);
        assert_eq!(by(&two, Confirmation::WaitAof, vec![counts(1, 1)]), None);
        assert_eq!(by(&two, Confirmation::WaitAof, vec![counts(1, 2)]), Some((true, 2)));
        assert_eq!(by(&terms(), Confirmation::WaitAof, vec![refused()]), None);
        assert_eq!(by(&terms(), Confirmation::WaitAof, vec![]), None);
    }

    #[test]
    fn before_waitaof_only_appendfsync_always_is_on_disk() {
        let strict = WriteTerms { require_disk: true, ..terms() };
        let yes = || config("appendonly", "yes");
        let always = || config("appendfsync", "always");
        assert_eq!(by(&strict, Confirmation::Fsync, vec![yes(), always()]), Some((true, 0)));
        assert_eq!(by(&strict, Confirmation::Fsync, vec![config("appendonly", "no"), always()]), None);
        assert_eq!(by(&strict, Confirmation::Fsync, vec![yes(), config("appendfsync", "everysec")]), None);
        assert_eq!(by(&strict, Confirmation::Fsync, vec![refused(), refused()]), None);
        assert_eq!(by(&terms(), Confirmation::Fsync, vec![refused(), refused()]), Some((false, 0)));
        let one = WriteTerms { min_replicas: 1, ..terms() };
        assert_eq!(by(&one, Confirmation::Fsync, vec![yes(), always(), Ok(Value::Int(0))]), None);
        assert_eq!(by(&one, Confirmation::Fsync, vec![refused(), refused(), Ok(Value::Int(1))]), Some((false, 1)));
    }
}
