//! Settings of the callouts to the session service, and how long its answers are fresh.
use std::sync::Arc;
use std::time::Duration;

use wire::DerivedKeys;
use wire::Kind;
use wire::Retention;

use super::{FeedSettings, FeedWord, KeyCache, Known, RevocationQuery};
use crate::claims::step_up::StepUp;
use crate::time::Monotonic;

/// How checks are sent to the session service.
#[derive(Debug)]
pub struct Revocation {
    pub cluster: String,
    pub authority: String,
    pub timeout: Duration,
    pub freshness: Duration,
    /// A verdict in use is refreshed before it is stale. Otherwise a request waits for the next one.
    pub(crate) refreshes_ahead: bool,
    pub derived: Arc<DerivedKeys>,
    /// The retention that each issuer's tokens need, in the document's order.
    pub(crate) needs: Vec<Retention>,
    pub(crate) kinds: Vec<Kind>,
    /// The login that counts after a demand. `None`: demands are not asked for.
    pub(crate) step_up: Option<StepUp>,
    pub(crate) memo: KeyCache,
    /// `None`: each token is asked about.
    pub feed: Option<FeedSettings>,
    /// `None`: nothing is asked about other regions.
    pub regions: Option<RegionSettings>,
    /// How far ahead of our clock a token may be issued. Seconds.
    pub future_iat_tolerance: u64,
}

/// What is required of the service's knowledge of other regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSettings {
    pub max_lag: Duration,
    /// An answer of a service that lags more does not count. Otherwise it is only reported.
    pub closes: bool,
}

const SHARED_AGE: f64 = 0.1;
/// The part of its freshness after which a verdict in use is refreshed.
const REFRESH_AGE: f64 = 0.6;

impl Revocation {
    /// Does an answer still count, if its request was sent then? A time in the future is not from this clock.
    pub fn is_fresh(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.freshness
    }

    /// A verdict that stays in use is asked for again at this age, so that the answer comes while it is fresh.
    pub fn ask_again_after(&self) -> Duration {
        self.freshness.mul_f64(REFRESH_AGE)
    }

    /// How long an answer about an issuer, a signing key or a client is reused for other tokens. It is so short that
    /// the verdicts lose little of their freshness.
    pub fn shared_answers_serve(&self) -> Duration {
        self.freshness.mul_f64(SHARED_AGE)
    }

    /// What the feed says about a token, if it is followed.
    pub(crate) fn word(&self, known: Option<Known<'_>>, query: &RevocationQuery, now: Monotonic) -> FeedWord {
        match (known, &self.feed) {
            (Some(known), Some(feed)) => known.word(query, feed.lag, now),
            (None, _) | (_, None) => FeedWord::Silent,
        }
    }

    /// The retention that the tokens of every issuer need.
    pub fn longest_needs(&self) -> Retention {
        self.needs.iter().fold(Retention::default(), |longest, needs| Retention {
            token: longest.token.max(needs.token),
            login: longest.login.max(needs.login),
        })
    }

    /// The retention that the tokens of the issuer at this index need.
    pub(crate) fn needs(&self, index: usize) -> Retention {
        self.needs.get(index).copied().unwrap_or(Retention::LONGEST)
    }

    fn young_for(&self) -> Duration {
        if self.refreshes_ahead { self.ask_again_after() } else { self.freshness }
    }

    /// Is it so fresh that no refresh is needed?
    pub fn is_young(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.young_for()
    }
}
