//! The issuers that filters ask about. A revocation for another issuer is refused: it would succeed and end nothing. Filters send their issuers in messages of their own ([`wire::check::NamedIssuer`]). What they sent is kept in the
//! store too, for instances that they did not send it to.
#[cfg(test)]
mod tests;
mod unknown;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wire::check::{NamedIssuer, StoreError};
use wire::{Kind, Kinds, Retention, TENANT_PLACEHOLDER, issuer_matches};

use crate::base::clock::unix_seconds;
use crate::base::current::Current;
use store::{IssuerBounds, IssuerRegistry, KnownIssuer};
pub use unknown::Unknown;

/// Of 64 filters with the most issuers that one may have, all different.
const MAX_ISSUERS: usize = 16 * 1024;
/// How long an issuer is known after a filter last sent it.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How often, in seconds, the store is told that an issuer is still asked about.
const STORED_EVERY: u64 = 3600;
/// How often, in seconds, the log says that an issuer's tokens need more than is kept.
const WARNED_EVERY: u64 = 600;
/// How long what was read from the store is used: a file with many wrong lines causes one read.
const STORED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Issuers {
    registry: Arc<dyn IssuerRegistry>,
    known: Known,
    /// Including reports to other instances.
    stored: Mutex<Option<(Instant, Arc<Vec<KnownIssuer>>)>>,
}

/// What this instance knows by itself.
#[derive(Debug)]
struct Known {
    /// Of the options, of sessions and of providers. Which kinds are asked about is not known.
    configured: Current<Vec<String>>,
    told: Mutex<HashMap<String, Told>>,
}

/// Times are Unix seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    at: u64,
    stored: u64,
    warned: u64,
    /// By any filter.
    kinds: Kinds,
}

impl Issuers {
    pub fn new(registry: Arc<dyn IssuerRegistry>, configured: Vec<String>) -> Self {
        Self { registry, known: Known::new(configured), stored: Mutex::default() }
    }

    /// Replaces the issuers of the options.
    pub fn configure(&self, configured: Vec<String>) {
        self.known.configured.replace(Arc::new(configured));
    }

    /// Notes the issuers that a filter sent, and sends on to the store those that it was not sent for a while, in the
    /// background.
    pub fn learn(self: &Arc<Self>, told: &[NamedIssuer], keeps: Retention) {
        let new = self.known.learn(told, keeps);
        if new.is_empty() {
            return;
        }
        let issuers = Arc::clone(self);
        tokio::spawn(async move {
            let known = new.iter().map(|named| KnownIssuer { issuer: named.issuer.clone(), kinds: named.kinds });
            let bounds = IssuerBounds { max_age: KEPT, max_entries: MAX_ISSUERS };
            if let Err(error) = issuers.registry.remember(&known.collect::<Vec<_>>(), bounds).await {
                issuers.known.not_stored(&new);
                tracing::warn!(%error, "the reported issuers could not be stored");
            }
        });
    }

    /// Would a revocation of this kind for this issuer have an effect?
    ///
    /// # Errors
    /// [`Unknown`], or why the store could not be asked for reports to other instances.
    pub async fn check(&self, issuer: &str, kind: Kind) -> Result<Result<(), Unknown>, StoreError> {
        let mut matches = Matches::new(issuer, kind);
        self.known.find(&mut matches);
        if matches.ends_something() {
            return Ok(Ok(()));
        }
        let stored = self.stored().await?;
        stored.iter().for_each(|known| matches.add(&known.issuer, Some(known.kinds)));
        if matches.ends_something() {
            return Ok(Ok(()));
        }
        Ok(Err(match matches.is_known {
            true => Unknown::Kind { issuer: issuer.to_owned(), kind },
            // Names are copied for this one answer only.
            false => {
                let stored = stored.iter().map(|known| known.issuer.clone());
                Unknown::issuer(issuer, self.known.names().into_iter().chain(stored))
            }
        }))
    }

    /// Does some filter ask about this kind?
    ///
    /// # Errors
    /// The store could not be asked for reports to other instances.
    pub async fn is_asked(&self, kind: Kind) -> Result<bool, StoreError> {
        let is_asked = self.known.lock().values().any(|told| told.at >= oldest() && told.kinds.has(kind));
        Ok(is_asked || self.stored().await?.iter().any(|known| known.kinds.has(kind)))
    }

