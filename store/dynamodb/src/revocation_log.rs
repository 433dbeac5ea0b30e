//! The log seen by followers: the heads of all shards in one read, and the batches between a follower's place and the head.
//!
//! In a global table with eventual consistency, each region's log also gets the entries of the others. An instance that reads the
//! head of another region's log appends what its own log lacks, in order, with the place up to which it has them. All
//! instances of a region so follow one log. A batch that has not arrived yet is waited for.
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use store::clock::unix_millis;
use store::{Place, RevocationLog, ShardNews, StoreError};
use tokio::time::timeout;
use wire::RevocationKey;

use crate::dynamo_store::DynamoStore;
use crate::entry::{Together, left};
use crate::item::{self, Item, Name, SHARDS, buckets};
use crate::log::{self, Batch, Logged, MAX_BATCH, MAX_BEHIND};
use crate::table::{Range, Table};
use crate::writer::{append, head};

/// The longest that one call may take: with a shard that is read anew.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// A store that is read anew must not slow down checks.
const SHARDS_AT_ONCE: usize = 2;
const BUCKETS_AT_ONCE: usize = 4;
/// Entries of another region that are taken over in one call, of each shard.
const MAX_IMPORT: usize = 2000;

#[async_trait]
impl RevocationLog for DynamoStore {
    fn shards(&self) -> usize {
        SHARDS
    }

    fn shard_of(&self, key: &RevocationKey) -> usize {
        item::shard_of(key)
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        timeout(FOLLOW_LIMIT, follow(&self.table, places)).await.unwrap_or(Err(StoreError::StoreSlow))
    }
}

async fn follow(table: &Table, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
    let mode = &table.mode;
    let regions: Vec<&str> = [mode.home()].into_iter().chain(mode.others().map(String::as_str)).collect();
    let names = (0..SHARDS).flat_map(|shard| regions.iter().map(move |region| log::head_name(shard, region)));
    let found = table.read(names.collect()).await?;
    let of = |shard: usize, region: &str| {
        let name = log::head_name(shard, region);
        found.iter().find(|item| Name::of(item).as_ref() == Some(&name)).map(Batch::read).transpose()
    };
    let mut ours = Vec::new();
    for shard in 0..SHARDS {
        let mut ours_now = of(shard, mode.home())?;
        for region in mode.others() {
            if let Some(theirs) = of(shard, region)? {
                let known = ours_now.as_ref().and_then(|batch| batch.imported.get(region)).copied();
                if known != Some(theirs.last()) && import(table, shard, region, known, theirs).await? {
                    ours_now = None;
                }
            }
        }
        ours.push(match ours_now {
            Some(batch) => batch,
            None => head(table, shard).await?,
        });
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
        false => batches(table, shard, table.mode.home(), place.sequence, head, usize::MAX).await?,
    };
    let entries = log::after(place, &batches).filter(|entries| entries.last().is_some_and(|entry| entry.place == last));
    Ok(entries.map_or(ShardNews::Gap, ShardNews::Entries))
}

/// The batches with entries after `sequence`, up to the head, in order. At most `most` of those before the head.
async fn batches(
    table: &Table,
    shard: usize,
    region: &str,
    sequence: u64,
    head: &Batch,
    most: usize,
) -> Result<Vec<Batch>, StoreError> {
    let (from, to) = (log::log_sort(sequence.saturating_add(1)), log::log_sort(head.place_before().sequence));
    if from > to {
        return Ok(vec![head.clone()]);
    }
    let range = Range { from, to, limit: most, newest_first: false };
    let found = table.range_unproved(&log::log_partition(shard, region), range).await?;
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
    let batches = batches(table, shard, table.mode.home(), behind, head, usize::MAX).await?;
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

/// Takes over what another region's log has and ours lacks. Whether it took over anything.
async fn import(
    table: &Table,
    shard: usize,
    region: &str,
    known: Option<Place>,
    head: Batch,
) -> Result<bool, StoreError> {
    let from = known.map_or(0, |place| place.sequence);
    let batches = batches(table, shard, region, from, &head, MAX_IMPORT).await?;
    let (mut at, mut imported) = (known, false);
    let mut entries: Vec<Logged> = Vec::new();
    let mut reached = known;
    for batch in &batches {
        // Batches are taken over whole, and arrive in any order. The first of all begins the log.
        let follows = match reached {
            Some(place) => batch.place_before() == place,
            None => batch.first == 1,
        };
        if !follows {
            break;
        }
        if entries.len() + batch.entries.len() > MAX_BATCH {
            if let Some(to) = reached {
                append(table, shard, std::mem::take(&mut entries), Some((region, at, to))).await?;
                (at, imported) = (reached, true);
            }
        }
        // A lift does not travel: a revocation may be under way.
        entries.extend(batch.entries.iter().filter(|logged| matches!(logged, Logged::Revoked(..))));
        reached = Some(batch.last());
    }
    if let Some(to) = reached.filter(|_| reached != at) {
        append(table, shard, entries, Some((region, at, to))).await?;
        imported = true;
    }
    Ok(imported)
}
