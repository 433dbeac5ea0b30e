//! The audit log in the file.
use std::time::Duration;

use async_trait::async_trait;
use redb::ReadableTable as _;
use store::clock::unix_millis;
use store::{AuditBounds, AuditEntry, AuditFrom, AuditId, AuditLog, StoreError, WriteError};

use crate::embedded_store::EmbeddedStore;
use crate::engine::{LONG_READ, Reading};
use crate::session::millis;
use crate::tables::{AUDIT, Tables, Use};

/// Entries over a bound that are removed when one is added.
const REMOVED_TOGETHER: usize = 16;

#[async_trait]
impl AuditLog for EmbeddedStore {
    async fn append(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError> {
        let append = move |tables: &mut Tables<'_>| {
            if let Err(full) = tables.has_room(Use::Others, 1, sealed.len()) {
                return Ok(Err(full));
            }
            let last = tables.audit.last()?.map(|(id, _)| id.value());
            // By our clock, which may have been set back.
            let id = match last {
                Some((millis, number)) if millis >= tables.now => (millis, number + 1),
                _ => (tables.now, 0),
            };
            tables.audit.insert(id, &sealed[..])?;
            tables.account(sealed.len(), 0);
            let oldest = unix_millis().saturating_sub(millis(bounds.max_age));
            for _ in 0..REMOVED_TOGETHER {
                let first = tables.audit.first()?.map(|(id, sealed)| (id.value(), sealed.value().len()));
                let Some((first, size)) = first else { break };
                if first.0 >= oldest && redb::ReadableTableMetadata::len(&tables.audit)? <= bounds.max_entries as u64 {
                    break;
                }
                tables.audit.remove(first)?;
                tables.account(0, size);
            }
            Ok(Ok(()))
        };
        self.writer.write(append).await
    }

    async fn page(&self, from: AuditFrom, limit: usize, max_age: Duration) -> Result<Vec<AuditEntry>, StoreError> {
        let page = move |reading: &Reading| {
            let oldest = (reading.now.saturating_sub(millis(max_age)), 0);
            let audit = reading.table(AUDIT)?;
            let mut entries = Vec::new();
            let mut add = |found: Result<(redb::AccessGuard<'_, (u64, u64)>, redb::AccessGuard<'_, &[u8]>), _>| {
                let (id, sealed) = found?;
                let (millis, number) = id.value();
                entries.push(AuditEntry { id: AuditId { millis, number }, sealed: sealed.value().to_vec() });
                Ok::<_, redb::Error>(())
            };
            match from {
                AuditFrom::After(AuditId { millis, number }) => {
                    let from = (millis, number.saturating_add(1)).max(oldest);
                    audit.range(from..)?.take(limit).try_for_each(&mut add)?;
                }
                AuditFrom::Last => {
                    audit.range(oldest..)?.rev().take(limit).try_for_each(&mut add)?;
                    entries.reverse();
                }
            }
            Ok(entries)
        };
        self.engine.ask(LONG_READ, page).await
    }
}
