//! The log seen by followers: the heads of all shards in one read, and the batches between a follower's place and the head.
//!
//! In a global table with eventual consistency, each region's log also gets the entries of the others (`import`). All instances
//! of a region so follow one log.
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use store::clock::unix_millis;
use store::{Place, RevocationLog, ShardNews, StoreError};
use tokio::time::timeout;
use wire::RevocationKey;

use crate::append::head;
use crate::dynamo_store::DynamoStore;
use crate::entry::{Together, left};
use crate::import::{Seen, import};
use crate::item::{self, Item, Name, SHARDS, buckets};
use crate::log::{self, Batch, MAX_BEHIND};
use crate::table::{Range, Table};

/// The longest that one call may take: with a shard that is read anew.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// A store that is read anew must not slow down checks.
const SHARDS_AT_ONCE: usize = 2;
const BUCKETS_AT_ONCE: usize = 4;
/// Our log proves nothing if it lacks another region's entries that are older. Checks are answered all the same.
const MAX_REGION_LAG_MILLIS: u64 = 60_000;

#[async_trait]
impl RevocationLog for DynamoStore {
    fn shards(&self) -> usize {
        SHARDS
    }

    fn shard_of(&self, key: &RevocationKey) -> usize {
        item::shard_of(key)
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        timeout(FOLLOW_LIMIT, follow(&self.table, &self.seen, places)).await.unwrap_or(Err(StoreError::StoreSlow))
    }
}

async fn follow(table: &Table, seen: &Seen, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
    let mode = &table.mode;
    let regions: Vec<&str> = [mode.home()].into_iter().chain(mode.others().map(String::as_str)).collect();
    let names = (0..SHARDS).flat_map(|shard| regions.iter().map(move |region| log::head_name(shard, region)));
    let found = table.read(names.collect()).await?;
    let of = |shard: usize, region: &str| {
        let name = log::head_name(shard, region);
        found.iter().find(|item| Name::of(item).as_ref() == Some(&name)).map(Batch::read).transpose()
    };
    let (mut ours, mut is_late, now) = (Vec::new(), false, unix_millis());
    for shard in 0..SHARDS {
        let mut ours_now = of(shard, mode.home())?;
        for region in mode.others() {
            if let Some(theirs) = of(shard, region)? {
                let known = ours_now.as_ref().and_then(|batch| batch.imported.get(region)).copied();
                let imported = import(table, seen, shard, region, known, theirs).await?;
                if imported.any {
                    ours_now = None;
                }
                is_late |= imported.waits_since.is_some_and(|since| since.saturating_add(MAX_REGION_LAG_MILLIS) < now);
            }
        }
        ours.push(match ours_now {
            Some(batch) => batch,
            None => head(table, shard).await?,
        });
    }
    if is_late {
        return Err(StoreError::StoreSlow);
    }
    let shards = ours.iter().enumerate();
    let news: Vec<_> =
        shards.map(|(shard, head)| news(table, shard, head, places.get(shard).copied().flatten())).collect();
    let news: Vec<_> = stream::iter(news).buffered(SHARDS_AT_ONCE).try_collect().await?;
    if news.iter().any(|news| !matches!(news, ShardNews::Nothing)) {
        // After everything that was read without the store's id.
        table.read(Vec::new()).await?;
    }
    Ok(news)
}

async fn news(table: &Table, shard: usize, head: &Batch, place: Option<Place>) -> Result<ShardNews, StoreError> {
    let last = head.last();
    let Some(place) = place else { return whole(table, shard, head).await };
    if place == last {
        return Ok(ShardNews::Nothing);
    }
    if place.sequence >= last.sequence || last.sequence - place.sequence > MAX_BEHIND {
        return Ok(ShardNews::Gap);
    }
    let batches = match head.place_before().sequence <= place.sequence {
        true => vec![head.clone()],
        false => batches(table, shard, place.sequence, head).await?,
    };
    let entries = log::after(place, &batches).filter(|entries| entries.last().is_some_and(|entry| entry.place == last));
    Ok(entries.map_or(ShardNews::Gap, ShardNews::Entries))
}

/// The batches with entries after `sequence`, up to the head, in order.
async fn batches(table: &Table, shard: usize, sequence: u64, head: &Batch) -> Result<Vec<Batch>, StoreError> {
    let (from, to) = (log::log_sort(sequence.saturating_add(1)), log::log_sort(head.place_before().sequence));
    if from > to {
        return Ok(vec![head.clone()]);
    }
    let range = Range { from, to, limit: usize::MAX, newest_first: false };
    let found = table.range_unproved(&log::log_partition(shard, table.mode.home()), range).await?;
    let mut batches = found.iter().map(Batch::read).collect::<Result<Vec<_>, _>>()?;
    batches.push(head.clone());
    Ok(batches)
}

/// Reads a shard anew. The head was read before: what is written after it is in the log behind it.
async fn whole(table: &Table, shard: usize, head: &Batch) -> Result<ShardNews, StoreError> {
    let bucket = |bucket: u8| async move {
        // All sort keys begin with a hexadecimal digit.
        let all = Range { from: "0".to_owned(), to: "~".to_owned(), limit: usize::MAX, newest_first: false };
        table.range_unproved(&item::bucket(bucket), all).await
    };
    let found: Vec<Vec<Item>> =
        stream::iter(buckets(shard).map(bucket)).buffer_unordered(BUCKETS_AT_ONCE).try_collect().await?;
    let now = unix_millis();
    let mut revocations = Vec::new();
    for items in found {
        let entries = Together::read(&items)?;
        let live = entries.iter().filter_map(|(key, all)| Some((*key, left(all.in_force(now)?.expires, now))));
        revocations.extend(live);
    }
    let place = head.last();
    let behind = place.sequence.saturating_sub(MAX_BEHIND);
    let batches = batches(table, shard, behind, head).await?;
    // Only what leads to the place without a gap.
    let mut recent = Vec::new();
    let mut before = place;
    for batch in batches.iter().rev() {
        if batch.last() != before {
            break;
        }
        before = batch.place_before();
        recent.splice(0..0, batch.entries());
    }
    Ok(ShardNews::Whole { revocations, place, recent })
}
