//! The lag of a revocation: the time until the first check is answered with it. Each is measured once, independent of the
//! instance that wrote it and the instance that answers first, by one clock: that of the Redis that has it.
//!
//! ```text
//! portcullis:{<bucket>}:m:<key>   when revoke.lua wrote a new entry, in microseconds of Redis's clock; for 10 s
//! ```
//! The instance that deletes the mark counts the time that has passed. If a mark is lost, its revocation is not measured;
//! nothing else depends on it.
use std::collections::HashSet;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wire::{Answer, RevocationKey};

use crate::entry::{Bucket, MARK_TTL, mark_name};
use crate::reader::Reader;
use crate::writer::Writer;
use store::clock::unix_seconds;

/// Keys that are looked up in one [`MARK_TTL`]. More are not measured, so that a client with many revoked tokens costs no
/// more.
const MAX_LOOKED_UP: usize = 1024;
/// Concurrent lookups.
const MAX_TASKS: usize = 4;

#[derive(Debug)]
pub struct Lag {
    reader: Arc<Reader>,
    /// Deletes the marks.
    writer: Arc<Writer>,
    /// Off on a replica, which cannot delete.
    is_on: bool,
    seen: Mutex<Seen>,
    places: Arc<Semaphore>,
}

/// Keys that were looked up recently.
#[derive(Debug, Default)]
struct Seen {
    since: Option<Instant>,
    now: HashSet<RevocationKey>,
    before: HashSet<RevocationKey>,
}

impl Lag {
    pub fn new(reader: Arc<Reader>, writer: Arc<Writer>, is_on: bool) -> Self {
        Self { reader, writer, is_on, seen: Mutex::default(), places: Arc::new(Semaphore::new(MAX_TASKS)) }
    }

    /// Notes the answers to a check. No answer waits for it.
    pub fn tell(&self, keys: &[RevocationKey], answers: &[Answer]) {
        if answers.iter().all(|answer| *answer == Answer::Live) {
            return;
        }
        let now = unix_seconds();
        let is_old = |before: u64| before.saturating_add(MARK_TTL.as_secs()) < now;
        let ended = keys.iter().zip(answers).filter_map(|(key, answer)| match answer {
            Answer::Dead => Some(*key),
            Answer::Before(before) if !is_old(*before) => Some(*key),
            Answer::Before(_) | Answer::Live => None,
        });
        self.tell_ended(ended);
    }

    /// As [`Lag::tell`], for keys that are known to be revoked.
    pub fn tell_ended(&self, keys: impl Iterator<Item = RevocationKey>) {
        if !self.is_on {
            return;
        }
        let now = Instant::now();
        let new: Vec<_> = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            keys.filter(|key| seen.add(*key, now)).collect()
        };
        if new.is_empty() {
            return;
        }
        // Keys that are left out are not looked up later either: that would count a later answer as the first one.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (reader, writer) = (Arc::clone(&self.reader), Arc::clone(&self.writer));
        tokio::spawn(async move {
            let _place = place;
            for key in new {
                if let Some(passed) = passed(&reader, &writer, key).await {
                    reader.observer.revocation_lag(passed);
                }
            }
        });
    }
}

/// How long ago `key` was revoked, if its mark is still there.
async fn passed(reader: &Reader, writer: &Writer, key: RevocationKey) -> Option<Duration> {
    let (bucket, name) = (Bucket::of(key.0), mark_name(key));
    let get = redis::cmd("GET").arg(&name).clone();
    let mut replies = reader.read(bucket, &[get, redis::cmd("TIME")]).await.ok()?.into_iter();
    let mark = redis::from_redis_value::<Option<String>>(replies.next()?).ok()??;
    let (seconds, micros): (u64, u64) = redis::from_redis_value(replies.next()?).ok()?;
    // Of all instances that read it, one deletes it.
    let (taken, _) = writer.run(bucket, redis::cmd("DEL").arg(&name).clone()).await.ok()?;
    let is_ours = redis::from_redis_value::<u64>(taken).ok()? == 1;
    let (now, at) = (seconds.saturating_mul(1_000_000).saturating_add(micros), mark.parse().ok()?);
    is_ours.then(|| Duration::from_micros(now.saturating_sub(at)))
}

impl Seen {
    /// Whether it is new here, and there is room.
    fn add(&mut self, key: RevocationKey, now: Instant) -> bool {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= MARK_TTL {
            self.before = take(&mut self.now);
            self.since = Some(now);
        }
        if age >= MARK_TTL * 2 {
            self.before.clear();
        }
        if self.before.contains(&key) || self.now.len() >= MAX_LOOKED_UP {
            return false;
        }
        self.now.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> RevocationKey {
        RevocationKey((number as u128).to_be_bytes())
    }

    #[test]
    fn a_key_is_looked_up_again_only_when_its_mark_has_gone() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.add(key(1), start));
        assert!(!seen.add(key(1), start));
        assert!(!seen.add(key(1), start + MARK_TTL), "it was seen in the time before");
        assert!(seen.add(key(1), start + MARK_TTL * 2));
        assert!(seen.add(key(1), start + MARK_TTL * 5), "long after");
    }

    #[test]
    fn no_more_are_looked_up_than_the_bound() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert_eq!((0..MAX_LOOKED_UP * 2).filter(|number| seen.add(key(*number), start)).count(), MAX_LOOKED_UP);
        assert!(!seen.add(key(MAX_LOOKED_UP + 1), start));
        assert!(seen.add(key(MAX_LOOKED_UP + 1), start + MARK_TTL));
        assert_eq!(seen.now.len() + seen.before.len(), MAX_LOOKED_UP + 1);
    }
}
