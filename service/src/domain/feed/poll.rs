//! The answer to a poll.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::StoreError;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;
use wire::feed::{Cursor, MAX_KEYS, News, Trouble};

use super::cursor::{Parsed, Step};
use super::picture::{Lacking, Numbers, Understood};
use super::snapshot::{self, FRESH, MAX_DISTANCE, Snapshot};
use super::{Feed, State};

/// A poll is held for no longer, whatever it asks for.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// A poll that cannot be answered is held for so long, so that followers do not poll all the time.
pub(super) const TROUBLE_WAIT: Duration = Duration::from_secs(1);
/// For so long a cursor of another instance may be ahead of this one.
pub(super) const AHEAD: Duration = Duration::from_millis(500);
const AHEAD_AT_LEAST: Duration = Duration::from_millis(150);
/// A picture that is older is of no use to a follower: the longest lag that it can have is 5 s.
const MAX_AGE: Duration = Duration::from_secs(5);

enum Look {
    Now(Cursor, News),
    /// The follower has everything.
    Nothing(Cursor, Instant),
    Piece {
        piece: u16,
        pieces: u16,
        from: Numbers,
    },
    NewSnapshot,
    Ahead,
    Trouble(Trouble),
}

impl Feed {
    /// What the follower with this cursor lacks, as soon as there is something, or nothing after `wait`. `received` is when
    /// the poll was received.
    ///
    /// # Errors
    /// Why this instance cannot tell.
    pub async fn poll(
        self: &Arc<Self>,
        cursor: &Cursor,
        wait: Duration,
        received: Instant,
    ) -> Result<(Cursor, News), Trouble> {
        if self.config.max_followers == 0 {
            return Err(Trouble::Disabled);
        }
        let _follower = self.followers.try_acquire().map_err(|_| Trouble::TooManyFollowers)?;
        let _counted = self.metrics.follower();
        self.note_poll();
        let parsed = Parsed::read(cursor);
        let mut changes = self.changes.subscribe();
        let until = |longest: Duration| received + wait.min(longest);
        let mut was_answerable = false;
        loop {
            changes.borrow_and_update();
            let look = self.look(parsed.as_ref(), received);
            let held = match &look {
                Look::Now(..) | Look::Piece { .. } | Look::NewSnapshot => None,
                Look::Nothing(..) => Some(until(MAX_WAIT)),
                // Also for a follower that does not wait: this instance has what it lacks after a round or two, and a
                // snapshot for each follower of an instance that is gone would cost much more.
                Look::Ahead => Some(until(AHEAD).max(received + (self.config.round * 3).min(AHEAD_AT_LEAST))),
                // A follower that waits for news is told at once that there is none.
                Look::Trouble(_) if was_answerable => None,
                Look::Trouble(_) => Some(until(TROUBLE_WAIT)),
            };
            was_answerable |= matches!(look, Look::Nothing(..));
            let held = held.filter(|held| *held > Instant::now() && !self.is_stopping.load(Ordering::Relaxed));
            if let Some(held) = held {
                if timeout_at(held.into(), changes.changed()).await.is_err() {
                    // The time is over: look once more, for the newest proof.
                    return self.finish(self.look(parsed.as_ref(), received), received).await;
                }
                continue;
            }
            return self.finish(look, received).await;
        }
    }

