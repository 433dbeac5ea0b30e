//! What the operator configured about revocations.
use std::time::Duration;

use wire::{Kind, Retention, issuer_matches};

#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// How long revocations are kept: by then no token that one ends can be valid.
    pub retention: Retention,
    /// By issuer, the claims that name its tokens, in the order in which they count. Other issuers have
    /// `wire::TOKEN_ID_CLAIMS`.
    pub token_claims: Vec<(String, Vec<String>)>,
    /// How much longer than asked for a revocation is kept. For joined regions, whose copies may live for a little less.
    pub extra_ttl: Duration,
    /// Issuers that give the ids of ended sessions to new ones.
    pub reuse_session_ids: Vec<String>,
}

impl Policy {
    /// The shortest time that a revocation of this kind may hold, and its default. `None`: until it is lifted.
    ///
    /// Sessions and signing keys are dead for tokens that are issued later too: a thief goes on signing with a stolen key,
    /// and a session goes on getting tokens. So the lifetime of one token is not enough for those.
    pub fn retention_of(&self, kind: Kind) -> Option<Duration> {
        match kind {
            Kind::Token => Some(seconds(self.retention.token)),
            Kind::Session | Kind::User | Kind::Client | Kind::Issuer | Kind::StepUp => Some(self.login_retention()),
            Kind::SigningKey => None,
        }
    }

    pub fn login_retention(&self) -> Duration {
        seconds(self.retention.login)
    }

    /// The claims that name tokens of this issuer, if it has its own.
    pub fn token_claims_of(&self, issuer: &str) -> Option<&[String]> {
        let own = self.token_claims.iter().find(|(configured, _)| issuer_matches(configured, issuer));
        own.map(|(_, claims)| claims.as_slice())
    }

    /// Does a session of this issuer end only for what was issued until now?
    pub fn reuses_session_ids(&self, issuer: &str) -> bool {
        self.reuse_session_ids.iter().any(|configured| issuer_matches(configured, issuer))
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
