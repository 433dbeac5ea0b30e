//! All revocations in force, as this instance has read them: as of when they are complete, and what came after a place.
use std::mem::take;
use std::time::Instant;

use store::{Change, Place, ShardNews};
use wire::RevocationKey;
use wire::feed::Cursor;

use super::cursor::{self, Parsed, Step};
use super::history::{Found, History};
use super::live::{Epoch, Live};

/// A shard with more keys is not sent to followers when it was read anew: they get a snapshot.
pub const MAX_BRIDGE: usize = 1024;

#[derive(Debug)]
pub struct Picture {
    epoch: Epoch,
    shards: Vec<Shard>,
    /// Every revocation that was acknowledged before this is here.
    complete: Option<Instant>,
    /// Of a follower that has everything. Made when it is needed.
    newest: Option<Cursor>,
    /// The shard whose expired keys are forgotten next.
    purged: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// `None`: it must be read anew.
    place: Option<Place>,
    live: Live,
    history: History,
}

/// What a round changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    pub entries: usize,
    pub gaps: usize,
}

/// Entries of the histories of all shards, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(Vec<u64>);

#[derive(Debug, PartialEq, Eq)]
pub enum Understood {
    At(Numbers),
    /// Probably made by an instance that knows more than this one for the moment.
    Ahead,
    Unknown,
}

/// What a follower lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Lacking {
    pub keys: Vec<RevocationKey>,
    pub cursor: Cursor,
    pub more: bool,
}

