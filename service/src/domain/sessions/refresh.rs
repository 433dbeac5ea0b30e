//! A refresh token is exchanged for the next one. A token that is used again was stolen, or its successor was: the session
//! ends.
use std::sync::Arc;
use std::time::Instant;

use jose::base64url;
use wire::check::StoreError;
use wire::opaque_token::{OpaqueToken, Purpose};

use super::end::Stolen;
use super::issue::IssueError;
use super::records::StoredSession;
use super::{SessionEvent, Sessions, Tokens, request};
use crate::base::clock::unix_seconds;
use crate::domain::audit::Event;
use crate::domain::clients::Client;
use crate::domain::status_lists::PlaceError;
use crate::model::session_keys::Sid;
use store::Rotated;

use crate::signing::SignError;
use store::WriteError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshError {
    InvalidGrant(&'static str),
    InvalidScope,
    /// The session is bound to a key that the client has not proved to have.
    InvalidDpopProof(&'static str),
    /// The store could not be asked, or did not confirm.
    Unavailable(StoreError),
    Sign(SignError),
    /// No status list has room for the new token.
    ListsFull,
    /// The system gave no randomness.
    Internal,
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        RefreshError::Unavailable(error)
    }
}

impl From<WriteError> for RefreshError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotWritten(error) | WriteError::Unknown(error) => RefreshError::Unavailable(error),
            WriteError::Unconfirmed(_) => RefreshError::Unavailable(StoreError::StoreUnsafe),
        }
    }
}

impl From<IssueError> for RefreshError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Sign(error) => RefreshError::Sign(error),
            IssueError::Place(PlaceError::Full) => RefreshError::ListsFull,
            IssueError::Place(PlaceError::Store(error)) => RefreshError::Unavailable(error),
        }
    }
}

impl Sessions {
    /// `proved`: the key that the client has proved to have. The new access token is bound to it.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(
        self: &Arc<Self>,
        client: &Client,
        text: &str,
        scope: Option<&str>,
        proved: Option<[u8; 32]>,
    ) -> Result<Tokens, RefreshError> {
        const GONE: RefreshError = RefreshError::InvalidGrant("the refresh token is invalid, or its session has ended");
        let token = OpaqueToken::parse(Purpose::Refresh, text.as_bytes()).ok_or(GONE)?;
        // Only a token that we made gets further, and can end the session by its reuse.
        let at = self.ring.maker_of(&token).ok_or(GONE)?;
        let sid = Sid(token.sid);
        let store = self.store();
        let kept = store.read(at, sid).await?.ok_or(GONE)?;
        if kept.data.client_id.as_deref() != Some(&client.id) {
            // It can be repeated without end, so the audit log has one of many.
            if self.foreign_tokens.pass(Instant::now()).is_some() {
                self.tell(&kept, "refresh", "refused", client, "the refresh token belongs to another client").await;
            }
            return Err(RefreshError::InvalidGrant("the refresh token was issued to another client"));
        }
        if kept.ended.is_some() {
            // It is marked as ended, and its revocation failed.
            self.end(&kept, Some("refresh token reused"), "service").await?;
            return Err(GONE);
        }
        let jkt = match (kept.data.jkt(), proved) {
            (Some(bound), Some(proved)) if bound == base64url::encode(proved) => None,
            (Some(_), Some(_)) => return Err(RefreshError::InvalidDpopProof("the session is bound to another key")),
            (Some(_), None) => {
                return Err(RefreshError::InvalidDpopProof(
                    "the session is bound to a key, and there is no proof of it",
                ));
            }
            (None, proved) => proved,
        };
        let mask = match scope {
            None => u64::MAX,
            Some(scope) => {
                let scopes = request::scopes(scope).map_err(|_| RefreshError::InvalidScope)?;
                kept.data.mask_of(scopes.iter().map(String::as_str)).ok_or(RefreshError::InvalidScope)?
            }
        };
        if self.revoked(&kept.data, None).await? {
            return Err(GONE);
        }
        let issued = self.issue(at, sid, &kept.data, mask, jkt, unix_seconds()).await?;
        let new = self.ring.make_token(at, Purpose::Refresh, sid).map_err(|_| RefreshError::Internal)?;
        let new_mac = self.ring.token_mac(at, &new);
        let rotated = store.rotate(at, &token, new_mac, &issued.record, self.config.refresh_grace).await;
        match rotated {
            Ok(Rotated::Done) => Ok(self.tokens(issued, Some(new), &kept.data, mask, jkt)),
            Ok(Rotated::Gone | Rotated::Ended) => Err(GONE),
            Ok(Rotated::Raced) => Err(RefreshError::InvalidGrant(
                "the refresh token was used a moment ago, perhaps by a concurrent request: use the token that it got",
            )),
            Ok(Rotated::Reused) => {
                tracing::warn!(sid = %sid, client = client.id, "a refresh token was used again: its session is ended");
                self.tell(&kept, "refresh.reuse", "session ended", client, "a refresh token was used again").await;
                self.events.count(SessionEvent::Reused.name());
                if let Err(error) = self.end(&kept, Some("refresh token reused"), "service").await {
                    tracing::error!(%error, sid = %sid, "the end of the session will be retried");
                    self.end_later(sid, Stolen::Yes);
                }
                Err(GONE)
            }
            Err(error) => {
                // The store may have found it to be stolen, and its answer was lost.
                if !matches!(error, WriteError::NotWritten(_)) {
                    self.end_later(sid, Stolen::Perhaps);
                }
                Err(error.into())
            }
        }
    }

    async fn tell(&self, kept: &StoredSession, action: &str, outcome: &str, client: &Client, reason: &str) {
        let event = Event {
            iss: Some(kept.data.iss.clone()),
            sub: Some(kept.data.sub.clone()),
            sid: Some(kept.data.sid.clone()),
            client_id: kept.data.client_id.clone(),
            reason: Some(reason.to_owned()),
            ..Event::new(&format!("client:{}", client.id), action, outcome)
        };
        self.audit.write(event).await;
    }
}
