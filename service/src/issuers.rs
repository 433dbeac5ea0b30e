//! Which issuers filters ask about, so that a revocation for one that nobody has is refused: it would succeed and end
//! nothing. Filters tell in questions of their own ([`wire::check::NamedIssuer`]); what they told is kept in the store too,
//! for instances that were not told.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wire::Retention;
use wire::check::{NamedIssuer, Trouble};

use crate::clock::unix_seconds;
use crate::options::Options;
use crate::store::{KnownIssuers, Store};
use crate::tenants;

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

#[derive(Debug)]
pub struct Issuers {
    /// Of the options, of sessions and of providers.
    own: Vec<String>,
    told: Mutex<HashMap<String, Told>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    at: u64,
    stored: u64,
    warned: u64,
}

impl Issuers {
    pub fn new(options: &Options) -> Self {
        let own = options.issuers.iter().chain(options.sessions.iter().map(|sessions| &sessions.issuer));
        let providers = options.providers.subject_issuers();
        Self { own: own.chain(providers).cloned().collect(), told: Mutex::default() }
    }

    /// Takes note of what a filter told. Returns those that the store is to be told of too.
    pub fn learn(&self, told: &[NamedIssuer], keeps: Retention) -> Vec<String> {
        let now = unix_seconds();
        let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut to_store = Vec::new();
        for NamedIssuer { issuer, needs } in told {
            if !known.contains_key(issuer) && known.len() >= MAX_ISSUERS {
                let oldest = known.iter().min_by_key(|(_, told)| told.at).map(|(issuer, _)| issuer.clone());
                oldest.map(|oldest| known.remove(&oldest));
            }
            let entry = known.entry(issuer.clone()).or_default();
            entry.at = now;
            if now.saturating_sub(entry.stored) >= STORED_EVERY {
                entry.stored = now;
                to_store.push(issuer.clone());
            }
            if !keeps.covers(*needs) && now.saturating_sub(entry.warned) >= WARNED_EVERY {
                entry.warned = now;
                tracing::error!(
                    issuer,
                    trouble = Trouble::RetentionTooShort.name(),
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
    pub fn not_stored(&self, issuers: &[String]) {
        let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for issuer in issuers {
            if let Some(told) = known.get_mut(issuer) {
                told.stored = 0;
            }
        }
    }

    /// # Errors
    /// [`Unknown`], or why the store could not be asked for what other instances were told.
    pub async fn check(&self, issuer: &str, store: &Store) -> Result<Result<(), Unknown>, Trouble> {
        let mut known = self.known();
        if is_among(issuer, &known) {
            return Ok(Ok(()));
        }
        known.extend(store.known_issuers(KEPT).await?);
        if is_among(issuer, &known) {
            return Ok(Ok(()));
        }
        known.sort();
        known.dedup();
        Ok(Err(Unknown { issuer: issuer.to_owned(), known }))
    }

    fn known(&self) -> Vec<String> {
        let oldest = unix_seconds().saturating_sub(KEPT.as_secs());
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.iter().filter(|(_, told)| told.at >= oldest).map(|(issuer, _)| issuer.clone());
        self.own.iter().cloned().chain(told).collect()
    }
}

/// What to write, for the store.
pub fn to_store(issuers: &[String]) -> KnownIssuers<'_> {
    KnownIssuers { issuers, now: unix_seconds(), kept: KEPT, most: MAX_ISSUERS }
}

fn is_among(issuer: &str, known: &[String]) -> bool {
    known.iter().any(|known| tenants::is_issuer_or_tenant(known, issuer))
}

/// No filter asks about such an issuer, and it is none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    issuer: String,
    known: Vec<String>,
}

impl Unknown {
    /// What is wrong with the field `issuer`, and what to do.
    pub fn detail(&self) -> String {
        let Self { issuer, known } = self;
        let alike = known.iter().map(|known| (strsim::normalized_damerau_levenshtein(issuer, known), known));
        let closest = alike.filter(|(alike, _)| *alike > 0.7).max_by(|(one, _), (other, _)| one.total_cmp(other));
        let hint = match (closest, known.as_slice()) {
            (Some((_, closest)), _) => format!("; did you mean `{closest}`?"),
            (None, []) => "; no filter has told this service of any issuer yet".to_owned(),
            (None, known) if known.len() <= LISTED => format!("; known are {}", known.join(", ")),
            (None, known) => format!("; {} others are known", known.len()),
        };
        format!(
            "is `{issuer}`, and no filter asks about such an issuer, so nothing would end{hint} If it is right all the \
             same, say `new_issuer: true` (--new-issuer)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::options;

    const KEEPS: Retention = Retention { token: 600, login: 600 };

    fn named(issuer: &str) -> NamedIssuer {
        NamedIssuer { issuer: issuer.into(), needs: KEEPS }
    }

    #[test]
    fn what_filters_told_is_known_and_stored_once_in_a_while() {
        let issuers = Issuers::new(&Options { issuers: vec!["https://own".into()], ..options() });
        assert_eq!(issuers.learn(&[named("https://a"), named("https://b")], KEEPS), ["https://a", "https://b"]);
        assert!(issuers.learn(&[named("https://a")], KEEPS).is_empty());
        issuers.not_stored(&["https://a".into()]);
        assert_eq!(issuers.learn(&[named("https://a")], KEEPS), ["https://a"]);
        let known = issuers.known();
        for issuer in ["https://own", "https://a", "https://b"] {
            assert!(is_among(issuer, &known), "{issuer}");
        }
        assert!(!is_among("https://a/", &known));
    }

    #[test]
    fn a_tenant_is_one_segment() {
        let known = ["https://login.example/{tenant}/v2.0".to_owned()];
        assert!(is_among("https://login.example/acme/v2.0", &known));
        for other in [
            "https://login.example//v2.0",
            "https://login.example/a/b/v2.0",
            "https://login.example/acme/v2.0/",
            "https://login.example/v2.0",
        ] {
            assert!(!is_among(other, &known), "{other}");
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
            Unknown { issuer: issuer.into(), known }.detail()
        };
        let known = ["https://idp.example.com", "https://other.test/realms/x"];
        for wrong in ["https://idp.example.com/", "http://idp.example.com", "https://idp.exmaple.com"] {
            assert!(detail(wrong, &known).contains("did you mean `https://idp.example.com`?"), "{wrong}");
        }
        assert!(detail("me", &known).contains("known are https://idp.example.com, https://other.test/realms/x"));
        assert!(detail("me", &[]).contains("no filter has told"));
    }
}
