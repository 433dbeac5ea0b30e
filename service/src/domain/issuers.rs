//! Which issuers filters ask about, so that a revocation for one that nobody has is refused: it would succeed and end
//! nothing. Filters tell in questions of their own ([`wire::check::NamedIssuer`]); what they told is kept in the store too,
//! for instances that were not told.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::check::{NamedIssuer, StoreError};
use wire::{Kind, Kinds, Retention};

use crate::app::options::Options;
use crate::base::clock::unix_seconds;
use crate::domain::tenants;
use store::{IssuerBounds, IssuerRegistry, KnownIssuer};

/// Of 64 filters with all issuers that one may have, different ones each.
const MAX_ISSUERS: usize = 16 * 1024;
/// An issuer that no filter has told of for so long is not known any more.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How often the store is told that an issuer is still asked about.
const STORED_EVERY: u64 = 3600;
/// How often the log says that an issuer's tokens need more than is kept.
const WARNED_EVERY: u64 = 600;
/// More are not listed in an error.
const LISTED: usize = 5;
/// Those that a misspelt one is compared with, at the most.
const COMPARED: usize = 256;
/// How long what the store has is taken for what it has now: a file with many wrong lines reads it once.
const STORED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Issuers {
    /// Of the options, of sessions and of providers.
    own: Vec<String>,
    told: Mutex<HashMap<String, Told>>,
    /// What other instances were told, too.
    stored: Mutex<Option<(Instant, Arc<Vec<Known>>)>>,
}

/// An issuer that is asked about, and what is asked. `None`: what is asked is not known.
type Known = (String, Option<Kinds>);

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    at: u64,
    stored: u64,
    warned: u64,
    /// By any filter.
    kinds: Kinds,
}

impl Issuers {
    pub fn new(options: &Options) -> Self {
        let own = options.issuers.iter().chain(options.sessions.iter().map(|sessions| &sessions.issuer));
        let providers = options.providers.subject_issuers();
        Self { own: own.chain(providers).cloned().collect(), told: Mutex::default(), stored: Mutex::default() }
    }

    /// Takes note of what a filter told. Returns those that the store is to be told of too.
    pub fn learn(&self, told: &[NamedIssuer], keeps: Retention) -> Vec<NamedIssuer> {
        let now = unix_seconds();
        let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// They could not be stored: the next announcement tries again.
    pub fn not_stored(&self, issuers: &[NamedIssuer]) {
        let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for NamedIssuer { issuer, .. } in issuers {
            if let Some(told) = known.get_mut(issuer) {
                told.stored = 0;
            }
        }
    }

    /// Would a revocation of this kind for this issuer end anything?
    ///
    /// # Errors
    /// [`Unknown`], or why the store could not be asked for what other instances were told.
    pub async fn check(
        &self,
        issuer: &str,
        kind: Kind,
        store: &dyn IssuerRegistry,
    ) -> Result<Result<(), Unknown>, StoreError> {
        let told = self.known();
        if judge(issuer, kind, &told).is_ok() {
            return Ok(Ok(()));
        }
        let mut known = told;
        known.extend(self.stored(store).await?.iter().cloned());
        Ok(judge(issuer, kind, &known))
    }

    fn known(&self) -> Vec<Known> {
        let oldest = unix_seconds().saturating_sub(KEPT.as_secs());
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.iter().filter(|(_, told)| told.at >= oldest);
        let told = told.map(|(issuer, told)| (issuer.clone(), Some(told.kinds)));
        self.own.iter().map(|issuer| (issuer.clone(), None)).chain(told).collect()
    }

    async fn stored(&self, store: &dyn IssuerRegistry) -> Result<Arc<Vec<Known>>, StoreError> {
        let held = self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, stored)) = held.filter(|(read, _)| read.elapsed() < STORED_FOR) {
            return Ok(stored);
        }
        let stored = store.known(KEPT).await?;
        let stored = Arc::new(stored.into_iter().map(|known| (known.issuer, Some(known.kinds))).collect::<Vec<_>>());
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&stored)));
        Ok(stored)
    }
}

