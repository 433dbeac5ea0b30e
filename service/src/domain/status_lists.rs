//! Signed lists of the JWTs that we issue and that were revoked (draft-ietf-oauth-status-list), for those that neither
//! introspect nor ask us about revocations.
//!
//! The store keeps the indexes, so every instance publishes the same lists. An index is chosen at random: it says
//! nothing about its token.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{digest, rand};
use futures_util::future::try_join_all;
use jose::base64url;
use store::{
    Claim, IndexEntry, ReplayGuard, RevocationStore, STATUS_INDEX, SessionStore, StoreError, SubjectName, WriteError,
};
use tokio::sync::Mutex;
use wire::{Answer, RevocationKey};

use crate::base::clock::unix_seconds;
use crate::base::limits::MAX_SKEW;
use crate::base::metrics::Counters;
use crate::base::throttle::Throttle;
use crate::model::session_keys::Ring;
use crate::model::status_list::{LIST_SIZE, ListClaims, Member, PAGE_SIZE, PAGES, Place, StatusClaim, Statuses};
use crate::signing::{STATUS_LIST, SignError, Signing};

/// Random indexes that are tried for one token. With half of all places taken, one token in 65,536 gets none.
const TRIES: usize = 16;
/// Entries of one page, more than it has indexes: those of expired tokens may still be there.
const MAX_PAGE: usize = 2 * PAGE_SIZE as usize;
/// Pages that are read at once.
const AT_ONCE: usize = 16;
/// An index is not given to another token while the store may still have the entry of the last one.
const CLAIM_MARGIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Config {
    /// The `iss` of the lists, as of the tokens.
    pub issuer: String,
    /// The URI of each list is this, a slash and its number.
    pub url: String,
    pub lists: u16,
    /// How old what a reader knows may be.
    pub ttl: Duration,
}

#[derive(Debug)]
pub struct StatusLists {
    config: Config,
    parts: Parts,
    /// The newest of each list.
    built: Vec<Mutex<Option<Published>>>,
    failures: Throttle,
}

#[derive(Debug)]
pub struct Parts {
    pub ring: Arc<Ring>,
    pub signing: Arc<Signing>,
    pub session_store: Arc<dyn SessionStore>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub revocation_store: Arc<dyn RevocationStore>,
    pub events: Counters,
}

/// A Status List Token.
#[derive(Debug, Clone)]
pub struct Published {
    /// A compact JWS.
    pub token: Arc<str>,
    built: Instant,
    /// For so long it may be kept.
    pub ttl: Duration,
}

/// Why a token gets no place in a list, and so is not issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("the status lists have no free index: raise --status-lists")]
    Full,
    #[error("{}", .0.name())]
    Store(StoreError),
}

/// Why a list cannot be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("{}", .0.name())]
    Store(StoreError),
    #[error(transparent)]
    Sign(#[from] SignError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListEvent {
    /// A token got an index.
    Placed,
    /// A token got none.
    Full,
    Built,
    Failed,
}

impl ListEvent {
    const ALL: [ListEvent; 4] = [ListEvent::Placed, ListEvent::Full, ListEvent::Built, ListEvent::Failed];

    fn name(self) -> &'static str {
        match self {
            ListEvent::Placed => "placed",
            ListEvent::Full => "full",
            ListEvent::Built => "built",
            ListEvent::Failed => "failed",
        }
    }
}

pub fn event_counters() -> Counters {
    Counters::new("event", ListEvent::ALL.map(ListEvent::name))
}

impl From<StoreError> for PlaceError {
    fn from(error: StoreError) -> Self {
        PlaceError::Store(error)
    }
}

impl From<WriteError> for PlaceError {
    fn from(error: WriteError) -> Self {
        PlaceError::Store(match error {
            WriteError::NotWritten(error) | WriteError::Unknown(error) => error,
            WriteError::Unconfirmed(_) => StoreError::StoreUnsafe,
        })
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        PublishError::Store(error)
    }
}

impl Published {
    /// For how long a reader may keep it from now on.
    pub fn left(&self) -> Duration {
        self.ttl.saturating_sub(self.built.elapsed())
    }
}

impl StatusLists {
    pub fn new(config: Config, parts: Parts) -> Self {
        let built = (0..config.lists).map(|_| Mutex::default()).collect();
        Self { config, parts, built, failures: Throttle::default() }
    }