    async fn stored(&self) -> Result<Arc<Vec<KnownIssuer>>, StoreError> {
        let held = self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, stored)) = held.filter(|(read, _)| read.elapsed() < STORED_FOR) {
            return Ok(stored);
        }
        let stored = Arc::new(self.registry.known(KEPT).await?);
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&stored)));
        Ok(stored)
    }
}

impl Known {
    fn new(configured: Vec<String>) -> Self {
        Self { configured: Arc::new(configured).into(), told: Mutex::default() }
    }

    /// Returns those that the store is to be told of too.
    fn learn(&self, told: &[NamedIssuer], keeps: Retention) -> Vec<NamedIssuer> {
        let now = unix_seconds();
        let mut known = self.lock();
        let mut to_store = Vec::new();
        for named in told {
            let NamedIssuer { issuer, needs, kinds } = named;
            if !known.contains_key(issuer) && known.len() >= MAX_ISSUERS {
                let oldest = known.iter().min_by_key(|(_, told)| told.at).map(|(issuer, _)| issuer.clone());
                oldest.map(|oldest| known.remove(&oldest));
            }
            let entry = known.entry(issuer.clone()).or_default();
            entry.at = now;
            let all = entry.kinds.union(*kinds);
            if now.saturating_sub(entry.stored) >= STORED_EVERY || all != entry.kinds {
                entry.stored = now;
                to_store.push(NamedIssuer { kinds: all, ..named.clone() });
            }
            entry.kinds = all;
            if !keeps.covers(*needs) && now.saturating_sub(entry.warned) >= WARNED_EVERY {
                entry.warned = now;
                tracing::error!(
                    issuer,
                    trouble = StoreError::RetentionTooShort.name(),
                    keeps_token = keeps.token,
                    keeps_login = keeps.login,
                    needs_token = needs.token,
                    needs_login = needs.login,
                    "a filter takes tokens of this issuer that live longer than revocations are kept (seconds), and refuses \
                     them: raise --max-lifetime and --max-session, or lower its max_lifetime and max_session"
                );
            }
        }
        to_store
    }

    /// They could not be stored: the next message tries again.
    fn not_stored(&self, issuers: &[NamedIssuer]) {
        let mut known = self.lock();
        for NamedIssuer { issuer, .. } in issuers {
            if let Some(told) = known.get_mut(issuer) {
                told.stored = 0;
            }
        }
    }

    /// Adds every issuer that was told of recently enough, and those of the options.
    fn find(&self, matches: &mut Matches<'_>) {
        self.configured.get().iter().for_each(|issuer| matches.add(issuer, None));
        let oldest = oldest();
        let told = self.lock();
        let recent = told.iter().filter(|(_, told)| told.at >= oldest);
        recent.for_each(|(issuer, told)| matches.add(issuer, Some(told.kinds)));
    }

    fn names(&self) -> Vec<String> {
        let oldest = oldest();
        let told = self.lock();
        let recent = told.iter().filter(|(_, told)| told.at >= oldest).map(|(issuer, _)| issuer);
        self.configured.get().iter().chain(recent).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn oldest() -> u64 {
    unix_seconds().saturating_sub(KEPT.as_secs())
}

/// What is known of one issuer, as the known ones are gone through.
struct Matches<'i> {
    issuer: &'i str,
    kind: Kind,
    is_known: bool,
    /// What filters ask about its tokens. `None`: that is not known.
    asked: Option<Kinds>,
}

impl<'i> Matches<'i> {
    fn new(issuer: &'i str, kind: Kind) -> Self {
        Self { issuer, kind, is_known: false, asked: None }
    }

    fn add(&mut self, known: &str, kinds: Option<Kinds>) {
        // Signing keys and issuers of a provider with tenants are revoked for all of them under its pattern, which filters with
        // a list of tenants do not send.
        let is_pattern_of = |known: &str| {
            matches!(self.kind, Kind::SigningKey | Kind::Issuer)
                && self.issuer.contains(TENANT_PLACEHOLDER)
                && issuer_matches(self.issuer, known)
        };
        if known != self.issuer && !issuer_matches(known, self.issuer) && !is_pattern_of(known) {
            return;
        }
        self.is_known = true;
        if let Some(kinds) = kinds {
            self.asked = Some(kinds.union(self.asked.unwrap_or_default()));
        }
    }

    fn ends_something(&self) -> bool {
        self.is_known && self.asked.is_none_or(|asked| asked.has(self.kind))
    }
}
