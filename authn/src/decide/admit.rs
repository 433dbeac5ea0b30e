//! Last step: what is known of revocations decides between admission, a question and a refusal.
use std::sync::Arc;

use super::{Accepted, Judged, Questions, Removal, Verified};
use crate::config::RevocationMode;
use crate::policy::Policy;
use crate::reject::{Cause, Rejection};
use crate::revocation::{RevocationQuery, Verdict};
use crate::time::{Monotonic, Now};

/// Where an accepted request stands.
#[derive(Debug)]
pub enum RevocationStatus {
    Admitted(Admission),
    /// Its issuer's server is to be asked about this JWT: ask, and judge the request anew.
    MustIntrospect(Accepted),
    /// Nothing fresh is known: ask, and come back with the answer.
    MustAsk(Asking),
}

/// An accepted request that waits for a verdict.
#[derive(Debug)]
pub struct Asking {
    pub(super) accepted: Accepted,
    pub(super) ask: Arc<RevocationQuery>,
    pub(super) passes_when_unavailable: bool,
}

/// Why no verdict can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The service, or the store behind it, cannot be reached or does not answer in time.
    OutOfReach,
    /// There is an answer, and it must not be believed: not the service's, or from a store that is not ours.
    NotToBeTrusted,
    /// This proxy has too much to ask.
    Overload,
}

/// Leave to forward, and how. Only this module makes one.
#[derive(Debug)]
pub struct Admission {
    pub(super) judged: Arc<Judged>,
    pub(super) removal: Removal,
    pub(super) rule: usize,
    pub mismatch_reported: bool,
    /// Admitted though nothing could tell whether its session still lives: the rule says so in so many words.
    pub unchecked: bool,
    pub(super) refresh: Option<Arc<RevocationQuery>>,
}

impl Policy {
    /// Judges a request again whose JWT was introspected meanwhile.
    ///
    /// # Errors
    /// The token expired while the request waited, or the answer ended it.
    pub fn status_after_introspection(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        accepted.verified.window.check(now.wall)?;
        self.revocation_status(accepted, now)
    }

    /// Where an accepted request stands by what the cache knows.
    ///
    /// # Errors
    /// [`RejectReason::SessionRevoked`] when a fresh verdict says so.
    pub fn revocation_status(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        if self.lacks_confirmation(&accepted.verified, now)? {
            return Ok(RevocationStatus::MustIntrospect(accepted));
        }
        self.status_by_verdict(accepted, now)
    }

    pub(super) fn status_by_verdict(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        let mode = self.rules.get(accepted.judged.rule).map_or(RevocationMode::Check, |rule| rule.revocation);
        if mode == RevocationMode::Off {
            return Ok(RevocationStatus::Admitted(accepted.admit(false)));
        }
        let (revocation, ask) = match (self.revocation(), &accepted.verified.questions) {
            (Some(revocation), Questions::Query(ask)) => (revocation, ask),
            (_, Questions::Unaskable(rejection)) => return Err(rejection.clone()),
            // A rule that asks does not compile without `revocation`.
            (None, _) | (_, Questions::None) => {
                return Err(Rejection::new(Cause::NoService));
            }
        };
        if let Some((sent, verdict)) = ask.verdict()
            && revocation.is_fresh(sent, now.monotonic)
        {
            return match verdict {
                Verdict::Live => {
                    let refresh = ask.begins_refresh(revocation, sent, now.monotonic).then(|| Arc::clone(ask));
                    Ok(RevocationStatus::Admitted(Admission { refresh, ..accepted.admit(false) }))
                }
                Verdict::Dead => Err(revoked()),
            };
        }
        let ask = Arc::clone(ask);
        let passes_when_unavailable = mode == RevocationMode::DangerouslyPassWhenUnavailable;
        Ok(RevocationStatus::MustAsk(Asking { accepted, ask, passes_when_unavailable }))
    }
}

impl Asking {
    pub fn query(&self) -> &Arc<RevocationQuery> {
        &self.ask
    }

    pub fn rule(&self) -> usize {
        self.accepted.judged.rule
    }

    pub fn verified(&self) -> &Arc<Verified> {
        &self.accepted.verified
    }

    /// A verdict has come, from the service or from another worker's memory.
    ///
    /// # Errors
    /// The session was ended, the token expired while it waited, or the verdict is no longer fresh.
    pub fn on_verdict(
        self,
        policy: &Policy,
        sent: Monotonic,
        verdict: Verdict,
        now: Now,
    ) -> Result<Admission, Rejection> {
        self.ask.learn(sent, verdict);
        self.accepted.verified.window.check(now.wall)?;
        // What is known by now may be newer than what has just come.
        match policy.status_by_verdict(self.accepted, now)? {
            RevocationStatus::Admitted(admission) => Ok(admission),
            RevocationStatus::MustAsk(_) | RevocationStatus::MustIntrospect(_) => {
                Err(Rejection::new(Cause::AnswerLate))
            }
        }
    }

    /// No verdict can be had.
    ///
    /// # Errors
    /// The fault of `cause`, unless the rule lets pass what cannot be checked while the service or its store is out of reach. Any
    /// other reason never passes: a client can cause an overload, and an impostor an answer that proves nothing.
    pub fn on_cannot_tell(self, reason: Unavailable, cause: Cause) -> Result<Admission, Rejection> {
        if self.passes_when_unavailable && reason == Unavailable::OutOfReach {
            // What was seen to be ended stays ended while nobody can say otherwise.
            return match self.ask.verdict() {
                Some((_, Verdict::Dead)) => Err(revoked()),
                Some((_, Verdict::Live)) | None => Ok(self.accepted.admit(true)),
            };
        }
        Err(cause.into())
    }
}

impl Admission {
    /// Headers to set, name and value, each replacing all that the client sent under this name.
    pub fn headers(&self) -> &[(String, String)] {
        &self.judged.headers
    }

    /// What is to be asked anew, though the verdict still counts: soon it will not.
    pub fn refresh(&self) -> Option<&Arc<RevocationQuery>> {
        self.refresh.as_ref()
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    pub fn rule(&self) -> usize {
        self.rule
    }
}

fn revoked() -> Rejection {
    Rejection::new(Cause::Revoked)
}
