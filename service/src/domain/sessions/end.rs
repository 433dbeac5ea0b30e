//! The end of a session, here and in every filter.
use std::sync::Arc;
use std::time::Duration;

use wire::{Answer, Kind};

use super::records::StoredSession;
use super::{SessionEvent, Sessions};
use crate::base::clock::unix_seconds;
use crate::domain::revocations::{RevokeError, RevokeRequest, Subject};
use crate::model::session_keys::Sid;
use store::WriteError;

/// How often, and after what pauses, the end of a stolen session is tried again while the store fails.
const RETRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// Whether a session is marked as stolen, as far as the store's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stolen {
    Yes,
    Perhaps,
}

impl Sessions {
    /// Ends a session because a caller asked for it.
    ///
    /// # Errors
    /// As for [`Sessions::end`].
    pub async fn end_asked(&self, kept: &StoredSession, reason: Option<&str>, by: &str) -> Result<(), WriteError> {
        self.end(kept, reason, by).await?;
        self.events.count(SessionEvent::Ended.name());
        Ok(())
    }

    /// Ends everything that was issued for a subject until now, also sessions that no list has. Returns the time before which
    /// tokens are dead.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn end_user(&self, subject: &str, reason: Option<&str>, by: &str) -> Result<Option<u64>, RevokeError> {
        let subject = Subject::known(Kind::User, &self.config.issuer, subject);
        let request = RevokeRequest::internal(subject, reason, self.revocations.policy());
        let revoked = self.revocations.revoke_known(&request, by).await?;
        Ok(match revoked.answer {
            Answer::Before(before) => Some(before),
            Answer::Dead | Answer::Live => None,
        })
    }

    /// Ends a session here and in every filter.
    ///
    /// # Errors
    /// It may not be ended everywhere. It gives no more tokens if the store was reached at all.
    pub async fn end(&self, kept: &StoredSession, reason: Option<&str>, by: &str) -> Result<(), WriteError> {
        let store = self.store();
        let marked = store.mark_ended(kept, "ended").await;
        // Also if that failed: filters see the revocation. The session's tokens do not outlive it, so the revocation need not.
        let left = kept.data.ends.saturating_sub(unix_seconds());
        let ttl = Duration::from_secs(left) + self.config.revocation_margin;
        self.revocations.end_session(&kept.data, reason, by, ttl).await?;
        marked?;
        // The record is marked as ended, and expires by itself.
        if let Err(error) = store.forget(kept.at, kept.sid, &kept.data).await {
            tracing::debug!(%error, "an ended session stays in Redis until it expires");
        }
        Ok(())
    }

    /// Ends a session that is marked as ended in the background, until [`Sessions::end`] succeeds. An unmarked one is
    /// left.
    pub(super) fn end_later(self: &Arc<Self>, sid: Sid, stolen: Stolen) {
        // Many may be in doubt while Redis is slow; they must not take the places of those that are not.
        let permits = if stolen == Stolen::Yes { &self.ending } else { &self.doubted };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            // One in doubt ends when one of its refresh tokens is next seen.
            if stolen == Stolen::Yes {
                tracing::error!(%sid, "too many sessions are waiting to be ended: end this one by hand");
            }
            return;
        };
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            let _permit = permit;
            for _ in 0..RETRIES {
                tokio::time::sleep(PAUSE).await;
                match sessions.store().find(sid).await {
                    Ok(None) => return,
                    Ok(Some(kept)) if kept.ended.is_none() => return,
                    Ok(Some(kept)) => {
                        if sessions.end(&kept, Some("refresh token reused"), "service").await.is_ok() {
                            tracing::info!(%sid, "ended by a retry");
                            return;
                        }
                    }
                    Err(_) => {}
                }
            }
            if stolen == Stolen::Yes {
                tracing::error!(%sid, "could not be ended: end it by hand");
            }
        });
    }
}
