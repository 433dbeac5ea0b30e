//! The audit log on Redis: one stream, `portcullis:{00}:audit`, whose entries have one field, `e`.
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use store::clock::unix_millis;
use store::{AuditBounds, AuditEntry, AuditFrom, AuditLog, StoreError, WriteError};

use crate::RedisStore;
use crate::contents::Name;

/// One XADD trims by age or by number. Every so many entries it trims by number.
const TRIM_BY_NUMBER_EVERY: u32 = 16;

#[async_trait]
impl AuditLog for RedisStore {
    async fn append(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError> {
        let name = Name::of_audit();
        let mut add = redis::cmd("XADD");
        add.arg(&name.text);
        match self.appended.fetch_add(1, Ordering::Relaxed) % TRIM_BY_NUMBER_EVERY {
            0 => add.arg("MAXLEN").arg("~").arg(bounds.max_entries),
            _ => add.arg("MINID").arg("~").arg(oldest(bounds.max_age)),
        };
        add.arg("*").arg("e").arg(sealed);
        self.write(&name, add).await.map(|_| ())
    }

    /// An entry that is too old stays in Redis until its whole node of the stream is, and another entry is added.
    async fn page(&self, from: AuditFrom, limit: usize, max_age: Duration) -> Result<Vec<AuditEntry>, StoreError> {
        let (name, oldest) = (Name::of_audit(), oldest(max_age));
        let mut range = match from {
            AuditFrom::After(_) => redis::cmd("XRANGE"),
            AuditFrom::Last => redis::cmd("XREVRANGE"),
        };
        range.arg(&name.text);
        match from {
            AuditFrom::After(after) if after.millis >= oldest => range.arg(format!("({after}")).arg("+"),
            AuditFrom::After(_) => range.arg(oldest).arg("+"),
            AuditFrom::Last => range.arg("+").arg(oldest),
        };
        range.arg("COUNT").arg(limit);
        let reply = self.read(name.bucket, &[range]).await?.pop().ok_or(StoreError::StoreFailed)?;
        let found: Vec<(String, Vec<Vec<u8>>)> = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
        let entry = |(id, fields): (String, Vec<Vec<u8>>)| {
            // Without a value it is none of ours, and is shown as one that cannot be decrypted.
            let sealed = fields.into_iter().nth(1).unwrap_or_default();
            Some(AuditEntry { id: id.parse().ok()?, sealed })
        };
        let entries: Option<Vec<_>> = found.into_iter().map(entry).collect();
        let mut entries = entries.ok_or(StoreError::StoreFailed)?;
        if from == AuditFrom::Last {
            entries.reverse();
        }
        Ok(entries)
    }
}

/// Unix milliseconds.
fn oldest(max_age: Duration) -> u64 {
    unix_millis().saturating_sub(u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX))
}
