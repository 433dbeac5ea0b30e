//! The state of a follower of the service's feed: where it is, what it knows, and when it polls next. Sends nothing itself.
use std::sync::Arc;
use std::time::Duration;

use authn::revocation::{CHUNK, FeedSettings, Picture};
use authn::time::Monotonic;
use wire::RevocationKey;
use wire::feed::{Cursor, MAX_PIECES, Membership, News, Reply, Trouble};

/// One follower.
#[derive(Debug)]
pub struct Following {
    settings: FeedSettings,
    cursor: Cursor,
    picture: Arc<Picture>,
    /// Names this picture among all that were made in this process. 0: there is none yet.
    generation: u64,
    /// The last name that this follower gave, which begins at random.
    named: u64,
    /// The picture has every revocation that was acknowledged before this moment.
    complete: Monotonic,
    /// A snapshot of which not all pieces have come.
    building: Option<Building>,
    /// Since when a poll is in flight.
    polling: Option<Monotonic>,
    due: Monotonic,
    failures: u32,
    /// When the snapshot in use is replaced.
    outdated: Monotonic,
    jitter: u64,
}

#[derive(Debug)]
struct Building {
    pieces: Vec<Membership>,
    of: u16,
}

/// What a poll changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A newer proof at most.
    Proof,
    /// These keys came.
    Keys(Vec<RevocationKey>),
    /// A new snapshot is in place.
    Snapshot,
    /// A piece of a snapshot came. Nothing changes for requests.
    Piece,
    /// The picture would be larger than its bound: the feed is off for a while.
    TooLarge,
}

/// So many keys after a snapshot, and a new snapshot is taken: revoked keys that have expired leave with it.
const MOST_LATER: usize = 16 * CHUNK;
/// A snapshot is replaced after half of this to the whole.
const SNAPSHOT_SERVES: Duration = Duration::from_secs(600);
/// After a failure. Doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// After the service said that it has no room for this follower, or no feed, or too much for it.
const LONG_RETRY: Duration = Duration::from_secs(10);
/// A poll for a piece or for what is there already.
const QUICK_TIMEOUT: Duration = Duration::from_secs(1);

