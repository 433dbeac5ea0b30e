//! Taking over what the log of another region has and ours lacks, in a global table with eventual consistency.
//!
//! Items arrive from another region in any order. A batch is taken over when all batches before it are, and when the revocations
//! that it tells of have arrived: a follower that reads the shard anew afterwards finds them. What a region has taken over itself
//! is not taken over from it again.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use store::clock::unix_millis;
use store::{Place, StoreError};

use crate::append::append;
use crate::item::{self, Name};
use crate::log::{self, Batch, Logged, MAX_BATCH};
use crate::table::{Range, Table};

/// Batches of another region that are taken over in one call, of each shard.
const MAX_IMPORT: usize = 200;

/// Places in other regions' logs up to which there is nothing to take over, by shard and region. They are not in the table: our
/// log would change with each batch of another region, and theirs with each of ours, without end.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<(usize, String), Place>>);

/// The way to the end of another region's log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Our log has new entries.
    pub any: bool,
    /// When the first batch was written that could not be taken over yet.
    pub waits_since: Option<u64>,
}

impl Seen {
    fn after(&self, shard: usize, region: &str, known: Option<Place>) -> Option<Place> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(shard, region.to_owned())).copied();
        [known, seen].into_iter().flatten().max_by_key(|place| place.sequence)
    }

    fn set(&self, shard: usize, region: &str, place: Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((shard, region.to_owned()), place);
    }
}

/// `known` is the place in our log's head, and `head` the other log's newest batch.
///
/// # Errors
/// The table cannot be read or written. Some may have been taken over.
pub async fn import(
    table: &Table,
    seen: &Seen,
    shard: usize,
    region: &str,
    known: Option<Place>,
    head: Batch,
) -> Result<Imported, StoreError> {
    let began = seen.after(shard, region, known);
    if began == Some(head.last()) {
        return Ok(Imported::default());
    }
    let batches = waiting(table, shard, region, began, head).await?;
    let mut imported = Imported::default();
    // The place that our log's head has, and how far we got.
    let (mut noted, mut reached) = (known, began);
    let mut entries: Vec<Logged> = Vec::new();
    for batch in batches {
        if !batch.follows(reached, unix_millis()) || !have_arrived(table, region, &batch).await? {
            imported.waits_since = Some(batch.written);
            break;
        }
        // A lift does not travel: a revocation may be under way.
        let new = batch.entries.iter().filter_map(|logged| match *logged {
            Logged::Revoked(key, expires, _) => Some(Logged::TakenOver(key, expires)),
            Logged::Begun | Logged::TakenOver(..) | Logged::Lifted(_) => None,
        });
        let new: Vec<_> = new.collect();
        if entries.len() + new.len() > MAX_BATCH
            && let Some(to) = reached
        {
            imported.any = true;
            if !append(table, shard, std::mem::take(&mut entries), Some((region, noted, to))).await? {
                // Another instance was faster. The next call goes on from where it got.
                return Ok(imported);
            }
            noted = reached;
        }
        entries.extend(new);
        reached = Some(batch.last());
    }
    if let Some(to) = reached {
        if !entries.is_empty() {
            imported.any = true;
            if !append(table, shard, entries, Some((region, noted, to))).await? {
                return Ok(imported);
            }
        }
        seen.set(shard, region, to);
    }
    Ok(imported)
}

/// The batches after `place` that are here, in order, and the head unless there are too many.
async fn waiting(
    table: &Table,
    shard: usize,
    region: &str,
    place: Option<Place>,
    head: Batch,
) -> Result<Vec<Batch>, StoreError> {
    let from = log::log_sort(place.map_or(0, |place| place.sequence).saturating_add(1));
    let to = log::log_sort(head.place_before().sequence);
    let mut batches = Vec::new();
    if from <= to {
        let range = Range { from, to, limit: MAX_IMPORT, newest_first: false };
        let found = table.range_unproved(&log::log_partition(shard, region), range).await?;
        batches = found.iter().map(Batch::read).collect::<Result<Vec<_>, _>>()?;
    }
    if batches.len() < MAX_IMPORT {
        batches.push(head);
    }
    Ok(batches)
}

/// Are the items here that `batch` tells of, in this state or a later one? What has expired is not waited for.
async fn have_arrived(table: &Table, region: &str, batch: &Batch) -> Result<bool, StoreError> {
    let now = unix_millis();
    let mut awaited: HashMap<Name, u64> = HashMap::new();
    for logged in &batch.entries {
        if let Logged::Revoked(key, expires, number) = logged
            && expires.is_none_or(|expires| expires > now)
        {
            let latest = awaited.entry(item::revocation(key, region)).or_default();
            *latest = (*latest).max(*number);
        }
    }
    if awaited.is_empty() {
        return Ok(true);
    }
    let found = table.read(awaited.keys().cloned().collect()).await?;
    let arrived = found.iter().filter(|item| {
        let awaited = Name::of(item).and_then(|name| awaited.get(&name).copied());
        awaited.zip(item::number(item, "i")).is_some_and(|(awaited, number)| number >= awaited)
    });
    Ok(arrived.count() == awaited.len())
}
