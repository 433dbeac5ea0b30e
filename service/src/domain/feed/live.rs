//! The revocations in force of one shard, as keys in order: 20 bytes each.
use std::mem::take;
use std::time::{Duration, Instant};

use wire::RevocationKey;

/// More keys than this are sorted in, instead of inserted one by one.
const SORT: usize = 32;

/// Seconds since the picture began, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u32);

/// The beginning of [`Seconds`].
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

#[derive(Debug, Default)]
pub struct Live {
    /// Sorted by key, without duplicates.
    keys: Vec<(RevocationKey, Seconds)>,
    /// Not sorted in yet.
    new: Vec<(RevocationKey, Seconds)>,
}

impl Seconds {
    pub const NEVER: Self = Self(u32::MAX);
}

impl Epoch {
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Rounded down.
    pub fn at(self, now: Instant) -> Seconds {
        Seconds(u32::try_from(now.saturating_duration_since(self.0).as_secs()).unwrap_or(u32::MAX - 1))
    }

    /// Rounded up, so that a key is rather kept for too long.
    pub fn after(self, now: Instant, left: Option<Duration>) -> Seconds {
        let Some(left) = left else { return Seconds::NEVER };
        let whole = now.saturating_duration_since(self.0).saturating_add(left).as_secs().saturating_add(1);
        Seconds(u32::try_from(whole).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }
}

impl Live {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn bytes(&self) -> usize {
        (self.keys.capacity() + self.new.capacity()) * size_of::<(RevocationKey, Seconds)>()
    }

    /// A key that is there keeps the later of both times. [`Live::settle`] must follow.
    pub fn insert(&mut self, key: RevocationKey, expires: Seconds) {
        self.new.push((key, expires));
    }

    pub fn remove(&mut self, key: &RevocationKey) {
        self.settle();
        if let Ok(at) = self.keys.binary_search_by_key(key, |(key, _)| *key) {
            self.keys.remove(at);
        }
    }

    pub fn replace(&mut self, keys: Vec<(RevocationKey, Seconds)>) {
        self.keys = Vec::new();
        self.new = keys;
        self.settle();
    }

    /// Sorts in what was inserted.
    pub fn settle(&mut self) {
        let new = take(&mut self.new);
        if new.len() > SORT {
            self.keys.extend(new);
            // The latest time of a key comes first.
            self.keys.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
            self.keys.dedup_by_key(|(key, _)| *key);
            return;
        }
        for (key, expires) in new {
            match self.keys.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(at) => {
                    if let Some((_, old)) = self.keys.get_mut(at) {
                        *old = (*old).max(expires);
                    }
                }
                Err(at) => self.keys.insert(at, (key, expires)),
            }
        }
    }

    /// Forgets what has expired.
    pub fn purge(&mut self, now: Seconds) {
        self.keys.retain(|(_, expires)| *expires > now);
        if self.keys.capacity() > self.keys.len() * 2 + 64 {
            self.keys.shrink_to_fit();
        }
    }

    pub fn keys(&self, now: Seconds) -> impl Iterator<Item = RevocationKey> + '_ {
        self.keys_after(None, now)
    }

    /// In order.
    pub fn keys_after(&self, after: Option<RevocationKey>, now: Seconds) -> impl Iterator<Item = RevocationKey> + '_ {
        let from = after.map_or(0, |after| self.keys.partition_point(|(key, _)| *key <= after));
        self.keys.iter().skip(from).filter(move |(_, expires)| *expires > now).map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> RevocationKey {
        RevocationKey(u128::from(number).to_be_bytes())
    }

    fn keys(live: &Live, now: u32) -> Vec<RevocationKey> {
        live.keys(Seconds(now)).collect()
    }

    #[test]
    fn few_and_many_are_inserted_alike() {
        for count in [1, 20, 33, 1000] {
            let mut live = Live::default();
            for number in (0..count).rev() {
                live.insert(key(number), Seconds(10));
                live.insert(key(number), Seconds(5));
            }
            live.settle();
            assert_eq!(keys(&live, 9), (0..count).map(key).collect::<Vec<_>>(), "the later time of both");
            assert!(keys(&live, 10).is_empty());
            live.remove(&key(0));
            assert_eq!(live.len(), count as usize - 1);
        }
    }

    #[test]
    fn a_key_is_forgotten_after_its_time_and_never_before() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        let expires = epoch.after(start + Duration::from_millis(900), Some(Duration::from_millis(200)));
        let mut live = Live::default();
        live.insert(key(1), expires);
        live.insert(key(2), epoch.after(start, None));
        live.settle();
        live.purge(epoch.at(start + Duration::from_millis(1999)));
        assert_eq!(live.len(), 2);
        live.purge(epoch.at(start + Duration::from_millis(2000)));
        assert_eq!(live.len(), 1);
        live.purge(epoch.at(start + Duration::from_secs(u64::from(u32::MAX) * 2)));
        assert_eq!(live.len(), 1, "without an end");
    }
}
