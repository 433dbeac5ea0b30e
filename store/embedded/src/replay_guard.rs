//! The replay guard in the file. The value of a mark is its expiry, then `p` while it is claimed and `d` when it is done.
use std::time::Duration;

use async_trait::async_trait;
use redb::Error;
use store::{Claim, PROOF, ReplayGuard, STATUS_INDEX, StoreError, WriteError};

use crate::codec::{Decoder, Encoder};
use crate::embedded_store::EmbeddedStore;
use crate::revocation::expiry;
use crate::tables::{Kind, Tables, Use, not_ours};

pub const PENDING: u8 = b'p';
pub const DONE: u8 = b'd';

#[async_trait]
impl ReplayGuard for EmbeddedStore {
    async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError> {
        let entry = Kind::Mark.of(digest.as_bytes());
        let claim = move |tables: &mut Tables<'_>| {
            if let Some(value) = tables.get(&entry)? {
                return state(&value).map(Ok).ok_or_else(not_ours);
            }
            Ok(mark(tables, &entry, PENDING, pending)?.map(|()| Claim::Claimed))
        };
        self.writer.write(claim).await.map_err(|error| error.store_error())
    }

    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError> {
        let entry = Kind::Mark.of(digest.as_bytes());
        self.writer.write(move |tables| mark(tables, &entry, DONE, ttl)).await.map_err(|error| error.store_error())
    }

    async fn release(&self, digest: &str) -> Result<(), StoreError> {
        let entry = Kind::Mark.of(digest.as_bytes());
        let released = self.writer.write(move |tables| tables.remove(&entry).map(|_| Ok(())));
        released.await.map_err(|error| error.store_error())
    }
}

fn mark(tables: &mut Tables<'_>, entry: &[u8], state: u8, ttl: Duration) -> Result<Result<(), WriteError>, Error> {
    // A store full of sessions can still end them, also by logouts and events.
    let is_of = |prefix: &str| entry.get(1..).is_some_and(|digest| digest.starts_with(prefix.as_bytes()));
    let usage = if is_of(PROOF) || is_of(STATUS_INDEX) { Use::Others } else { Use::Revocations };
    if let Err(full) = tables.has_room(usage, 1, 2 * entry.len()) {
        return Ok(Err(full));
    }
    let value = Encoder::default().number(expiry(tables.now, Some(ttl))).byte(state).end();
    tables.put(entry, &value).map(Ok)
}

fn state(value: &[u8]) -> Option<Claim> {
    let mut from = Decoder(value);
    from.number()?;
    match from.byte()? {
        PENDING => Some(Claim::Pending),
        DONE => Some(Claim::Done),
        _ => None,
    }
}
