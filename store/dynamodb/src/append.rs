//! Appending to the log of a shard, and removing what no follower needs from it.
use std::collections::BTreeMap;
use std::time::Duration;

use store::clock::unix_millis;
use store::{Place, StoreError};
use tokio::time::sleep;

use crate::item::{self, Name};
use crate::log::{self, Batch, Logged, MAX_BEHIND};
use crate::table::{If, Range, Table};

/// The longest pause before a change is tried again that another instance was faster with.
const MAX_PAUSE_MILLIS: u64 = 40;
/// After so many entries of a log, its old batches are removed.
const TRIM_EVERY: u64 = 256;

/// Before a change is tried again that another instance was faster with.
pub async fn pause() {
    let random = u64::from_be_bytes(item::version()) % MAX_PAUSE_MILLIS;
    sleep(Duration::from_millis(random)).await;
}

/// Reads the newest batch of a log, and begins the log if there is none.
///
/// # Errors
/// The table cannot be read or written.
pub async fn head(table: &Table, shard: usize) -> Result<Batch, StoreError> {
    let name = log::head_name(shard, table.mode.home());
    loop {
        if let Some(found) = table.read_one(&name).await? {
            return Batch::read(&found);
        }
        table.put(Batch::begin(unix_millis(), BTreeMap::new()).head(shard, table.mode.home()), If::Absent).await?;
    }
}

/// Appends at most [`log::MAX_BATCH`] entries. `import`: they are those of another region up to this place in its log, and nothing
/// is appended if the log's place there is another one than the first. Whether they are in the log, if there are any.
///
/// # Errors
/// It is not known whether they were appended.
pub async fn append(
    table: &Table,
    shard: usize,
    entries: Vec<Logged>,
    import: Option<(&str, Option<Place>, Place)>,
) -> Result<bool, StoreError> {
    if entries.is_empty() && import.is_none() {
        return Ok(true);
    }
    let home = table.mode.home();
    loop {
        let old = head(table, shard).await?;
        let mut imported = old.imported.clone();
        if let Some((region, from, to)) = import {
            if imported.get(region).copied() != from {
                return Ok(false);
            }
            imported.insert(region.to_owned(), to);
        }
        let entries = still_lifted(table, &entries).await?;
        if entries.is_empty() && import.is_none() {
            return Ok(true);
        }
        let new = old.next(unix_millis(), entries, imported);
        table.put_always(old.kept(shard, home, table.mode.is_eventual())).await?;
        if table.put(new.head(shard, home), If::Version(&old.last().chain)).await? {
            trim(table, shard, &old, &new).await;
            return Ok(true);
        }
        // The SDK may have repeated a request that had arrived.
        if head(table, shard).await?.last() == new.last() {
            return Ok(true);
        }
        pause().await;
    }
}

/// Leaves out lifts of keys that are in force. Other regions' items may arrive later than a lift, so where there are other
/// regions, a log has no lifts: followers then ask about a lifted key until it expires.
async fn still_lifted(table: &Table, entries: &[Logged]) -> Result<Vec<Logged>, StoreError> {
    let lifted: Vec<_> =
        entries.iter().filter_map(|logged| if let Logged::Lifted(key) = logged { Some(key) } else { None }).collect();
    if lifted.is_empty() {
        return Ok(entries.to_vec());
    }
    let found = if table.mode.is_eventual() { None } else { Some(table.together(lifted.into_iter()).await?) };
    let now = unix_millis();
    let keep = |logged: &&Logged| match (logged, &found) {
        (Logged::Lifted(key), Some(found)) => found.get(key).and_then(|all| all.in_force(now)).is_none(),
        (Logged::Lifted(_), None) => false,
        _ => true,
    };
    Ok(entries.iter().filter(keep).copied().collect())
}

/// Now and then removes batches that no follower needs. With other regions they stay until they expire, for a region that was cut
/// off.
async fn trim(table: &Table, shard: usize, old: &Batch, new: &Batch) {
    let (before, last) = (old.last().sequence, new.last().sequence);
    if table.mode.is_eventual() || before / TRIM_EVERY == last / TRIM_EVERY || last <= 2 * MAX_BEHIND {
        return;
    }
    let partition = log::log_partition(shard, table.mode.home());
    let to = log::log_sort(last - 2 * MAX_BEHIND);
    let range = Range { from: log::log_sort(0), to, limit: 1000, newest_first: false };
    let Ok(found) = table.range_unproved(&partition, range).await else { return };
    let names: Vec<_> = found.iter().filter_map(Name::of).collect();
    // What is left is removed the next time.
    let _ = table.delete_all(&names).await;
}
