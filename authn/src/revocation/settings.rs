//! How the session service is asked, and how long its answers count.
use std::time::Duration;

use wire::DerivedKeys;
use wire::Kind;
use wire::Retention;

use super::KeyCache;
use crate::time::Monotonic;

/// How the session service is asked.
#[derive(Debug)]
pub struct Revocation {
    pub cluster: String,
    pub authority: String,
    pub timeout: Duration,
    pub freshness: Duration,
    /// A verdict in use is asked for anew from this age on. `None`: only when it is stale, by a request that waits.
    pub(crate) refresh_after: Option<Duration>,
    pub derived: DerivedKeys,
    /// How long the service must keep revocations for each issuer's tokens, in the document's order.
    pub(crate) needs: Vec<Retention>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) memo: KeyCache,
    /// How far ahead of our clock a token may be issued. Seconds.
    pub future_iat_tolerance: u64,
}

const SHARED_AGE: f64 = 0.1;

impl Revocation {
    /// Does an answer still count, whose question was sent then? One from the future was not sent on this clock.
    pub fn is_fresh(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.freshness
    }

    /// How long an answer about an issuer, a signing key or a client serves tokens that ask the same: so short that the
    /// verdicts which rest on it lose little of their freshness.
    pub fn shared_answers_serve(&self) -> Duration {
        self.freshness.mul_f64(SHARED_AGE)
    }

    /// How long revocations must be kept for the tokens of the issuer at this place.
    pub(crate) fn needs(&self, place: usize) -> Retention {
        self.needs.get(place).copied().unwrap_or(Retention::LONGEST)
    }

    /// Is it so fresh that nobody need ask anew?
    pub fn is_young(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.refresh_after.unwrap_or(self.freshness)
    }
}
