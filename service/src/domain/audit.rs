//! The audit log: the actor, the action, the time and the reason. Entries are encrypted before they go to the store, which
//! bounds them by age and number. They never hold a token.
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::check::StoreError;

use crate::base::clock::unix_seconds;
use crate::base::throttle::Throttle;
use crate::model::session_keys::Ring;
use store::{AuditBounds, AuditFrom, AuditLog, WriteError};

/// The most entries of one page.
pub const MAX_PAGE: usize = 1000;
/// How often a refusal is written. Strangers cause refusals, and at one a second they would push out of the stream what is to
/// be kept for months.
pub const REFUSALS_AUDITED_EVERY: Duration = Duration::from_secs(60);
/// The longest text of an entry, in bytes.
const MAX_TEXT: usize = 512;

#[derive(Debug)]
pub struct Audit {
    log: Arc<dyn AuditLog>,
    ring: Arc<Ring>,
    keep: Duration,
    /// Throttles the log of entries that could not be written.
    lost: Throttle,
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Unix seconds.
    pub at: u64,
    /// `admin` for the admin token, `certificate:…` or `client:…`, `backchannel-logout of …` and the like for what a provider
    /// sent, `nobody` for an unauthenticated caller.
    pub by: String,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The action: `session.create`, `session.end`, `refresh.reuse`, `revoke`, `lift`, or method and route.
    pub action: String,
    /// `done`, or the status or code of the refusal.
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
    /// Other targets: a key of a revocation, a jti, a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An entry as read: its position in the stream, and its content.
#[derive(Serialize, ToSchema)]
pub struct Entry {
    /// `<Unix milliseconds>-<number>`; the next page starts after it.
    pub id: String,
    /// Absent if it can no longer be decrypted.
    #[serde(flatten)]
    pub event: Option<Event>,
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

    /// Also what clients choose: the method at the start of an action can have any length.
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
    pub fn new(log: Arc<dyn AuditLog>, ring: Arc<Ring>, keep: Duration) -> Self {
        Self { log, ring, keep, lost: Throttle::default() }
    }

    /// Adds an entry. If it cannot be written, the action itself stands, and the entry is logged instead.
    pub async fn write(&self, mut event: Event) {
        event.shorten();
        match self.add(&event).await {
            // It does not wait for disks: a revocation must not fail because of a slow disk under its audit entry.
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
        let sealed = self.ring.seal(self.ring.first(), CONTEXT, text).map_err(failed)?;
        let bounds = AuditBounds { max_age: self.keep, max_entries: AuditBounds::MAX_ENTRIES };
        self.log.append(sealed, bounds).await
    }

    /// At most `limit` entries, oldest first, without expired ones.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn read(&self, from: AuditFrom, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.log.page(from, limit, self.keep).await?;
        let read = |entry: store::AuditEntry| Entry { id: entry.id.to_string(), event: self.open(&entry.sealed) };
        Ok(entries.into_iter().map(read).collect())
    }

    fn open(&self, sealed: &[u8]) -> Option<Event> {
        let text = self.ring.all().find_map(|at| self.ring.open(at, CONTEXT, sealed))?;
        serde_json::from_slice(&text).ok()
    }
}

/// The context that entries are encrypted for. There is one stream.
const CONTEXT: &str = "audit";

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