/// What to write, for the store.
pub fn to_store(issuers: &[NamedIssuer]) -> (Vec<KnownIssuer>, IssuerBounds) {
    let known = issuers.iter().map(|named| KnownIssuer { issuer: named.issuer.clone(), kinds: named.kinds });
    (known.collect(), IssuerBounds { max_age: KEPT, max_entries: MAX_ISSUERS })
}

fn judge(issuer: &str, kind: Kind, known: &[Known]) -> Result<(), Unknown> {
    // Keys and issuers of a provider with tenants are revoked for all of them under its pattern, which filters with a list
    // of tenants do not tell.
    let is_pattern_of = |known: &str| {
        matches!(kind, Kind::SigningKey | Kind::Issuer)
            && issuer.contains(tenants::PLACEHOLDER)
            && tenants::is_issuer_or_tenant(issuer, known)
    };
    let is_it = |known: &str| known == issuer || tenants::is_issuer_or_tenant(known, issuer) || is_pattern_of(known);
    let mut is_known = false;
    let mut asked = None;
    for (_, kinds) in known.iter().filter(|(known, _)| is_it(known)) {
        is_known = true;
        if let Some(kinds) = kinds {
            asked = Some(kinds.union(asked.unwrap_or_default()));
        }
    }
    match asked {
        Some(asked) if !asked.has(kind) => Err(Unknown::Kind { issuer: issuer.to_owned(), kind }),
        _ if is_known => Ok(()),
        _ => {
            let mut known: Vec<String> = known.iter().map(|(issuer, _)| issuer.clone()).collect();
            known.sort();
            known.dedup();
            Err(Unknown::Issuer { issuer: issuer.to_owned(), known })
        }
    }
}

/// A revocation that would end nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// No filter asks about such an issuer, and it is none of ours.
    Issuer { issuer: String, known: Vec<String> },
    /// Filters ask about this issuer's tokens, and not of this kind.
    Kind { issuer: String, kind: Kind },
}

impl Unknown {
    /// The field that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Unknown::Issuer { .. } => "issuer",
            Unknown::Kind { .. } => "kind",
        }
    }

    /// What is wrong with it, and what to do.
    pub fn detail(&self) -> String {
        match self {
            Unknown::Issuer { issuer, known } => format!(
                "is `{issuer}`, and no filter asks about such an issuer, so nothing would end{}. If it is right all the \
                 same, say `new_issuer: true` (--new-issuer)",
                hint(issuer, known)
            ),
            Unknown::Kind { issuer, kind } => format!(
                "is `{kind}`, and no filter asks about the {kind} of tokens of `{issuer}`, so nothing would end: see \
                 `revocation.kinds`, `provider` and `revocation_claims` of the filters. To revoke it all the same, say \
                 `new_issuer: true` (--new-issuer)"
            ),
        }
    }
}

