//! What other regions get of this one: the keys come from the feed's copy, and the entries from the store.
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{RevocationStore, StoreId, StoredRevocation};
use tokio::sync::Semaphore;
use wire::feed::Trouble;
use wire::join::{Content, Ends, Entry, Facts, MAX_ROWS, MAX_SECRETS, Question, Row};
use wire::{Answer, RevocationKey};

use super::OurFacts;
use crate::base::clock::unix_seconds;
use crate::domain::feed::{Changes, Feed, KeyPage, millis};

/// Requests of regions that are answered at the same time.
const MAX_AT_ONCE: usize = 128;
/// Entries that are read from the store at once.
const READ: usize = 256;

#[derive(Debug)]
pub struct Serving {
    feed: Arc<Feed>,
    store: Arc<dyn RevocationStore>,
    facts: OurFacts,
    places: Semaphore,
}

impl Serving {
    pub fn new(feed: Arc<Feed>, store: Arc<dyn RevocationStore>, facts: OurFacts) -> Self {
        Self { feed, store, facts, places: Semaphore::new(MAX_AT_ONCE) }
    }

    pub fn facts(&self) -> Facts {
        Facts {
            store: self.store.id().map(StoreId::bytes).unwrap_or_default(),
            keeps: self.facts.keeps,
            future_iat_tolerance_seconds: self.facts.needs().future_iat_tolerance_seconds,
            now_seconds: unix_seconds(),
            secrets: self.facts.secrets.iter().copied().take(MAX_SECRETS).collect(),
        }
    }

    /// # Errors
    /// Why this instance cannot tell.
    pub async fn answer(&self, question: &Question, received: Instant) -> Result<Content, Trouble> {
        let _place = self.places.try_acquire().map_err(|_| Trouble::TooManyFollowers)?;
        match question {
            Question::Changes { cursor, wait } => match self.feed.changes(cursor, *wait, received).await? {
                Changes::Anew(cursor) => Ok(Content::Anew(cursor)),
                Changes::Keys { cursor, mut keys, complete } => {
                    keys.sort_unstable();
                    keys.dedup();
                    let entries = self.entries(&keys, received).await?;
                    let complete_millis = complete.map_or(i32::MIN, |complete| millis(complete, received));
                    Ok(Content::Changes { cursor, complete_millis, more: complete.is_none(), entries })
                }
            },
            Question::Page { cursor, after } => match self.feed.page(cursor, *after, MAX_ROWS, received).await? {
                KeyPage::Anew(cursor) => Ok(Content::Anew(cursor)),
                KeyPage::Keys { keys, last } => {
                    let next = keys.last().copied().filter(|_| !last);
                    let mut rows: Vec<_> =
                        self.entries(&keys, received).await?.into_iter().map(|entry| entry.row).collect();
                    rows.sort_unstable_by_key(|row| row.key);
                    Ok(Content::Page { rows, next })
                }
            },
            Question::Entries(keys) => Ok(Content::Entries(self.entries(keys, received).await?)),
        }
    }

    async fn entries(&self, keys: &[RevocationKey], received: Instant) -> Result<Vec<Entry>, Trouble> {
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ) {
            // Before it is read: rather too short than too long.
            let elapsed = received.elapsed();
            let stored = self.store.show_all(keys).await.map_err(Trouble::Store)?;
            entries.extend(stored.into_iter().filter_map(|stored| entry(stored, elapsed)));
        }
        Ok(entries)
    }
}

/// `None`: it is no revocation.
fn entry(stored: StoredRevocation, elapsed: Duration) -> Option<Entry> {
    let ends = match stored.answer {
        // In a form that this version does not know. Checks of the key fail here. Elsewhere they must not pass either.
        None | Some(Answer::Dead) => Ends::All,
        Some(Answer::Before(before)) => Ends::Before(before),
        Some(Answer::Live) => return None,
    };
    let ttl = stored.expires_in.map(|left| left.saturating_add(elapsed));
    Some(Entry { row: Row { key: stored.key, ends, ttl }, sealed: stored.sealed })
}
