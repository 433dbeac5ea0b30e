//! Known issuers: one item for each region, with a map in `d` from the kinds' byte and the issuer to when it was announced.
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use store::clock::unix_millis;
use store::{IssuerBounds, IssuerRegistry, KnownIssuer, StoreError, WriteError};
use wire::Kinds;

use crate::dynamo_store::DynamoStore;
use crate::item::{Item, Name, integer};
use crate::record::{Step, change};

fn name_of(region: &str) -> Name {
    Name::new("u", region)
}

/// An item has at most 400 KB.
const MAX_BYTES: usize = 300_000;

fn read(item: &Item) -> BTreeMap<String, u64> {
    let map = item.get("d").and_then(|map| map.as_m().ok());
    let entries = map.into_iter().flatten();
    entries.filter_map(|(name, at)| Some((name.clone(), at.as_n().ok()?.parse().ok()?))).collect()
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl IssuerRegistry for DynamoStore {
    async fn remember(&self, issuers: &[KnownIssuer], bounds: IssuerBounds) -> Result<(), WriteError> {
        change(&self.table, &name_of(self.table.mode.home()), &[], |old, _, now| {
            let mut known = old.map(read).unwrap_or_default();
            for KnownIssuer { issuer, kinds } in issuers {
                known.insert(format!("{:02x}{issuer}", kinds.byte()), now);
            }
            known.retain(|_, at| now.saturating_sub(*at) <= millis(bounds.max_age));
            let bytes = |known: &BTreeMap<String, u64>| known.keys().map(|name| name.len() + 20).sum::<usize>();
            while known.len() > bounds.max_entries || bytes(&known) > MAX_BYTES {
                let oldest = known.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
                if oldest.and_then(|name| known.remove(&name)).is_none() {
                    break;
                }
            }
            let map = known.into_iter().map(|(name, at)| (name, integer(at))).collect();
            (Step::Put(Item::from([("d".to_owned(), AttributeValue::M(map))])), ())
        })
        .await
    }

    async fn known(&self, max_age: Duration) -> Result<Vec<KnownIssuer>, StoreError> {
        let mode = &self.table.mode;
        let regions = [mode.home()].into_iter().chain(mode.others().map(String::as_str));
        let found = self.table.read(regions.map(name_of).collect()).await?;
        let oldest = unix_millis().saturating_sub(millis(max_age));
        let mut known: Vec<_> =
            found.iter().flat_map(read).filter(|(_, at)| *at >= oldest).map(|(name, _)| name).collect();
        known.sort_unstable();
        known.dedup();
        let read = |name: &String| {
            let (kinds, issuer) = name.split_at_checked(2)?;
            let kinds = Kinds::from_byte(u8::from_str_radix(kinds, 16).ok()?);
            Some(KnownIssuer { issuer: issuer.to_owned(), kinds })
        };
        Ok(known.iter().filter_map(read).collect())
    }
}