fn hint(issuer: &str, known: &[String]) -> String {
    let is_near = |known: &&String| known.len().abs_diff(issuer.len()) <= issuer.len() / 3;
    let alike = known.iter().filter(is_near).take(COMPARED);
    let alike = alike.map(|known| (strsim::normalized_damerau_levenshtein(issuer, known), known));
    let closest = alike.filter(|(alike, _)| *alike > 0.7).max_by(|(one, _), (other, _)| one.total_cmp(other));
    match (closest, known) {
        (Some((_, closest)), _) => format!("; did you mean `{closest}`?"),
        (None, []) => "; no filter has told this service of any issuer yet".to_owned(),
        (None, known) if known.len() <= LISTED => format!("; known are {}", known.join(", ")),
        (None, known) => format!("; {} others are known", known.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::options::tests::options;

    const KEEPS: Retention = Retention { token: 600, login: 600 };

    fn named(issuer: &str) -> NamedIssuer {
        NamedIssuer { issuer: issuer.into(), needs: KEEPS, kinds: Kinds::of([Kind::Session, Kind::SigningKey]) }
    }

    fn learn(issuers: &Issuers, told: &[NamedIssuer]) -> Vec<String> {
        issuers.learn(told, KEEPS).into_iter().map(|named| named.issuer).collect()
    }

    #[test]
    fn what_filters_told_is_known_and_stored_once_in_a_while() {
        let issuers = Issuers::new(&Options { issuers: vec!["https://own".into()], ..options() });
        assert_eq!(learn(&issuers, &[named("https://a"), named("https://b")]), ["https://a", "https://b"]);
        assert!(learn(&issuers, &[named("https://a")]).is_empty());
        issuers.not_stored(&[named("https://a")]);
        assert_eq!(learn(&issuers, &[named("https://a")]), ["https://a"]);
        let is_ok = |issuer: &str, kind| judge(issuer, kind, &issuers.known()).is_ok();
        for issuer in ["https://own", "https://a", "https://b"] {
            assert!(is_ok(issuer, Kind::Session), "{issuer}");
        }
        assert!(!is_ok("https://a/", Kind::Session));
        // A kind that no filter asks about ends nothing, until one does.
        assert!(is_ok("https://own", Kind::User) && !is_ok("https://a", Kind::User));
        let user = NamedIssuer { kinds: Kinds::of([Kind::User]), ..named("https://a") };
        assert_eq!(learn(&issuers, &[user]), ["https://a"]);
        let known = issuers.known();
        assert!([Kind::User, Kind::Session].iter().all(|kind| judge("https://a", *kind, &known).is_ok()));
    }

    #[test]
    fn a_tenant_is_one_segment_and_keys_are_of_all_tenants() {
        let pattern = "https://login.example/{tenant}/v2.0";
        let of_pattern = [(pattern.to_owned(), Some(Kinds::ALL))];
        let listed = [("https://login.example/acme/v2.0".to_owned(), Some(Kinds::ALL))];
        for known in [&of_pattern, &listed] {
            assert!(judge("https://login.example/acme/v2.0", Kind::User, known).is_ok());
            assert!(judge(pattern, Kind::SigningKey, known).is_ok() && judge(pattern, Kind::Issuer, known).is_ok());
        }
        assert!(judge(pattern, Kind::User, &listed).is_err());
        assert!(judge("https://login.example/other/v2.0", Kind::User, &listed).is_err());
        for other in
            ["https://login.example//v2.0", "https://login.example/a/b/v2.0", "https://login.example/acme/v2.0/"]
        {
            assert!(judge(other, Kind::User, &of_pattern).is_err(), "{other}");
        }
    }

    #[test]
    fn what_is_known_does_not_grow_without_bound() {
        let issuers = Issuers::new(&options());
        for number in 0..=MAX_ISSUERS {
            issuers.learn(&[named(&number.to_string())], KEEPS);
        }
        assert_eq!(issuers.told.lock().unwrap().len(), MAX_ISSUERS);
    }

    #[test]
    fn a_misspelt_issuer_is_answered_with_the_one_that_was_meant() {
        let detail = |issuer: &str, known: &[&str]| {
            let known = known.iter().map(|known| (*known).to_owned()).collect();
            Unknown::Issuer { issuer: issuer.into(), known }.detail()
        };
        let known = ["https://idp.example.com", "https://other.test/realms/x"];
        for wrong in ["https://idp.example.com/", "http://idp.example.com", "https://idp.exmaple.com"] {
            assert!(detail(wrong, &known).contains("did you mean `https://idp.example.com`?"), "{wrong}");
        }
        assert!(detail("me", &known).contains("known are https://idp.example.com, https://other.test/realms/x"));
        assert!(detail("me", &[]).contains("no filter has told"));
    }
}
