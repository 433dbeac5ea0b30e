//! JWTs that are also introspected (RFC 7662). Signature, claims, rule and binding are judged first, so that only a
//! valid token is ever sent. The answer can end such a token and shorten its time. It adds nothing: only the token's
//! own claims count and are forwarded.
use std::sync::{Arc, PoisonError};

use jose::json::Object;

use super::{Accepted, Unverifiable, Verified, registered, unknown_issuer};
use crate::claims::window::Window;
use crate::introspection::{Introspection, Reply, Unanswered};
use crate::keys::rings::Keyrings;
use crate::policy::{Issuer, Policy};
use crate::reject::{Cause, Rejection};
use crate::time::{Monotonic, Now};

/// The server called it active.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmation {
    /// When the request was sent.
    sent: Monotonic,
    /// The time in which the token counts, restricted by the answer.
    pub(super) window: Window,
}

impl Policy {
    /// Must its server be asked about this JWT first?
    ///
    /// # Errors
    /// An answer that still counts has ended it.
    pub(super) fn lacks_confirmation(&self, verified: &Verified, now: Now) -> Result<bool, Rejection> {
        let Some(server) = self.confirming(verified) else { return Ok(false) };
        match verified.confirmation() {
            Some(confirmation) if server.is_fresh(confirmation.sent, now.monotonic) => {
                confirmation.window.check(now.wall).map(|()| false)
            }
            Some(_) | None => Ok(true),
        }
    }

    fn confirming(&self, verified: &Verified) -> Option<&Introspection> {
        let server = self.introspection(verified.issuer).filter(|server| server.asks_about_jwts());
        server.filter(|_| !verified.is_opaque())
    }

    /// The result of a reply about a JWT.
    ///
    /// # Errors
    /// `Ok(Err(…))` is a "no", cached as long as a yes. `Err` is no answer.
    pub fn confirm(
        &self,
        verified: &Verified,
        reply: &Reply<'_>,
        sent: Monotonic,
        now: Now,
    ) -> Result<Result<(), Rejection>, Unanswered> {
        let response = match reply.read()? {
            Ok(response) => response,
            Err(rejection) => return Ok(Err(rejection)),
        };
        Ok(self.window_left(verified, response.as_object(), now).map(|window| {
            let mut confirmation = verified.confirmation.lock().unwrap_or_else(PoisonError::into_inner);
            if confirmation.is_none_or(|earlier| earlier.sent <= sent) {
                *confirmation = Some(Confirmation { sent, window });
            }
        }))
    }

    fn window_left(&self, verified: &Verified, response: Option<&Object<'_>>, now: Now) -> Result<Window, Rejection> {
        let issuer: &Issuer = self.issuers.get(verified.issuer).ok_or_else(unknown_issuer)?;
        let response = response.ok_or(Cause::ResponseNotObject)?;
        let payload = verified.parse_payload()?;
        let token = payload.as_object().ok_or(Cause::PayloadNotObject)?;
        registered::check_confirmed(issuer, token, response, now.wall)
    }

    /// Is the token still valid when the answer arrives? Its key may have been removed while the request waited.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_still_trusts(&self, verified: &Verified, keyrings: &Keyrings, now: Now) -> Result<(), Unverifiable> {
        match verified.is_opaque() || self.still_trusts(verified, keyrings, now)? {
            true => Ok(()),
            false => Err(Rejection::new(Cause::KidUnknown).into()),
        }
    }
}

impl Verified {
    /// The newest answer that called it active.
    pub(super) fn confirmation(&self) -> Option<Confirmation> {
        *self.confirmation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accepted {
    pub fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }
}
