//! The log of revocations of the store in memory. It has one shard.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use wire::RevocationKey;

use super::{Contents, MemoryStore};
use crate::{Change, LogEntry, Place, RevocationLog, ShardNews, StoreError};

/// The most entries that it keeps.
const MAX_ENTRIES: usize = 1024;

#[derive(Debug)]
pub struct Log(VecDeque<LogEntry>);

/// Different in each history: no two entries of this process have the same.
fn next_chain() -> [u8; 8] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Spread over all bits, as a hash is.
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

impl Default for Log {
    fn default() -> Self {
        let place = Place { sequence: 1, chain: next_chain() };
        Self(VecDeque::from([LogEntry { place, change: Change::Begun }]))
    }
}

impl Log {
    pub fn append(&mut self, change: Change) {
        let sequence = self.0.back().map_or(1, |last| last.place.sequence + 1);
        self.0.push_back(LogEntry { place: Place { sequence, chain: next_chain() }, change });
        if self.0.len() > MAX_ENTRIES {
            self.0.pop_front();
        }
    }
}

impl Contents {
    /// The log begins anew, as if its entries had been deleted.
    pub fn drop_log(&self) {
        self.state().log = Log::default();
    }
}

#[async_trait]
impl RevocationLog for MemoryStore {
    fn shards(&self) -> usize {
        1
    }

    fn shard_of(&self, _key: &RevocationKey) -> usize {
        0
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        let state = self.state()?;
        let entries = &state.log.0;
        let Some(last) = entries.back() else { return Err(StoreError::StoreFailed) };
        let Some(place) = places.first().copied().flatten() else {
            let now = Instant::now();
            let left = |expires: Option<Instant>| expires.map(|expires| expires.saturating_duration_since(now));
            let revocations = state.revocations.iter().map(|(key, entry)| (RevocationKey(*key), left(entry.expires)));
            let (revocations, recent) = (revocations.collect(), entries.iter().copied().collect());
            return Ok(vec![ShardNews::Whole { revocations, place: last.place, recent }]);
        };
        let known = entries.iter().position(|entry| entry.place == place);
        Ok(vec![match known {
            None => ShardNews::Gap,
            Some(_) if place == last.place => ShardNews::Nothing,
            Some(known) => ShardNews::Entries(entries.iter().skip(known + 1).copied().collect()),
        }])
    }
}
