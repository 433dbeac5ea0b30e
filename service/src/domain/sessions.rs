//! The life of a session: made, introspected, refreshed, ended. Which caller may ask for what is decided in `http`.
mod end;
mod issue;
mod lookup;
mod records;
mod refresh;
mod request;
#[cfg(test)]
pub mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use jose::dpop::TargetUri;
use tokio::sync::Semaphore;
use wire::DerivedKeys;
use wire::check::StoreError;
use wire::opaque_token::Purpose;

use crate::base::clock::unix_seconds;
use crate::base::metrics::Counters;
use crate::base::throttle::Throttle;
use crate::domain::audit::{Audit, REFUSALS_AUDITED_EVERY};
use crate::domain::clients::Clients;
use crate::domain::hijack::Hijack;
use crate::domain::revocations::Revocations;
use crate::domain::status_lists::StatusLists;
use crate::model::field_error::FieldError;
use crate::model::session::{Data, Format};
use crate::model::session_keys::{KeyAt, Ring, Sid};
use crate::signing::Signing;
use issue::STATUS;
pub use issue::{IssueError, Tokens};
pub use lookup::ActiveToken;
use records::{MAX_SESSIONS_PER_SUBJECT, SessionRecords};
pub use refresh::RefreshError;
pub use request::{CreateSession, NewSession};
use store::{RevocationStore, SessionStore, WriteError};
pub use view::View;

/// Uses of sessions that are noted at once. One more is left out, and the next use makes up for it.
const MAX_TOUCHES: usize = 64;
/// Sessions whose end is being retried, and as many that may have been stolen.
const MAX_ENDING: usize = 64;
/// Sessions that are read, or ended, at once.
pub const AT_ONCE: usize = 16;

/// What the operator configured about sessions.
#[derive(Debug, Clone)]
pub struct Config {
    /// The `iss` of their tokens.
    pub issuer: String,
    /// The `aud` of tokens for which no other is asked.
    pub audience: Vec<String>,
    pub lifetime: Duration,
    /// Of access tokens of a session with a refresh token.
    pub access_lifetime: Duration,
    /// How long after a refresh the replaced token is answered as the loser of a race. After that it counts as stolen.
    pub refresh_grace: Duration,
    /// The longest lifetime of a token that any filter accepts.
    pub max_lifetime: Duration,
    /// The URL of the token endpoint as clients use it. `None`: proofs by DPoP do not count.
    pub token_url: Option<TargetUri>,
    /// `None`: User-Agents are claimed by their SHA-256.
    pub agent_secret: Option<hmac::Key>,
    /// How much longer than its session a revocation holds: filters' clocks differ from ours.
    pub revocation_margin: Duration,
}

#[derive(Debug)]
pub struct Sessions {
    pub config: Config,
    pub signing: Arc<Signing>,
    pub clients: Arc<Clients>,
    ring: Arc<Ring>,
    session_store: Arc<dyn SessionStore>,
    revocation_store: Arc<dyn RevocationStore>,
    secrets: Arc<[DerivedKeys]>,
    revocations: Arc<Revocations>,
    audit: Arc<Audit>,
    events: Counters,
    touches: Arc<Semaphore>,
    ending: Arc<Semaphore>,
    doubted: Arc<Semaphore>,
    /// Of its JWTs, if lists are published.
    pub status_lists: Option<Arc<StatusLists>>,
    /// It is told from where sessions are made.
    hijack: Option<Arc<Hijack>>,
    /// Refresh tokens that another client presented, as they are written to the audit log.
    foreign_tokens: Throttle,
}

/// The parts of the service that sessions stand on.
#[derive(Debug)]
pub struct Parts {
    pub signing: Arc<Signing>,
    pub clients: Arc<Clients>,
    pub ring: Arc<Ring>,
    pub session_store: Arc<dyn SessionStore>,
    pub revocation_store: Arc<dyn RevocationStore>,
    pub secrets: Arc<[DerivedKeys]>,
    pub revocations: Arc<Revocations>,
    pub audit: Arc<Audit>,
    pub status_lists: Option<Arc<StatusLists>>,
    pub hijack: Option<Arc<Hijack>>,
    pub events: Counters,
}

/// What is counted of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionEvent {
    Created,
    Ended,
    /// Ended because a refresh token was used again.
    Reused,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the subject already has {0} sessions; end some first")]
    TooMany(usize),
    #[error("{}", .0.name())]
    Store(StoreError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the system gave no randomness")]
    Randomness,
}

impl SessionEvent {
    const ALL: [SessionEvent; 3] = [SessionEvent::Created, SessionEvent::Ended, SessionEvent::Reused];

    fn name(self) -> &'static str {
        match self {
            SessionEvent::Created => "created",
            SessionEvent::Ended => "ended",
            SessionEvent::Reused => "reused",
        }
    }
}

/// What was done with sessions.
pub fn event_counters() -> Counters {
    Counters::new("event", SessionEvent::ALL.map(SessionEvent::name))
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        SessionError::Store(error)
    }
}

