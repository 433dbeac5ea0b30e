//! Who did what, when and why: a stream in Redis to which is only added, trimmed by age and number. Entries are encrypted, so
//! a dump of Redis names nobody. They never hold a token.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, Value as Reply};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::check::StoreError;

use crate::base::clock::{unix_millis, unix_seconds};
use crate::base::throttle::Throttle;
use crate::model::session_keys::Ring;
use store_redis::{MAX_AUDIT_ENTRIES, Name, Store, WriteError};

/// The most entries of one page.
pub const MAX_PAGE: usize = 1000;
/// One command trims by age or by number. Every so many entries it is by number.
const COUNT_EVERY: u32 = 16;
/// The longest that a text of an entry is kept.
const MAX_TEXT: usize = 512;

#[derive(Debug)]
pub struct Audit {
    store: Arc<Store>,
    ring: Arc<Ring>,
    keep: Duration,
    added: AtomicU32,
    /// Entries that could not be written, as they are logged.
    lost: Throttle,
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Unix seconds.
    pub at: u64,
    /// `admin` for the bearer secret, `certificate:…` or `client:…`, `nobody` for who did not say.
    pub by: String,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done or tried: `session.create`, `session.end`, `refresh.reuse`, `revoke`, `lift`, or method and route.
    pub action: String,
    /// `done`, or the status or code with which it was refused.
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Of another kind than those above: a key of a revocation, a jti, a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An entry as it is read: where in the stream it is, and what it says.
#[derive(Serialize, ToSchema)]
pub struct Entry {
    /// `<Unix milliseconds>-<number>`; a page goes on after it.
    pub id: String,
    /// Absent if it cannot be decrypted any more.
    #[serde(flatten)]
    pub event: Option<Event>,
}

/// Which entries are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Those after this id or these Unix milliseconds.
    After(String),
    /// The newest.
    Last,
}

impl Event {
    pub fn new(by: &str, action: &str, outcome: &str) -> Self {
        Self {
            at: unix_seconds(),
            by: by.to_owned(),
            from: None,
            action: action.to_owned(),
            outcome: outcome.to_owned(),
            kind: None,
            iss: None,
            sub: None,
            sid: None,
            client_id: None,
            id: None,
            reason: None,
        }
    }

    /// Also what strangers choose: the method that begins an action can be of any length.
    fn shorten(&mut self) {
        let given = [
            &mut self.sub,
            &mut self.sid,
            &mut self.client_id,
            &mut self.id,
            &mut self.reason,
            &mut self.iss,
            &mut self.kind,
        ];
        given.into_iter().flatten().chain([&mut self.by, &mut self.action, &mut self.outcome]).for_each(shorten);
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("action", &self.action).finish_non_exhaustive()
    }
}

impl Audit {
    pub fn new(store: Arc<Store>, ring: Arc<Ring>, keep: Duration) -> Self {
        Self { store, ring, keep, added: AtomicU32::new(0), lost: Throttle::default() }
    }

    /// Adds an entry. What was done stands if it cannot be written: the log then has what the stream has not.
    pub async fn write(&self, mut event: Event) {
        event.shorten();
        match self.add(&event).await {
            // Written is enough: a revocation must not fail for a slow disk under its audit entry.
            Ok(()) | Err(WriteError::Unconfirmed(_)) => {}
            Err(error) => {
                if let Some(more) = self.lost.pass(Instant::now()) {
                    let (action, outcome) = (&event.action, &event.outcome);
                    tracing::error!(%error, action, outcome, by = event.by, more, "an audit entry could not be written");
                }
            }
        }
    }

    async fn add(&self, event: &Event) -> Result<(), WriteError> {
        let failed = |_| WriteError::NotWritten(StoreError::StoreFailed);
        let text = serde_json::to_vec(event).map_err(|_| WriteError::NotWritten(StoreError::StoreFailed))?;
        let sealed = self.ring.seal(self.ring.first(), PLACE, text).map_err(failed)?;
        let mut add = redis::cmd("XADD");
        add.arg(name());
        match self.added.fetch_add(1, Ordering::Relaxed) % COUNT_EVERY {
            0 => add.arg("MAXLEN").arg("~").arg(MAX_AUDIT_ENTRIES),
            _ => add.arg("MINID").arg("~").arg(self.oldest()),
        };
        add.arg("*").arg("e").arg(sealed);
        self.store.write(&Name::of_audit(), add).await.map(|_| ())
    }

    /// Unix milliseconds: what is older is no longer kept.
    fn oldest(&self) -> u64 {
        unix_millis().saturating_sub(u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX))
    }

    /// At most `limit` entries, in their order. None that are too old, which stay in Redis until their whole node of the
    /// stream is and another entry is added.
    ///
    /// # Errors
    /// As for [`Store::read`].
    pub async fn read(&self, from: &From, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut range: Cmd;
        match from {
            From::After(after) => {
                range = redis::cmd("XRANGE");
                let millis = after.split('-').next().and_then(|millis| millis.parse::<u64>().ok());
                let is_kept = millis.is_some_and(|millis| millis >= self.oldest());
                let from = if is_kept { format!("({after}") } else { self.oldest().to_string() };
                range.arg(name()).arg(from).arg("+");
            }
            From::Last => {
                range = redis::cmd("XREVRANGE");
                range.arg(name()).arg("+").arg(self.oldest());
            }
        }
        range.arg("COUNT").arg(limit);
        let reply: Option<Reply> = self.store.read(Name::of_audit().bucket, &[range]).await?.into_iter().next();
        let found: Vec<(String, Vec<Vec<u8>>)> =
            reply.and_then(|reply| redis::from_redis_value(reply).ok()).ok_or(StoreError::StoreFailed)?;
        let mut entries: Vec<_> =
            found.into_iter().map(|(id, fields)| Entry { id, event: self.open(&fields) }).collect();
        if *from == From::Last {
            entries.reverse();
        }
        Ok(entries)
    }

    fn open(&self, fields: &[Vec<u8>]) -> Option<Event> {
        let sealed = fields.get(1)?;
        let text = self.ring.all().find_map(|at| self.ring.open(at, PLACE, sealed))?;
        serde_json::from_slice(&text).ok()
    }
}

/// What entries are encrypted for; there is one stream.
const PLACE: &str = "audit";

fn name() -> String {
    Name::of_audit().text
}

fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut text = "é".repeat(400);
        shorten(&mut text);
        assert_eq!((text.len(), text.chars().all(|c| c == 'é')), (512, true));
    }

    #[test]
    fn who_is_refused_cannot_make_entries_longer() {
        let long = "X".repeat(100_000);
        let mut event = Event { reason: Some(long.clone()), ..Event::new("nobody", &long, "401") };
        event.shorten();
        assert!(serde_json::to_vec(&event).unwrap().len() < 3 * MAX_TEXT);
    }
}
