//! The audit log: one partition, sorted by time. `d` is the encrypted entry, `q` its number in the log, by which old ones are
//! removed.
//!
//! An id is later than every id that was written before the append began. Entries of two instances that are appended at the same
//! time may come in either order, so a reader that asks for what came after the newest entry may miss one of them.
use std::time::Duration;

use async_trait::async_trait;
use store::clock::unix_millis;
use store::{AuditBounds, AuditEntry, AuditFrom, AuditId, AuditLog, StoreError, WriteError};
use tokio::time::timeout;

use crate::config::TableName;
use crate::dynamo_store::DynamoStore;
use crate::error::{not_written, unknown};
use crate::item::{self, Item, Name, blob, bytes, integer, number, text};
use crate::table::{If, Range};
use crate::writer::WRITE_LIMIT;

const PARTITION: &str = "a";
/// How often, in entries of this instance, the oldest are removed, and how many at most.
const TRIM_EVERY: u64 = 64;
const TRIM: usize = 100;
const LAST: AuditId = AuditId { millis: u64::MAX, number: u64::MAX };
const FIRST: AuditId = AuditId { millis: 0, number: 0 };

fn sort(id: AuditId) -> String {
    format!("{:020}-{:020}", id.millis, id.number)
}

fn id_of(item: &Item) -> Option<AuditId> {
    text(item, "s")?.parse().ok()
}

/// Regions of a global table with eventual consistency number their entries apart, so that no entry replaces one of another region.
fn next(number: u64, ours: u64) -> u64 {
    let step = u64::try_from(TableName::MAX_REGIONS).unwrap_or(u64::MAX);
    (number / step).saturating_add(1).saturating_mul(step).saturating_add(ours)
}

#[async_trait]
impl AuditLog for DynamoStore {
    async fn append(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError> {
        let append = self.append_in_order(sealed, bounds);
        timeout(WRITE_LIMIT, append).await.unwrap_or(Err(unknown(StoreError::StoreSlow)))
    }

    async fn page(&self, from: AuditFrom, limit: usize, max_age: Duration) -> Result<Vec<AuditEntry>, StoreError> {
        let oldest = unix_millis().saturating_sub(u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX));
        let oldest = AuditId { millis: oldest, number: 0 };
        let (after, newest_first) = match from {
            AuditFrom::After(id) => (AuditId { number: id.number.saturating_add(1), ..id }.max(oldest), false),
            AuditFrom::Last => (oldest, true),
        };
        let range = Range { from: sort(after), to: sort(LAST), limit, newest_first };
        let mut found = self.table.range(PARTITION, range).await?;
        if newest_first {
            found.reverse();
        }
        let entry = |item: &Item| {
            let sealed = bytes(item, "d").unwrap_or_default().to_vec();
            Some(AuditEntry { id: id_of(item)?, sealed })
        };
        found.iter().map(entry).collect::<Option<_>>().ok_or(StoreError::StoreFailed)
    }
}

impl DynamoStore {
    async fn append_in_order(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError> {
        let ours = self.table.mode.index();
        // One at a time: entries of one instance would compete for the same id.
        let mut appended = self.appended.lock().await;
        let mut fail: fn(StoreError) -> WriteError = not_written;
        let count = loop {
            let newest = Range { from: sort(FIRST), to: sort(LAST), limit: 1, newest_first: true };
            let found = self.table.range(PARTITION, newest).await.map_err(fail)?;
            let now = unix_millis();
            let last = found.first().and_then(id_of);
            let count = found.first().and_then(|item| number(item, "q")).unwrap_or_default().saturating_add(1);
            let id = match last {
                Some(last) if last.millis >= now => AuditId { number: next(last.number, ours), ..last },
                _ => AuditId { millis: now, number: ours },
            };
            let mut made = Name::new(PARTITION, sort(id)).item();
            made.insert("d".to_owned(), blob(&sealed));
            made.insert("q".to_owned(), integer(count));
            let age = u64::try_from(bounds.max_age.as_millis()).unwrap_or(u64::MAX >> 2);
            item::set_expiry(&mut made, Some(now.saturating_add(age)));
            fail = unknown;
            if self.table.put(made, If::Absent).await.map_err(fail)? {
                break count;
            }
        };
        *appended = appended.wrapping_add(1);
        if appended.is_multiple_of(TRIM_EVERY) {
            self.trim(count, bounds).await;
        }
        Ok(())
    }

    /// Removes the oldest entries over the bounds. What is left is removed the next time.
    async fn trim(&self, newest: u64, bounds: AuditBounds) {
        let most = u64::try_from(bounds.max_entries).unwrap_or(u64::MAX);
        let oldest = Range { from: sort(FIRST), to: sort(LAST), limit: TRIM, newest_first: false };
        let Ok(found) = self.table.range_unproved(PARTITION, oldest).await else { return };
        let is_over = |item: &&Item| number(item, "q").is_some_and(|count| count.saturating_add(most) <= newest);
        let names: Vec<_> = found.iter().filter(is_over).filter_map(Name::of).collect();
        let _ = self.table.delete_all(&names).await;
    }
}