    /// Somebody follows: rounds must be read.
    pub(super) fn note_poll(&self) {
        if self.state().last_poll.replace(Instant::now()).is_none() || !self.is_followed.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    async fn finish(self: &Arc<Self>, look: Look, received: Instant) -> Result<(Cursor, News), Trouble> {
        match look {
            Look::Now(cursor, news) => Ok((cursor, news)),
            Look::Nothing(cursor, complete) => Ok((cursor, keys(complete, received, Vec::new(), false))),
            Look::Trouble(trouble) => Err(trouble),
            Look::Piece { piece, pieces, from } => {
                let feed = Arc::clone(self);
                // To its end, though the follower may be gone: others wait for the same.
                let made =
                    tokio::spawn(async move { feed.snapshot(Some((pieces, &from))).await.map(|made| (made, from)) });
                match made.await.map_err(|_| Trouble::Incomplete)? {
                    Ok((made, from)) => self.piece(&made, piece, &from),
                    Err(_) => self.first_piece().await,
                }
            }
            Look::NewSnapshot | Look::Ahead => self.first_piece().await,
        }
    }

    async fn first_piece(self: &Arc<Self>) -> Result<(Cursor, News), Trouble> {
        let feed = Arc::clone(self);
        let made = tokio::spawn(async move { feed.snapshot(None).await }).await.map_err(|_| Trouble::Incomplete)??;
        self.piece(&made, 0, &made.from)
    }

    fn piece(&self, snapshot: &Snapshot, piece: u16, from: &Numbers) -> Result<(Cursor, News), Trouble> {
        let pieces = u16::try_from(snapshot.pieces.len()).map_err(|_| Trouble::Incomplete)?;
        let membership = snapshot.pieces.get(usize::from(piece)).cloned().ok_or(Trouble::Incomplete)?;
        let next = piece.saturating_add(1);
        let step = if next < pieces { Step::Piece { piece: next, pieces } } else { Step::Following };
        let cursor = self.state().picture.cursor(step, from).ok_or(Trouble::Incomplete)?;
        Ok((cursor, News::Piece { piece, pieces, membership }))
    }

    fn look(&self, parsed: Option<&Parsed>, received: Instant) -> Look {
        let mut state = self.state();
        let complete = match state.usable() {
            Ok(complete) => complete,
            Err(trouble) => return Look::Trouble(trouble),
        };
        let Some(parsed) = parsed else { return Look::NewSnapshot };
        let error = state.error;
        let picture = &mut state.picture;
        match (picture.understand(parsed), parsed.step) {
            (Understood::Unknown, _) => Look::NewSnapshot,
            // An older snapshot would be of no use: another instance knows more.
            (Understood::Ahead, _) => error.map_or(Look::Ahead, |error| Look::Trouble(Trouble::Store(error))),
            (Understood::At(from), Step::Piece { piece, pieces }) => Look::Piece { piece, pieces, from },
            (Understood::At(numbers), Step::Following) => match picture.since(&numbers, MAX_KEYS) {
                Some(Lacking { keys: lacking, cursor, more }) => {
                    Look::Now(cursor, keys(complete, received, lacking, more))
                }
                None => match picture.newest() {
                    Some(cursor) => Look::Nothing(cursor.clone(), complete),
                    None => Look::NewSnapshot,
                },
            },
        }
    }

    /// A snapshot for a new follower, or one in so many pieces that has everything of `from`.
    async fn snapshot(self: Arc<Self>, wanted: Option<(u16, &Numbers)>) -> Result<Arc<Snapshot>, Trouble> {
        let mut snapshots = self.snapshots.lock().await;
        let kept = {
            let state = self.state();
            state.usable()?;
            snapshots.find(|kept| match wanted {
                Some((pieces, from)) => {
                    kept.pieces.len() == usize::from(pieces) && state.picture.is_at_least(&kept.from, from)
                }
                None => {
                    let is_near = state.picture.distance(&kept.from).is_some_and(|since| since <= MAX_DISTANCE);
                    is_near && kept.made.elapsed() < FRESH
                }
            })
        };
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let feed = Arc::clone(&self);
        let pieces = wanted.map(|(pieces, _)| pieces);
        let made = spawn_blocking(move || feed.make_snapshot(pieces)).await.map_err(|_| Trouble::Incomplete)??;
        let made = Arc::new(made);
        snapshots.keep(Arc::clone(&made));
        self.metrics.snapshot(made.bytes());
        Ok(made)
    }

    /// The keys of each shard are copied under the lock, one shard after the other. Each has at least what it had when the
    /// place was taken.
    fn make_snapshot(&self, pieces: Option<u16>) -> Result<Snapshot, Trouble> {
        let (from, keys, shards) = {
            let state = self.state();
            state.usable()?;
            (state.picture.here().ok_or(Trouble::Incomplete)?, state.picture.keys(), state.picture.shards())
        };
        let pieces = pieces.unwrap_or_else(|| snapshot::pieces_for(keys));
        let mut parts = vec![Vec::new(); usize::from(pieces)];
        for shard in 0..shards {
            let keys = self.state().picture.live_keys(shard, Instant::now());
            snapshot::split(keys.into_iter(), &mut parts);
        }
        // A shard may have been read anew meanwhile, or everything forgotten.
        if !self.state().picture.is_at_least(&from, &from) {
            return Err(Trouble::Incomplete);
        }
        Snapshot::make(from, parts).map_err(|error| {
            tracing::error!(%error, "no snapshot could be made");
            Trouble::Incomplete
        })
    }
}

impl State {
    /// As of when the picture is complete.
    pub(super) fn usable(&self) -> Result<Instant, Trouble> {
        match self.error {
            Some(error @ (StoreError::StoreChanged | StoreError::StoreUnsafe)) => return Err(Trouble::Store(error)),
            Some(error) if self.picture.complete().is_none_or(|complete| complete.elapsed() > MAX_AGE) => {
                return Err(Trouble::Store(error));
            }
            _ => {}
        }
        self.picture.complete().ok_or(Trouble::Incomplete)
    }
}

fn keys(complete: Instant, received: Instant, keys: Vec<wire::RevocationKey>, more: bool) -> News {
    News::Keys { complete_millis: millis(complete, received), more, keys }
}

/// Rounded down, to the older.
pub fn millis(complete: Instant, received: Instant) -> i32 {
    match complete.checked_duration_since(received) {
        Some(after) => i32::try_from(after.as_millis()).unwrap_or(i32::MAX),
        None => {
            let before = received.saturating_duration_since(complete).as_nanos().div_ceil(1_000_000);
            i32::try_from(before).map_or(i32::MIN, |before| -before)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_rounded_to_the_older_millisecond() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        assert_eq!(millis(at(1999), at(0)), 1);
        assert_eq!(millis(at(0), at(0)), 0);
        assert_eq!(millis(at(0), at(1)), -1);
        assert_eq!(millis(at(0), at(2000)), -2);
        assert_eq!(millis(at(0), at(2001)), -3);
    }
}
