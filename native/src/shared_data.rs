//! Entries that all configurations of the process share, as Wasm's host has them.
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use driver::{Cas, HostError, PutError};

/// The driver's keys name slots of rings, so that there are only so many. This bounds what many configurations with many
/// slots could keep.
const MAX_ENTRIES: usize = 1 << 20;

const FULL: HostError = HostError(1);

type Entries = HashMap<String, (Vec<u8>, Cas)>;

static ENTRIES: LazyLock<Mutex<Entries>> = LazyLock::new(Mutex::default);

pub fn get(key: &str) -> Option<(Vec<u8>, Cas)> {
    entries().get(key).cloned()
}

/// # Errors
/// [`PutError::Changed`] unless `cas` is 0 or the entry is still the one that was read with it.
pub fn put(key: &str, value: &[u8], cas: Cas) -> Result<(), PutError> {
    let mut entries = entries();
    let Some((old, current)) = entries.get_mut(key) else {
        if cas != 0 {
            return Err(PutError::Changed);
        }
        if entries.len() >= MAX_ENTRIES {
            return Err(PutError::Host(FULL));
        }
        entries.insert(key.to_owned(), (value.to_vec(), 1));
        return Ok(());
    };
    if cas != 0 && *current != cas {
        return Err(PutError::Changed);
    }
    old.clear();
    old.extend_from_slice(value);
    // 0 is no state of an entry: it overwrites.
    *current = current.wrapping_add(1).max(1);
    Ok(())
}

fn entries() -> MutexGuard<'static, Entries> {
    // An entry is whole or not there, whatever panicked: reading it checks it.
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}