impl Sessions {
    pub fn new(config: Config, parts: Parts) -> Self {
        let Parts {
            signing,
            clients,
            ring,
            session_store,
            revocation_store,
            secrets,
            revocations,
            audit,
            status_lists,
            hijack,
            events,
        } = parts;
        let limit = |most| Arc::new(Semaphore::new(most));
        Self {
            config,
            signing,
            clients,
            ring,
            session_store,
            revocation_store,
            secrets,
            revocations,
            audit,
            events,
            status_lists,
            hijack,
            touches: limit(MAX_TOUCHES),
            ending: limit(MAX_ENDING),
            doubted: limit(MAX_ENDING),
            foreign_tokens: Throttle::every(REFUSALS_AUDITED_EVERY),
        }
    }

    pub fn store(&self) -> SessionRecords<'_> {
        SessionRecords { store: &*self.session_store, ring: &self.ring }
    }

    /// # Errors
    /// An invalid field, or the store could not accept it.
    pub async fn create(&self, new: NewSession, by: &str) -> Result<Tokens, SessionError> {
        if new.format == Format::Jwt && !self.signing.has_key() {
            return Err(FieldError::new("format", "cannot be `jwt`: the service has no --signing-key").into());
        }
        if new.refresh && !new.client_id.as_deref().is_some_and(|id| self.clients.may_refresh(id)) {
            return Err(FieldError::new("client_id", "must be a client that may refresh").into());
        }
        if new.refresh && new.is_bound_to_key() && self.config.token_url.is_none() {
            let what = "needs --token-url for a session with a refresh token: each refresh proves the key";
            return Err(FieldError::new("binding.jkt", what).into());
        }
        if self.status_lists.is_some() && new.claims.contains_key(STATUS) {
            return Err(
                FieldError::new("claims.status", "is set by the service, because it has --status-list-url").into()
            );
        }
        let (now, at, made_from) = (unix_seconds(), self.ring.first(), new.made_from);
        let sid = Sid::random().map_err(|_| SessionError::Randomness)?;
        let data = Data {
            sid: sid.to_string(),
            iss: self.config.issuer.clone(),
            sub: new.sub,
            client_id: new.client_id,
            aud: new.aud,
            scopes: new.scopes,
            claims: new.claims,
            binding: new.binding,
            format: new.format,
            created: now,
            auth_time: new.auth_time,
            ends: new.ends,
            idle: new.idle.map(|idle| idle.as_secs()),
            access_lifetime: new.access_lifetime.as_secs(),
            refresh: new.refresh,
            by: by.to_owned(),
            reason: new.reason,
        };
        let life = Duration::from_secs(data.ends.saturating_sub(now));
        let issued = self.issue(at, sid, &data, u64::MAX, None, now).await?;
        let refresh = match data.refresh {
            true => Some(self.ring.make_token(at, Purpose::Refresh, sid).map_err(|_| SessionError::Randomness)?),
            false => None,
        };
        let store = self.store();
        let refresh_mac = refresh.map(|token| self.ring.token_mac(at, &token));
        // The list last: else a prune at the same time would take this session for gone. Nobody has the tokens before that, so
        // the end of all of a subject's sessions finds each session that can be used.
        store.create(at, sid, &data, &issued.record, refresh_mac, life).await?;
        if let Err(error) = self.enlist(at, &data, life).await {
            // If it stays, it expires by itself.
            let _ = store.forget(at, sid, &data).await;
            return Err(error);
        }
        if let Some(hijack) = &self.hijack {
            hijack.made(&data.iss, &data.sid, &data.sub, &made_from).await;
        }
        self.events.count(SessionEvent::Created.name());
        Ok(self.tokens(issued, refresh, &data, u64::MAX, None))
    }

    /// Adds it to its subject's list.
    async fn enlist(&self, at: KeyAt, data: &Data, life: Duration) -> Result<(), SessionError> {
        let store = self.store();
        if store.index(at, data, life).await? {
            return Ok(());
        }
        self.prune(&data.sub).await?;
        match store.index(at, data, life).await? {
            true => Ok(()),
            false => Err(SessionError::TooMany(MAX_SESSIONS_PER_SUBJECT)),
        }
    }

    /// Removes from a subject's list the sessions that are gone.
    async fn prune(&self, subject: &str) -> Result<(), SessionError> {
        let store = self.store();
        let mut gone: Vec<(Sid, KeyAt)> = Vec::new();
        for some in store.sids_of(&self.config.issuer, subject).await?.chunks(AT_ONCE) {
            let found = join_all(some.iter().map(|(sid, at)| store.read(*at, *sid))).await;
            let absent = some.iter().zip(found).filter(|(_, found)| matches!(found, Ok(None)));
            gone.extend(absent.map(|(permit, _)| *permit));
        }
        for at in self.ring.all() {
            let sids: Vec<Sid> = gone.iter().filter(|(_, of)| *of == at).map(|(sid, _)| *sid).collect();
            store.unindex(at, &self.config.issuer, subject, &sids).await?;
        }
        Ok(())
    }
}
