//! Changes to one item: read it, decide, and write if it has not changed meanwhile.
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
    loop {
        let names = [name].into_iter().chain(beside).cloned().collect();
        let mut found = table.read(names).await.map_err(fail)?;
        let at = found.iter().position(|item| Name::of(item).as_ref() == Some(name));
        let old = at.map(|at| found.swap_remove(at));
        let now = unix_millis();
        let live = old.as_ref().filter(|item| !item::has_expired(item, now));
        let (step, made) = decide(live, &found, now);
        fail = unknown;
        let is_done = match step {
            Step::Keep => true,
            Step::Put(mut item) => {
                item.extend(name.item());
                item.insert("v".to_owned(), blob(&item::version()));
                table.put(item, If::unchanged(old.as_ref())).await.map_err(fail)?
            }
            Step::Delete => match old.as_ref().and_then(|item| item::bytes(item, "v")) {
                Some(version) => table.delete(name, Some(version)).await.map_err(fail)?,
                None => true,
            },
        };
        if is_done {
            return Ok(made);
        }
        sleep(Duration::from_millis(u64::from_be_bytes(item::version()) % MAX_PAUSE_MILLIS)).await;
    }
}
