//! Why a logout token or an event was not accepted. "No" and "cannot tell" are different: only the second is worth a
//! retry.
use std::time::Duration;

/// No, now and at every retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    #[error("{0}")]
    Malformed(String),
    #[error("`iss` is not a provider that may send this here")]
    Issuer,
    #[error("`aud` does not name us")]
    Audience,
    #[error("`alg` is not allowed for this provider")]
    Algorithm,
    #[error("the provider has no such key")]
    UnknownKey,
    #[error("the signature does not match")]
    Signature,
    #[error("`typ` must be {0}")]
    Type(&'static str),
    #[error("`{0}` {1}")]
    Claim(&'static str, &'static str),
    #[error("`jti` was used before")]
    Replayed,
    #[error("`events` {0}")]
    Events(&'static str),
    #[error("`sub_id` {1}")]
    Subject(SubjectFault, &'static str),
    /// Of the body of a revocation request.
    #[error("the body {0}")]
    Body(String),
    /// The JWT is good, but not of the caller that may ask for this.
    #[error("`sub` is not the caller that may do this")]
    Caller,
}

/// Why a subject ends nothing here. A revocation request is answered accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectFault {
    Malformed,
    /// Of a format that names no user or session here.
    Unsupported,
    /// Of another issuer.
    Foreign,
    /// A mapping does not have it.
    Unknown,
    /// It is understood, but the tokens of it cannot be ended alone.
    Unending,
}

/// Cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// For the log.
    pub why: String,
    /// For the sender.
    pub text: &'static str,
    pub retry_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventError {
    Rejected(RejectReason),
    Unavailable(Unavailable),
}

impl RejectReason {
    /// The code of RFC 8935 section 2.4.
    pub fn set_code(&self) -> &'static str {
        match self {
            RejectReason::Issuer => "invalid_issuer",
            RejectReason::Audience => "invalid_audience",
            RejectReason::Algorithm | RejectReason::UnknownKey => "invalid_key",
            RejectReason::Signature => "authentication_failed",
            RejectReason::Malformed(_)
            | RejectReason::Type(_)
            | RejectReason::Claim(..)
            | RejectReason::Replayed
            | RejectReason::Events(_)
            | RejectReason::Subject(..)
            | RejectReason::Body(_)
            | RejectReason::Caller => "invalid_request",
        }
    }
}

impl From<RejectReason> for EventError {
    fn from(refused: RejectReason) -> Self {
        EventError::Rejected(refused)
    }
}

impl From<Unavailable> for EventError {
    fn from(unavailable: Unavailable) -> Self {
        EventError::Unavailable(unavailable)
    }
}

/// The shortest time before a retry.
const RETRY: Duration = Duration::from_secs(1);

impl Unavailable {
    pub fn keys(why: impl Into<String>, retry_after: Duration) -> Self {
        Self { why: why.into(), text: "the provider's keys are not available now", retry_after: retry_after.max(RETRY) }
    }

    pub fn store(why: impl Into<String>) -> Self {
        Self { why: why.into(), text: "the request could not be confirmed", retry_after: RETRY }
    }

    pub fn busy(text: &'static str) -> Self {
        Self { why: text.into(), text, retry_after: RETRY }
    }
}
