//! Where a request is that has not simply been forwarded or refused.
use std::sync::Arc;

use authn::decide::{Accepted, Asking, Entered, Verified};
use authn::reject::Rejection;

/// A request has one phase, and waits for at most one thing.
pub enum Phase {
    /// It waits for a verdict.
    Checking { asking: Asking, cookie_session: bool },
    /// It waits for its issuer's introspection server.
    Introspecting { subject: Introspected },
    /// A key that verifies its token may be on its way. `rejection` is what it gets without one.
    AwaitingKeys { entered: Entered<'static>, rejection: Rejection },
    /// It was refused, and the host would not send the refusal.
    Unanswered,
    /// It was forwarded, and its answer is a browser session's.
    CookieSession,
}

/// What is being introspected.
pub enum Introspected {
    Opaque(Entered<'static>),
    /// A JWT that is good by itself.
    Jwt {
        accepted: Accepted,
        cookie_session: bool,
    },
}

impl Phase {
    pub fn waits(&self) -> bool {
        match self {
            Phase::Checking { .. } | Phase::Introspecting { .. } | Phase::AwaitingKeys { .. } => true,
            Phase::Unanswered | Phase::CookieSession => false,
        }
    }

    pub fn is_held(&self) -> bool {
        self.waits() || matches!(self, Phase::Unanswered)
    }

    /// The rule that the request came under.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Phase::Checking { asking, .. } => Some(asking.rule()),
            Phase::Introspecting { subject } => Some(subject.rule()),
            Phase::AwaitingKeys { entered, .. } => Some(entered.rule()),
            Phase::Unanswered | Phase::CookieSession => None,
        }
    }
}

impl Introspected {
    pub fn rule(&self) -> usize {
        match self {
            Introspected::Opaque(entered) => entered.rule(),
            Introspected::Jwt { accepted, .. } => accepted.rule(),
        }
    }

    pub fn token(&self) -> &[u8] {
        match self {
            Introspected::Opaque(entered) => entered.token(),
            Introspected::Jwt { accepted, .. } => accepted.verified().token(),
        }
    }

    pub fn jwt(&self) -> Option<&Arc<Verified>> {
        match self {
            Introspected::Opaque(_) => None,
            Introspected::Jwt { accepted, .. } => Some(accepted.verified()),
        }
    }
}
