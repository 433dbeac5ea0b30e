//! The phase of a request that was not simply forwarded or refused.
use std::sync::Arc;

use authn::browser::Answer;
use authn::decide::{Accepted, Asking, Entered, Removal, Verified};
use authn::reject::Rejection;

/// A request has one phase, and waits for at most one thing.
pub enum Phase {
    /// It waits for a verdict.
    Checking { asking: Asking, cookie_session: bool },
    /// It waits for its issuer's introspection server.
    Introspecting { subject: Introspected },
    /// It waits for the service to say that its proof was not used before.
    Claiming { accepted: Accepted, cookie_session: bool },
    /// It waits for a key that may verify its token. `rejection` is the result without one.
    AwaitingKeys { entered: Entered<'static>, rejection: Rejection },
    /// It was refused, but the host did not send the refusal.
    Unanswered,
    /// It was forwarded or has its reply, and something must be done about its answer.
    Answering { rule: Option<usize>, answer: Answer },
    /// It was forwarded, and its stream is ended with its session or token.
    Open {
        rule: usize,
        answer: Answer,
        /// Its response has begun.
        is_answered: bool,
    },
}

/// The token that is being introspected.
pub enum Introspected {
    Opaque(Entered<'static>),
    /// A JWT that is valid by itself.
    Jwt {
        accepted: Accepted,
        cookie_session: bool,
    },
}

impl Phase {
    pub fn waits(&self) -> bool {
        match self {
            Phase::Checking { .. }
            | Phase::Introspecting { .. }
            | Phase::Claiming { .. }
            | Phase::AwaitingKeys { .. } => true,
            Phase::Unanswered | Phase::Answering { .. } | Phase::Open { .. } => false,
        }
    }

    pub fn is_held(&self) -> bool {
        self.waits() || matches!(self, Phase::Unanswered)
    }

    /// The rule that the request matched.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Phase::Checking { asking, .. } => Some(asking.rule()),
            Phase::Introspecting { subject } => Some(subject.rule()),
            Phase::Claiming { accepted, .. } => Some(accepted.rule()),
            Phase::AwaitingKeys { entered, .. } => Some(entered.rule()),
            Phase::Unanswered | Phase::Answering { .. } | Phase::Open { .. } => None,
        }
    }
}

impl Phase {
    /// How the token of a waiting request is hidden from the upstream.
    pub fn removal(&self) -> Option<&Removal> {
        match self {
            Phase::Checking { asking, .. } => Some(asking.removal()),
            Phase::Introspecting { subject: Introspected::Opaque(entered) } | Phase::AwaitingKeys { entered, .. } => {
                Some(entered.removal())
            }
            Phase::Claiming { accepted, .. } | Phase::Introspecting { subject: Introspected::Jwt { accepted, .. } } => {
                Some(accepted.removal())
            }
            Phase::Unanswered | Phase::Answering { .. } | Phase::Open { .. } => None,
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
