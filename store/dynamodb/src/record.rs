//! Changes to one item: read it, decide, and write if it has not changed meanwhile.
//!
//! The SDK repeats a write whose reply did not arrive in time. If the first one was applied, the repeated one finds another item
//! than it expects. So the item is read again: if it has the version that we wrote, our write is done.
use std::time::Duration;

use store::clock::unix_millis;
use store::{StoreError, WriteError};
use tokio::time::{sleep, timeout};

use crate::error::{not_written, unknown};
use crate::item::{self, Item, Name, blob};
use crate::table::{If, Table};
use crate::writer::WRITE_LIMIT;

/// The longest pause after another instance was faster.
const MAX_PAUSE_MILLIS: u64 = 30;

pub enum Step {
    Keep,
    /// The whole item, without its name and version.
    Put(Item),
    Delete,
}

/// Reads `name` and items `beside` it, and changes `name` as `decide` says: it gets what is there and has not expired, the
/// others, and the time. Atomic for the item.
///
/// # Errors
/// See [`WriteError`].
pub async fn change<T>(
    table: &Table,
    name: &Name,
    beside: &[Name],
    decide: impl FnMut(Option<&Item>, &[Item], u64) -> (Step, T),
) -> Result<T, WriteError> {
    let change = change_unbounded(table, name, beside, decide);
    timeout(WRITE_LIMIT, change).await.unwrap_or(Err(unknown(StoreError::StoreSlow)))
}

async fn change_unbounded<T>(
    table: &Table,
    name: &Name,
    beside: &[Name],
    mut decide: impl FnMut(Option<&Item>, &[Item], u64) -> (Step, T),
) -> Result<T, WriteError> {
    let mut fail: fn(StoreError) -> WriteError = not_written;
    // The version of our last write, and what it leads to if it was applied.
    let mut last: Option<([u8; 8], T)> = None;
    loop {
        let names = [name].into_iter().chain(beside).cloned().collect();
        let mut found = table.read(names).await.map_err(fail)?;
        let at = found.iter().position(|item| Name::of(item).as_ref() == Some(name));
        let old = at.map(|at| found.swap_remove(at));
        let there = old.as_ref().and_then(|item| item::bytes(item, "v"));
        if let Some((_, made)) = last.take().filter(|(version, _)| there == Some(&version[..])) {
            return Ok(made);
        }
        let now = unix_millis();
        let live = old.as_ref().filter(|item| !item::has_expired(item, now));
        let (step, made) = decide(live, &found, now);
        fail = unknown;
        match step {
            Step::Keep => return Ok(made),
            Step::Put(mut item) => {
                let version = item::version();
                item.extend(name.item());
                item.insert("v".to_owned(), blob(&version));
                if table.put(item, If::unchanged(old.as_ref())).await.map_err(fail)? {
                    return Ok(made);
                }
                last = Some((version, made));
            }
            Step::Delete => {
                let Some(version) = there else { return Ok(made) };
                if table.delete(name, Some(version)).await.map_err(fail)? {
                    return Ok(made);
                }
            }
        }
        sleep(Duration::from_millis(u64::from_be_bytes(item::version()) % MAX_PAUSE_MILLIS)).await;
    }
}
