//! Used tokens in the table. `c` is there once the work is done.
//!
//! In a global table with eventual consistency two regions may both claim a token within the replication's lag.
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use store::{Claim, ReplayGuard, StoreError};

use crate::dynamo_store::DynamoStore;
use crate::entry::expiry;
use crate::item::{self, Item, Name};
use crate::record::{Step, change};

fn name_of(digest: &str) -> Name {
    Name::new(format!("m#{digest}"), "-")
}

fn mark(is_done: bool, now: u64, life: Duration) -> Item {
    let mut made = Item::new();
    if is_done {
        made.insert("c".to_owned(), AttributeValue::Bool(true));
    }
    item::set_expiry(&mut made, expiry(now, Some(life)));
    made
}

#[async_trait]
impl ReplayGuard for DynamoStore {
    async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError> {
        let claim = |old: Option<&Item>, _: &[Item], now| match old {
            None => (Step::Put(mark(false, now, pending)), Claim::Claimed),
            Some(item) if item.contains_key("c") => (Step::Keep, Claim::Done),
            Some(_) => (Step::Keep, Claim::Pending),
        };
        change(&self.table, &name_of(digest), &[], claim).await.map_err(|error| error.store_error())
    }

    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError> {
        let complete = |_: Option<&Item>, _: &[Item], now| (Step::Put(mark(true, now, ttl)), ());
        change(&self.table, &name_of(digest), &[], complete).await.map_err(|error| error.store_error())
    }

    async fn release(&self, digest: &str) -> Result<(), StoreError> {
        let release = |_: Option<&Item>, _: &[Item], _| (Step::Delete, ());
        change(&self.table, &name_of(digest), &[], release).await.map_err(|error| error.store_error())
    }
}
