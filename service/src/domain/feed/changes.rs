//! What another region gets of the feed: exact keys. It has no snapshots; a region reads all keys in pages instead.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use wire::RevocationKey;
use wire::feed::{Cursor, Trouble};
use wire::join::MAX_ENTRIES;

use super::Feed;
use super::cursor::{Parsed, Step};
use super::picture::{Lacking, MAX_BRIDGE, Numbers, Picture, Understood};
use super::poll::{AHEAD, MAX_WAIT, TROUBLE_WAIT};

// A shard that was read anew is sent at once, or not at all.
const _: () = assert!(MAX_ENTRIES >= MAX_BRIDGE);

/// The answer to a region that follows.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    Keys {
        cursor: Cursor,
        keys: Vec<RevocationKey>,
        /// `None`: there are more keys.
        complete: Option<Instant>,
    },
    /// The cursor is not understood. This one is: all of its pages must be read.
    Anew(Cursor),
}

/// A page of all keys.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyPage {
    Keys {
        /// In order.
        keys: Vec<RevocationKey>,
        /// There is no page after it.
        last: bool,
    },
    /// As [`Changes::Anew`].
    Anew(Cursor),
}

enum Look<T> {
    Now(T),
    /// To be held for as long as the region asked for.
    Nothing(T),
    /// To be held until this instance has what another one had.
    Ahead(T),
    Trouble(Trouble),
}

impl Feed {
    /// The keys that changed since the cursor, as soon as there are some, or none after `wait`.
    ///
    /// # Errors
    /// Why this instance cannot tell.
    pub async fn changes(&self, cursor: &Cursor, wait: Duration, received: Instant) -> Result<Changes, Trouble> {
        let parsed = Parsed::read(cursor).filter(|parsed| parsed.step == Step::Following);
        let look = || self.look_exactly(parsed.as_ref(), Changes::Anew, changes_since);
        self.answer(look, received + wait.min(MAX_WAIT), received).await
    }

    /// About `most` keys of revocations in force after this one, in order. All pages together have at least everything up to
    /// the cursor.
    ///
    /// # Errors
    /// Why this instance cannot tell.
    pub async fn page(
        &self,
        cursor: &Cursor,
        after: Option<RevocationKey>,
        most: usize,
        received: Instant,
    ) -> Result<KeyPage, Trouble> {
        let parsed = Parsed::read(cursor).filter(|parsed| parsed.step == Step::Following);
        let after = after.map(|key| (self.log.shard_of(&key), key));
        let page = |picture: &mut Picture, _: &Numbers, _: &Cursor, _: Instant| {
            let (keys, last) = picture.keys_after(after, most, Instant::now());
            Look::Now(KeyPage::Keys { keys, last })
        };
        let look = || self.look_exactly(parsed.as_ref(), KeyPage::Anew, page);
        self.answer(look, received, received).await
    }

    async fn answer<T>(&self, look: impl Fn() -> Look<T>, until: Instant, received: Instant) -> Result<T, Trouble> {
        self.note_poll();
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let looked = look();
            let held = match &looked {
                Look::Now(_) => None,
                Look::Nothing(_) => Some(until),
                Look::Ahead(_) => Some(received + AHEAD),
                Look::Trouble(_) => Some(received + TROUBLE_WAIT),
            };
            let is_stopping = self.is_stopping.load(Ordering::Relaxed);
            let held = held.filter(|held| *held > Instant::now() && !is_stopping);
            let looked = match held {
                Some(held) if timeout_at(held.into(), changes.changed()).await.is_ok() => continue,
                // Once more, for the newest proof.
                Some(_) => look(),
                None => looked,
            };
            return match looked {
                Look::Now(found) | Look::Nothing(found) | Look::Ahead(found) => Ok(found),
                Look::Trouble(trouble) => Err(trouble),
            };
        }
    }

    fn look_exactly<T>(
        &self,
        parsed: Option<&Parsed>,
        anew: fn(Cursor) -> T,
        at: impl Fn(&mut Picture, &Numbers, &Cursor, Instant) -> Look<T>,
    ) -> Look<T> {
        let mut state = self.state();
        let complete = match state.usable() {
            Ok(complete) => complete,
            Err(trouble) => return Look::Trouble(trouble),
        };
        let picture = &mut state.picture;
        let Some(newest) = picture.newest().cloned() else { return Look::Trouble(Trouble::Incomplete) };
        match parsed.map_or(Understood::Unknown, |parsed| picture.understand(parsed)) {
            Understood::Unknown => Look::Now(anew(newest)),
            Understood::Ahead => Look::Ahead(anew(newest)),
            Understood::At(numbers) => at(picture, &numbers, &newest, complete),
        }
    }
}

fn changes_since(picture: &mut Picture, numbers: &Numbers, newest: &Cursor, complete: Instant) -> Look<Changes> {
    match picture.since(numbers, MAX_ENTRIES) {
        Some(Lacking { keys, cursor, more }) => {
            Look::Now(Changes::Keys { cursor, keys, complete: (!more).then_some(complete) })
        }
        None => Look::Nothing(Changes::Keys { cursor: newest.clone(), keys: Vec::new(), complete: Some(complete) }),
    }
}