impl Following {
    pub fn new(settings: FeedSettings, seed: u64) -> Self {
        Self {
            settings,
            cursor: Cursor::default(),
            picture: Arc::default(),
            generation: 0,
            named: seed,
            complete: Monotonic(0),
            building: None,
            polling: None,
            due: Monotonic(0),
            failures: 0,
            outdated: Monotonic(0),
            jitter: seed | 1,
        }
    }

    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub fn picture(&self) -> &Arc<Picture> {
        &self.picture
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn complete(&self) -> Monotonic {
        self.complete
    }

    pub fn is_due(&self, now: Monotonic) -> bool {
        self.polling.is_none() && self.due <= now
    }

    /// When it polls next. `None`: a poll is in flight.
    pub fn waits_until(&self) -> Option<Monotonic> {
        self.polling.is_none().then_some(self.due)
    }

    /// How long the service may hold the next poll, and how long its reply may take.
    ///
    /// A proof must come again before the last one is too old, also after one poll was lost: 0.4 of the lag to hold it, 0.3
    /// for the way, and the rest for the poll after it, which is not held.
    pub fn timing(&self) -> (Duration, Duration) {
        if self.is_behind() {
            return (Duration::ZERO, QUICK_TIMEOUT);
        }
        let wait = self.settings.lag.mul_f64(0.4);
        (wait, wait.saturating_add(self.settings.lag.mul_f64(0.3)))
    }

    /// The next reply does not wait for anything.
    fn is_behind(&self) -> bool {
        self.failures > 0 || self.complete.0 == 0 || self.building.is_some() || self.cursor.is_start()
    }

    pub fn sent(&mut self, now: Monotonic) {
        self.polling = Some(now);
    }

    /// No poll of this follower counts any longer, and another VM may follow.
    pub fn stop(&mut self, due: Monotonic) {
        self.polling = None;
        self.due = due;
    }

    /// The reply to a poll that was sent at `sent`.
    pub fn on_reply(&mut self, reply: Reply, sent: Monotonic, now: Monotonic) -> Change {
        self.polling = None;
        self.failures = 0;
        self.due = now;
        match reply.news {
            News::Piece { piece, pieces, membership } => self.on_piece(piece, pieces, membership, reply.cursor, now),
            News::Keys { complete_millis, more, keys } => {
                self.cursor = reply.cursor;
                let complete = if more { None } else { Some(moment(sent, complete_millis, now)) };
                self.on_keys(keys, complete, now)
            }
        }
    }

    fn on_piece(&mut self, piece: u16, of: u16, membership: Membership, cursor: Cursor, now: Monotonic) -> Change {
        if piece == 0 {
            self.building = Some(Building { pieces: Vec::new(), of });
        }
        let Some(building) = &mut self.building else { return self.start_anew(now) };
        if of == 0 || of > MAX_PIECES || building.of != of || usize::from(piece) != building.pieces.len() {
            return self.start_anew(now);
        }
        building.pieces.push(membership);
        let bytes = building.pieces.iter().map(Membership::len_bytes).fold(0, usize::saturating_add);
        if bytes > self.settings.max_bytes {
            self.building = None;
            self.forget();
            self.due = now.plus(LONG_RETRY);
            return Change::TooLarge;
        }
        self.cursor = cursor;
        Change::Piece
    }

    /// The service does not keep to the order of a snapshot.
    fn start_anew(&mut self, now: Monotonic) -> Change {
        self.building = None;
        self.cursor = Cursor::default();
        self.failed(now);
        self.due = now.plus(self.spread(FIRST_RETRY));
        Change::Piece
    }

    fn on_keys(&mut self, keys: Vec<RevocationKey>, complete: Option<Monotonic>, now: Monotonic) -> Change {
        if let Some(building) = self.building.take() {
            // A snapshot of which pieces are missing is none.
            if building.pieces.len() != usize::from(building.of) {
                return self.start_anew(now);
            }
            // Its own proof must come with it: that of the earlier picture says nothing about this one.
            self.picture = Arc::new(self.picture.replaced(building.pieces, now).with(&keys, now));
            self.named = self.named.wrapping_add(1).max(1);
            self.generation = self.named;
            self.complete = complete.unwrap_or_default();
            // Followers that began together do not take the next one together.
            self.outdated = now.plus(self.spread(SNAPSHOT_SERVES));
            return Change::Snapshot;
        }
        if self.generation == 0 {
            // Keys without the snapshot that they belong to.
            return self.start_anew(now);
        }
        if let Some(complete) = complete {
            // Never later than it was proved. It may be earlier than the last one, by another instance that is behind: then
            // the last one still holds, since the picture only grew.
            self.complete = self.complete.max(complete);
        }
        let change = match keys.is_empty() {
            true => Change::Proof,
            false => {
                self.picture = Arc::new(self.picture.with(&keys, now));
                Change::Keys(keys)
            }
        };
        if self.picture.bytes() > self.settings.max_bytes {
            self.forget();
            self.due = now.plus(LONG_RETRY);
            return Change::TooLarge;
        }
        if self.picture.later() >= MOST_LATER || now >= self.outdated {
            // The picture stays in use meanwhile, and grows no more.
            self.cursor = Cursor::default();
        }
        change
    }

    /// Nothing is known any longer.
    fn forget(&mut self) {
        self.cursor = Cursor::default();
        self.picture = Arc::new(self.picture.replaced(Vec::new(), Monotonic(0)));
        self.complete = Monotonic(0);
        self.generation = 0;
    }

    /// A poll had no reply of the service, or could not be sent.
    pub fn failed(&mut self, now: Monotonic) {
        self.polling = None;
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(8)).min(LAST_RETRY);
        // The first time at once: the proof may still be renewed in time.
        let pause = if self.failures == 0 { Duration::ZERO } else { self.spread(doubled) };
        self.failures = self.failures.saturating_add(1);
        self.due = now.plus(pause);
    }

    /// The service has nothing for this follower.
    pub fn refused(&mut self, trouble: Trouble, now: Monotonic) {
        self.failed(now);
        match trouble {
            Trouble::Disabled | Trouble::TooManyFollowers => {
                let pause = self.spread(LONG_RETRY);
                self.due = now.plus(pause);
            }
            Trouble::Store(_) | Trouble::Incomplete => {
                let pause = self.spread(FIRST_RETRY.saturating_mul(1 << self.failures.min(4)));
                self.due = now.plus(pause);
            }
        }
    }

    /// Takes over what another VM knows.
    pub fn adopt(&mut self, generation: u64, picture: Arc<Picture>, complete: Monotonic) {
        if generation != self.generation {
            self.outdated = picture.taken().plus(self.spread(SNAPSHOT_SERVES));
        }
        self.generation = generation;
        self.picture = picture;
        self.complete = complete;
        self.building = None;
    }

    /// Goes on from where another VM stopped. `None`: from a snapshot.
    pub fn take_over(&mut self, cursor: Option<Cursor>, now: Monotonic) {
        self.cursor = cursor.unwrap_or_default();
        if self.generation != 0 {
            self.named = self.named.wrapping_add(1).max(1);
            self.generation = self.named;
        }
        self.building = None;
        self.polling = None;
        self.failures = 0;
        self.due = now;
    }

    /// Half of it to the whole, so that many followers do not poll at the same moment.
    fn spread(&mut self, pause: Duration) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let thousandths = u32::try_from(self.jitter % 500).unwrap_or(0).saturating_add(500);
        pause.saturating_mul(thousandths).checked_div(1000).unwrap_or(pause)
    }
}

/// The service counts from when it received the poll, which was not before it was sent. A moment that has not come yet proves
/// no more than now.
fn moment(sent: Monotonic, millis: i32, now: Monotonic) -> Monotonic {
    let by = Duration::from_millis(millis.unsigned_abs().into());
    let moment = match millis < 0 {
        true => Monotonic(sent.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))),
        false => sent.plus(by),
    };
    moment.min(now)
}

#[cfg(test)]
mod tests;
