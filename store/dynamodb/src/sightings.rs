//! Records of sightings in the table: `d`.
use std::time::Duration;

use async_trait::async_trait;
use store::clock::unix_millis;
use store::{SightingStore, StoreError, WriteError};
use wire::RevocationKey;

use crate::dynamo_store::DynamoStore;
use crate::entry::expiry;
use crate::item::{self, Hex, Item, Name, blob, bytes};
use crate::record::{Step, change};

fn name_of(session: RevocationKey) -> Name {
    Name::new(format!("g#{}", Hex(&session.0)), "-")
}

#[async_trait]
impl SightingStore for DynamoStore {
    async fn sightings(&self, session: RevocationKey) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.table.read_one(&name_of(session)).await?;
        let live = found.filter(|item| !item::has_expired(item, unix_millis()));
        Ok(live.and_then(|item| bytes(&item, "d").map(<[u8]>::to_vec)))
    }

    async fn replace_sightings(
        &self,
        session: RevocationKey,
        earlier: Option<&[u8]>,
        record: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, WriteError> {
        change(&self.table, &name_of(session), &[], |old, _, now| {
            if old.and_then(|item| bytes(item, "d")) != earlier {
                return (Step::Keep, false);
            }
            let mut made = Item::from([("d".to_owned(), blob(&record))]);
            item::set_expiry(&mut made, expiry(now, Some(ttl)));
            (Step::Put(made), true)
        })
        .await
    }
}