impl Picture {
    pub fn new(shards: usize, now: Instant) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { epoch: Epoch::new(now), shards, complete: None, newest: None, purged: 0 }
    }

    /// Nothing is known any longer.
    pub fn forget(&mut self, now: Instant) {
        let forgotten = |shard: &mut Shard| {
            let mut history = take(&mut shard.history);
            history.forget();
            Shard { history, ..Shard::default() }
        };
        self.shards = self.shards.iter_mut().map(forgotten).collect();
        (self.epoch, self.complete, self.newest) = (Epoch::new(now), None, None);
    }

    pub fn places(&self) -> Vec<Option<Place>> {
        self.shards.iter().map(|shard| shard.place).collect()
    }

    /// `None`: some shard was never read, or must be read anew.
    pub fn complete(&self) -> Option<Instant> {
        self.complete.filter(|_| self.shards.iter().all(|shard| shard.place.is_some()))
    }

    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.live.len()).sum()
    }

    /// About what it takes of memory.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.live.bytes() + shard.history.bytes()).sum()
    }

    /// Applies the news of a round that began at `began`.
    pub fn apply(&mut self, news: Vec<ShardNews>, began: Instant, now: Instant) -> Changed {
        let mut changed = Changed::default();
        for (shard, news) in self.shards.iter_mut().zip(news) {
            let (entries, gaps) = shard.apply(news, self.epoch, now);
            changed.entries += entries;
            changed.gaps += gaps;
        }
        if changed != Changed::default() {
            self.newest = None;
        }
        if self.shards.iter().all(|shard| shard.place.is_some()) {
            self.complete = Some(began);
        }
        changed
    }

    /// Forgets what has expired, of one shard at each call.
    pub fn purge(&mut self, now: Instant) {
        self.purged = (self.purged + 1).checked_rem(self.shards.len()).unwrap_or(0);
        if let Some(shard) = self.shards.get_mut(self.purged) {
            shard.live.purge(self.epoch.at(now));
        }
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    pub fn live_keys(&self, shard: usize, now: Instant) -> Vec<RevocationKey> {
        self.shards.get(shard).map(|shard| shard.live.keys(self.epoch.at(now)).collect()).unwrap_or_default()
    }

    /// The keys in force after this one, or the first ones, in order: about `most`. Whether they are the last ones.
    pub fn keys_after(
        &self,
        after: Option<(usize, RevocationKey)>,
        most: usize,
        now: Instant,
    ) -> (Vec<RevocationKey>, bool) {
        let (first, after) = after.map_or((0, None), |(shard, key)| (shard, Some(key)));
        let mut keys = Vec::new();
        for shard in self.shards.iter().skip(first) {
            if keys.len() >= most {
                return (keys, false);
            }
            let more = most.saturating_sub(keys.len()).saturating_add(1);
            keys.extend(shard.live.keys_after(after, self.epoch.at(now)).take(more));
        }
        let is_last = keys.len() <= most;
        keys.truncate(most);
        (keys, is_last)
    }

    pub fn understand(&self, parsed: &Parsed) -> Understood {
        if parsed.marks.len() != self.shards.len() {
            return Understood::Unknown;
        }
        let mut is_ahead = false;
        let (mut numbers, mut places) = (Vec::with_capacity(self.shards.len()), Vec::with_capacity(self.shards.len()));
        for (shard, mark) in self.shards.iter().zip(&parsed.marks) {
            match shard.history.find(*mark) {
                Found::At(number, place) => {
                    numbers.push(number);
                    places.push(place);
                }
                Found::Ahead => is_ahead = true,
                Found::Unknown => return Understood::Unknown,
            }
        }
        if is_ahead {
            return Understood::Ahead;
        }
        match cursor::digest_of(&places) == parsed.digest {
            true => Understood::At(Numbers(numbers)),
            false => Understood::Unknown,
        }
    }

    /// Where a follower is that has everything. `None`: some shard was not read yet.
    pub fn here(&self) -> Option<Numbers> {
        let here = |shard: &Shard| shard.place.map(|_| shard.history.last());
        self.shards.iter().map(here).collect::<Option<_>>().map(Numbers)
    }

    /// Whether every entry of `numbers` is at or after that of `others`, and is still here.
    pub fn is_at_least(&self, numbers: &Numbers, others: &Numbers) -> bool {
        self.has(numbers) && numbers.0.iter().zip(&others.0).all(|(number, other)| number >= other)
    }

    fn has(&self, numbers: &Numbers) -> bool {
        numbers.0.len() == self.shards.len()
            && self.shards.iter().zip(&numbers.0).all(|(shard, number)| shard.history.has(*number))
    }

    /// How many entries came after. `None`: that is not known any more.
    pub fn distance(&self, numbers: &Numbers) -> Option<u64> {
        let since = |(shard, number): (&Shard, &u64)| shard.history.last().saturating_sub(*number);
        self.has(numbers).then(|| self.shards.iter().zip(&numbers.0).map(since).sum())
    }

    /// The cursor at these numbers. `None`: they are not known any more.
    pub fn cursor(&self, step: Step, numbers: &Numbers) -> Option<Cursor> {
        let place = |(shard, number): (&Shard, &u64)| shard.history.place(*number);
        let places: Vec<_> = self.shards.iter().zip(&numbers.0).map(place).collect::<Option<_>>()?;
        cursor::write(step, &places)
    }

    /// The cursor of a follower that has everything.
    pub fn newest(&mut self) -> Option<&Cursor> {
        if self.newest.is_none() {
            self.newest = self.cursor(Step::Following, &self.here()?);
        }
        self.newest.as_ref()
    }

    /// At most `room` keys after `numbers`. `None`: there is none.
    pub fn since(&mut self, numbers: &Numbers, room: usize) -> Option<Lacking> {
        let (mut keys, mut ends, mut more) = (Vec::new(), Vec::with_capacity(self.shards.len()), false);
        for (shard, number) in self.shards.iter().zip(&numbers.0) {
            let (some, end) = shard.history.after(*number, room.saturating_sub(keys.len()));
            keys.extend(some);
            more |= end < shard.history.last();
            ends.push(end);
        }
        if keys.is_empty() && !more {
            return None;
        }
        let cursor = self.cursor(Step::Following, &Numbers(ends))?;
        Some(Lacking { keys, cursor, more })
    }
}

impl Shard {
    /// How many entries there were, and whether there was a gap.
    fn apply(&mut self, news: ShardNews, epoch: Epoch, now: Instant) -> (usize, usize) {
        match news {
            ShardNews::Nothing => (0, 0),
            ShardNews::Gap => {
                self.place = None;
                (0, 1)
            }
            ShardNews::Entries(entries) => {
                for entry in &entries {
                    match entry.change {
                        Change::Begun => {}
                        Change::Revoked { key, expires_in } => self.live.insert(key, epoch.after(now, expires_in)),
                        Change::Lifted { key } => self.live.remove(&key),
                    }
                    self.history.push(*entry);
                    self.place = Some(entry.place);
                }
                self.live.settle();
                (entries.len(), 0)
            }
            ShardNews::Whole { revocations, place, recent } => {
                let count = revocations.len();
                let from = recent.first().map_or(place, |entry| entry.place);
                match count <= MAX_BRIDGE && !self.history.is_empty() {
                    true => self.history.bridge(from, revocations.iter().map(|(key, _)| *key)),
                    false => self.history.restart(from),
                }
                recent.iter().skip(1).for_each(|entry| self.history.push(*entry));
                self.live.replace(revocations.into_iter().map(|(key, left)| (key, epoch.after(now, left))).collect());
                self.place = Some(place);
                (count.max(1), 0)
            }
        }
    }
}

#[cfg(test)]
mod tests;