    /// An index that no other token has, for a token that expires at `exp`.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn choose(&self, exp: u64) -> Result<Place, PlaceError> {
        let pending = self.kept_for(exp).saturating_add(CLAIM_MARGIN);
        for _ in 0..TRIES {
            let place = self.random()?;
            if self.parts.replay_guard.claim(&self.digest(place), pending).await? == Claim::Claimed {
                return Ok(place);
            }
        }
        self.parts.events.count(ListEvent::Full.name());
        if let Some(more) = self.failures.pass(Instant::now()) {
            tracing::error!(more, "the status lists have no free index: raise --status-lists");
        }
        Err(PlaceError::Full)
    }

    /// The claim of a token with this place.
    pub fn claim(&self, place: Place) -> StatusClaim {
        StatusClaim::new(self.uri(place.list), place.index)
    }

    /// Enters a token, which may be delivered once this has succeeded. `keys`: the revocations that end it.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn enter(
        &self,
        place: Place,
        exp: u64,
        auth_time: u64,
        keys: Vec<RevocationKey>,
    ) -> Result<(), PlaceError> {
        let member = Member { index: place.index, exp, auth_time, keys };
        let entry = IndexEntry { sid: member.to_text(), lifetime: self.kept_for(exp) };
        let ring = &self.parts.ring;
        let name = ring.status_page_name(ring.first(), &self.config.issuer, place.list, place.page());
        if !self.parts.session_store.index(SubjectName(name.0), entry, MAX_PAGE).await? {
            return Err(PlaceError::Full);
        }
        self.parts.events.count(ListEvent::Placed.name());
        Ok(())
    }

    /// Frees the index of a token that was not signed. If this fails, it becomes free when the token would have expired.
    pub async fn release(&self, place: Place) {
        let _ = self.parts.replay_guard.release(&self.digest(place)).await;
    }

    /// A list, at most half of its `ttl` old. `None`: there is no such list.
    ///
    /// # Errors
    /// See [`PublishError`]. An older list is not given instead: it may lack revocations.
    pub async fn publish(&self, list: u16) -> Result<Option<Published>, PublishError> {
        let Some(newest) = self.built.get(usize::from(list)) else { return Ok(None) };
        // Of several readers one builds, and the others wait for its list.
        let mut newest = newest.lock().await;
        if let Some(published) = newest.as_ref().filter(|published| !published.left().is_zero()) {
            return Ok(Some(published.clone()));
        }
        let built = self.build(list).await;
        let event = if built.is_ok() { ListEvent::Built } else { ListEvent::Failed };
        self.parts.events.count(event.name());
        if let (Err(error), Some(more)) = (&built, self.failures.pass(Instant::now())) {
            tracing::warn!(%error, list, more, "a status list was not built");
        }
        let published = built?;
        *newest = Some(published.clone());
        Ok(Some(published))
    }

    async fn build(&self, list: u16) -> Result<Published, PublishError> {
        // Before the first read: what is revoked later may be missing.
        let (built, iat) = (Instant::now(), unix_seconds());
        let mut statuses = Statuses::valid();
        let pages: Vec<u32> = (0..PAGES).collect();
        for pages in pages.chunks(AT_ONCE) {
            let invalid = try_join_all(pages.iter().map(|page| self.invalid_of(list, *page, iat))).await?;
            invalid.into_iter().flatten().for_each(|index| statuses.set_invalid(index));
        }
        // Pages without members were not checked. An empty store must not pass for one without revocations.
        self.parts.revocation_store.check(&[]).await?;
        // A reader keeps it for one half of the time, after it was kept here for the other.
        let ttl = self.config.ttl / 2;
        let claims = ListClaims {
            iss: &self.config.issuer,
            sub: &self.uri(list),
            iat,
            exp: iat.saturating_add(self.config.ttl.as_secs()),
            ttl: ttl.as_secs(),
            status_list: statuses.to_list(),
        };
        let signed = self.parts.signing.sign(STATUS_LIST, &claims).await?;
        Ok(Published { token: signed.token.into(), built, ttl })
    }

    /// The indexes of a page whose tokens were revoked.
    async fn invalid_of(&self, list: u16, page: u32, now: u64) -> Result<Vec<u32>, StoreError> {
        let mut members: Vec<Member> = Vec::new();
        let ring = &self.parts.ring;
        for at in ring.all() {
            let name = ring.status_page_name(at, &self.config.issuer, list, page);
            for text in self.parts.session_store.sids(SubjectName(name.0)).await? {
                // What cannot be read may have been revoked.
                let member = Member::from_text(&text, page).ok_or(StoreError::StoreFailed)?;
                // The store may list an entry for a while after its end, and its index may have another token.
                if !has_expired(member.exp, now) {
                    members.push(member);
                }
            }
        }
        let mut answers: HashMap<RevocationKey, Answer> = HashMap::new();
        let mut keys: Vec<RevocationKey> = members.iter().flat_map(|member| member.keys.iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            let checked = self.parts.revocation_store.check(&keys).await?;
            answers.extend(keys.into_iter().zip(checked));
        }
        let is_revoked = |member: &Member| {
            let ends = |key| answers.get(key).is_none_or(|answer| answer.ends(member.auth_time));
            member.keys.iter().any(ends)
        };
        Ok(members.iter().filter(|member| is_revoked(member)).map(|member| member.index).collect())
    }

    /// How long an entry is kept: others' clocks may be behind ours.
    fn kept_for(&self, exp: u64) -> Duration {
        Duration::from_secs(exp.saturating_sub(unix_seconds())).saturating_add(MAX_SKEW)
    }

    fn uri(&self, list: u16) -> String {
        format!("{}/{list}", self.config.url)
    }

    fn random(&self) -> Result<Place, StoreError> {
        let mut random = [0; 8];
        // Without randomness nothing else works either.
        rand::fill(&mut random).map_err(|_| StoreError::StoreFailed)?;
        let [a, b, c, d, rest @ ..] = random;
        let list = u32::from_be_bytes(rest).checked_rem(self.config.lists.into()).unwrap_or_default();
        let list = u16::try_from(list).unwrap_or_default();
        Ok(Place { list, index: u32::from_be_bytes([a, b, c, d]) % LIST_SIZE })
    }

    /// The name of a place for the replay guard. It is no secret, so that it is the same under every session secret.
    fn digest(&self, place: Place) -> String {
        let mut hashed = digest::Context::new(&digest::SHA256);
        hashed.update(&place.list.to_be_bytes());
        hashed.update(&place.index.to_be_bytes());
        hashed.update(self.config.issuer.as_bytes());
        format!("{STATUS_INDEX}{}", base64url::encode(hashed.finish()))
    }
}

/// Also for a reader whose clock is behind ours.
fn has_expired(exp: u64, now: u64) -> bool {
    exp.saturating_add(MAX_SKEW.as_secs()) < now
}

#[cfg(test)]
mod tests;
