//! Regions joined: each region's instances follow the revocations of the other regions, and merge them into their own store.
//!
//! A merge only adds, so it may be repeated and may come in any order. Every instance follows every other region; what one of
//! them has merged, the others find there. No revocation waits for any of this.
mod exchange;
mod follow;
mod merge;
mod metrics;
mod serve;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::RevocationStore;
use tokio::sync::watch;
use wire::check::{Needs, RegionsMoment};
use wire::{DerivedKeys, Retention, SecretId};

use crate::base::clock::unix_seconds;
use crate::base::current::Current;
use crate::domain::audit::Audit;
use crate::domain::feed::{Nudge, millis};
pub use exchange::{AskError, Peer, PeerError, PeerTls};
use follow::Follower;
pub use metrics::{Metrics, ServedResult};
pub use serve::Serving;
pub use status::StoresSeen;

/// How much longer a revocation is kept in joined regions than its tokens need. See [`merge`] for what this makes up for.
pub const EXTRA_TTL: Duration = Duration::from_secs(120);
/// The most other regions.
pub const MAX_REGIONS: usize = 16;

/// What this region has in common with the others, or should have.
#[derive(Debug, Clone)]
pub struct OurFacts {
    pub keeps: Retention,
    pub future_iat_tolerance_seconds: u64,
    /// The secrets that revocations are written under.
    pub secrets: Vec<SecretId>,
}

/// The other regions that this instance follows.
#[derive(Debug)]
pub struct Regions {
    followers: Vec<Arc<Follower>>,
    parts: Arc<Parts>,
}

pub struct Parts {
    pub store: Arc<dyn RevocationStore>,
    pub facts: Current<OurFacts>,
    pub feed: Nudge,
    pub audit: Current<Audit>,
    pub metrics: Metrics,
    /// From one comparison with all of a region to the next one.
    pub compare: Duration,
    pub stores_seen: StoresSeen,
}

impl OurFacts {
    fn needs(&self) -> Needs {
        let future_iat_tolerance_seconds = u16::try_from(self.future_iat_tolerance_seconds).unwrap_or(u16::MAX);
        Needs { future_iat_tolerance_seconds, now_seconds: unix_seconds() }
    }
}

impl Regions {
    pub fn new(peers: Vec<Peer>, parts: Parts) -> Self {
        let parts = Arc::new(parts);
        let follower = |peer: Peer| Arc::new(Follower::new(Box::new(peer), Arc::clone(&parts)));
        Self { followers: peers.into_iter().map(follower).collect(), parts }
    }

    /// Goes on with these. `secret` is what the regions are asked with.
    pub fn reconfigure(&self, facts: OurFacts, audit: Arc<Audit>, secret: Option<&DerivedKeys>) {
        self.parts.facts.replace(Arc::new(facts));
        self.parts.audit.replace(audit);
        if let Some(secret) = secret {
            self.followers.iter().for_each(|follower| follower.ask_with(secret));
        }
    }

    /// Follows all of them until `on_stop` says so.
    pub fn start(&self, on_stop: &watch::Receiver<bool>) {
        for follower in &self.followers {
            tokio::spawn(Arc::clone(follower).run(on_stop.clone()));
        }
    }

    /// As of when everything that was acknowledged in each other region is in what was read of our store since `read`, for
    /// filters with this secret.
    pub fn proven(&self, secret: SecretId, read: Instant, received: Instant) -> RegionsMoment {
        let least = self.followers.iter().map(|follower| follower.proven(secret, read)).min().flatten();
        least.map_or(RegionsMoment::UNKNOWN, |moment| RegionsMoment::of(millis(moment, received)))
    }

    /// `None`: this instance follows no region. Otherwise whether it is up to date with each of them.
    pub fn are_joined(&self) -> Option<bool> {
        (!self.followers.is_empty()).then(|| self.followers.iter().all(|follower| !follower.status().is_cut_off()))
    }
}

#[cfg(test)]
mod tests;
