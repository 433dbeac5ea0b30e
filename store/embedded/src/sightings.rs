//! From where sessions were used, in the file. The value is its expiry, then the record.
use std::time::Duration;

use async_trait::async_trait;
use store::{SightingStore, StoreError, WriteError};
use wire::RevocationKey;

use crate::codec::{Decoder, Encoder};
use crate::embedded_store::EmbeddedStore;
use crate::engine::{Reading, SHORT_READ};
use crate::revocation::expiry;
use crate::tables::{ENTRIES, Kind, Tables, Use, is_live, not_ours};

#[async_trait]
impl SightingStore for EmbeddedStore {
    async fn sightings(&self, session: RevocationKey) -> Result<Option<Vec<u8>>, StoreError> {
        let read = move |reading: &Reading| {
            let found = reading.table(ENTRIES)?.get(&Kind::Sightings.of(&session.0)[..])?;
            let value = found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now));
            value.map(|value| record(value).ok_or_else(not_ours)).transpose()
        };
        self.engine.ask(SHORT_READ, read).await
    }

    async fn replace_sightings(
        &self,
        session: RevocationKey,
        earlier: Option<&[u8]>,
        record: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, WriteError> {
        let (entry, earlier) = (Kind::Sightings.of(&session.0), earlier.map(<[u8]>::to_vec));
        let replace = move |tables: &mut Tables<'_>| {
            if let Err(full) = tables.has_room(Use::Others, 1, 2 * entry.len() + record.len()) {
                return Ok(Err(full));
            }
            let stored = tables.get(&entry)?.map(|value| self::record(&value).ok_or_else(not_ours)).transpose()?;
            if stored != earlier {
                return Ok(Ok(false));
            }
            let value = Encoder::default().number(expiry(tables.now, Some(ttl))).rest(&record).end();
            tables.put(&entry, &value)?;
            Ok(Ok(true))
        };
        self.writer.write(replace).await
    }
}

fn record(value: &[u8]) -> Option<Vec<u8>> {
    let mut from = Decoder(value);
    from.number()?;
    Some(from.rest().to_vec())
}
