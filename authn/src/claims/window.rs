//! The time in which a token is valid.
use crate::reject::{Cause, Rejection};
use crate::time::UnixSeconds;

/// When the token counts, skew included: from (inclusive) to (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: UnixSeconds,
    pub until: UnixSeconds,
    /// When its login is too old, whatever `exp` says.
    pub login_until: UnixSeconds,
}

/// The claims that every token of an issuer is judged by, once, when it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub window: Window,
    /// `auth_time` where present, else `iat`: the moment that revocations are compared with.
    pub issued: Option<UnixSeconds>,
}

impl Window {
    pub(crate) const ALWAYS: Self =
        Self { from: UnixSeconds(0), until: UnixSeconds(u64::MAX), login_until: UnixSeconds(u64::MAX) };

    /// # Errors
    /// [`crate::reject::RejectReason::JwtExpired`], [`crate::reject::RejectReason::JwtTooLongLived`] or
    /// [`crate::reject::RejectReason::JwtNotYetValid`].
    pub fn check(self, now: UnixSeconds) -> Result<(), Rejection> {
        // RFC 7519 section 4.1.4: the current time must be before `exp`.
        if now >= self.until {
            return Err(Rejection::new(Cause::ExpPassed));
        }
        if now >= self.login_until {
            return Err(Rejection::new(Cause::LoginTooOld));
        }
        if now < self.from {
            return Err(Rejection::new(Cause::NotYetValid));
        }
        Ok(())
    }
}
