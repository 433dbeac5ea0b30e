//! Last step: the known verdicts decide whether to admit, to ask, or to refuse.
use std::sync::Arc;

use wire::sightings::Client;

use super::{Accepted, Exposed, Judged, Questions, Removal, Verified};
use crate::config::RevocationMode;
use crate::dpop::Proven;
use crate::policy::Policy;
use crate::reject::{Cause, Rejection};
use crate::revocation::{FeedWord, Known, RevocationQuery, Verdict};
use crate::time::{Monotonic, Now};

/// The state of an accepted request.
#[derive(Debug)]
pub enum RevocationStatus {
    Admitted(Admission),
    /// Its issuer's server must be asked about this JWT first; then judge the request again.
    MustIntrospect(Accepted),
    /// There is no fresh verdict: query it, and return with the answer.
    MustAsk(Asking),
}

/// An accepted request that waits for a verdict.
#[derive(Debug)]
pub struct Asking {
    pub(super) accepted: Accepted,
    pub(super) ask: Arc<RevocationQuery>,
    pub(super) passes_when_unavailable: bool,
    /// A check that was sent earlier may lack a revocation that the feed has brought.
    pub(super) not_before: Monotonic,
}

/// What comes before the claim of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeforeClaim {
    Nothing,
    /// Its issuer's server must be asked about the JWT.
    Introspection,
}

/// Why there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The service, or its store, is unreachable or does not answer in time.
    OutOfReach,
    /// There is an answer that cannot be trusted: not from the service, or from a store that is not ours.
    NotToBeTrusted,
    /// This proxy has reached its limit of queries.
    Overload,
}

/// Permission to forward, and how. Only this module creates one.
#[derive(Debug)]
pub struct Admission {
    pub(super) judged: Arc<Judged>,
    pub(super) removal: Removal,
    pub(super) rule: usize,
    pub(super) reported: Vec<Rejection>,
    /// Admitted although its session could not be checked: the rule allows it explicitly.
    pub unchecked: bool,
    /// Admitted since the feed of revocations proves that none of the token's keys is revoked.
    pub by_feed: bool,
    pub(super) refresh: Option<Arc<RevocationQuery>>,
    pub(super) proven: Option<Box<Proven>>,
    pub(super) removes_proof: bool,
    pub(super) client: Option<Box<Client>>,
    pub(super) verified: Arc<Verified>,
}

impl Policy {
    /// Judges a request again whose JWT was introspected meanwhile.
    ///
    /// # Errors
    /// The token expired while the request waited, or the answer ended it.
    pub fn status_after_introspection(
        &self,
        accepted: Accepted,
        known: Option<Known<'_>>,
        now: Now,
    ) -> Result<RevocationStatus, Rejection> {
        accepted.check_times(now.wall)?;
        self.revocation_status(accepted, known, now)
    }

    /// The state of an accepted request according to the feed and the cache.
    ///
    /// # Errors
    /// `RejectReason::SessionRevoked` or `RejectReason::StepUpDemanded` when a fresh verdict says so.
    pub fn revocation_status(
        &self,
        accepted: Accepted,
        known: Option<Known<'_>>,
        now: Now,
    ) -> Result<RevocationStatus, Rejection> {
        if self.lacks_confirmation(&accepted.verified, now)? {
            return Ok(RevocationStatus::MustIntrospect(accepted));
        }
        self.status_by_verdict(accepted, known, now)
    }

    /// What must come before the proof of an accepted request is claimed: the store of claims is not for requests that are
    /// refused anyway.
    ///
    /// # Errors
    /// It is refused by what is known already.
    pub fn before_claim(&self, accepted: &Accepted, now: Now) -> Result<BeforeClaim, Rejection> {
        if self.lacks_confirmation(&accepted.verified, now)? {
            return Ok(BeforeClaim::Introspection);
        }
        let mode = self.rules.get(accepted.judged.rule).map_or(RevocationMode::Check, |rule| rule.revocation);
        match (self.revocation(), &accepted.verified.questions) {
            _ if mode == RevocationMode::Off => {}
            (_, Questions::Unaskable(rejection)) => return Err(rejection.clone()),
            (Some(revocation), Questions::Query(ask)) => {
                if let Some((sent, Verdict::Dead { by })) = ask.verdict()
                    && revocation.is_fresh(sent, now.monotonic)
                {
                    return Err(ask.cause(by).into());
                }
            }
            (None, _) | (_, Questions::None) => {}
        }
        Ok(BeforeClaim::Nothing)
    }

    pub(super) fn status_by_verdict(
        &self,
        accepted: Accepted,
        known: Option<Known<'_>>,
        now: Now,
    ) -> Result<RevocationStatus, Rejection> {
        let mode = self.rules.get(accepted.judged.rule).map_or(RevocationMode::Check, |rule| rule.revocation);
        if mode == RevocationMode::Off {
            return Ok(RevocationStatus::Admitted(accepted.admit(false)));
        }
        let (revocation, ask) = match (self.revocation(), &accepted.verified.questions) {
            (Some(revocation), Questions::Query(ask)) => (revocation, ask),
            (_, Questions::Unaskable(rejection)) => return Err(rejection.clone()),
            // A rule that checks revocations does not compile without `revocation`.
            (None, _) | (_, Questions::None) => {
                return Err(Rejection::new(Cause::NoService));
            }
        };
        let word = revocation.word(known, ask, now.monotonic);
        let not_before = match word {
            FeedWord::Perhaps { since } => since,
            FeedWord::Clear | FeedWord::Silent => Monotonic(0),
        };
        if let Some((sent, verdict)) = ask.verdict()
            && revocation.is_fresh(sent, now.monotonic)
            && (verdict != Verdict::Live || (sent >= not_before && word != FeedWord::Clear))
        {
            return match verdict {
                Verdict::Live => {
                    let refresh = ask.begins_refresh(revocation, sent, now.monotonic).then(|| Arc::clone(ask));
                    Ok(RevocationStatus::Admitted(Admission { refresh, ..accepted.admit(false) }))
                }
                Verdict::Dead { by } => Err(ask.cause(by).into()),
            };
        }
        if word == FeedWord::Clear {
            return Ok(RevocationStatus::Admitted(Admission { by_feed: true, ..accepted.admit(false) }));
        }
        let ask = Arc::clone(ask);
        let passes_when_unavailable = mode == RevocationMode::DangerouslyPassWhenUnavailable;
        Ok(RevocationStatus::MustAsk(Asking { accepted, ask, passes_when_unavailable, not_before }))
    }
}

impl Asking {
    pub fn query(&self) -> &Arc<RevocationQuery> {
        &self.ask
    }

    pub fn rule(&self) -> usize {
        self.accepted.judged.rule
    }

    pub fn removal(&self) -> &Removal {
        &self.accepted.removal
    }

    pub fn verified(&self) -> &Arc<Verified> {
        &self.accepted.verified
    }

    /// Would a verdict be too old, whose check was sent at this time? Then it must be asked for again.
    pub fn needs_newer(&self, sent: Monotonic) -> bool {
        sent < self.not_before
    }

    /// A verdict must be of this time or newer.
    pub fn not_before(&self) -> Monotonic {
        self.not_before
    }

    /// A verdict arrived, from the service or from another worker.
    ///
    /// # Errors
    /// The session was revoked, the token expired while it waited, or the verdict is no longer fresh.
    pub fn on_verdict(
        self,
        policy: &Policy,
        sent: Monotonic,
        verdict: Verdict,
        now: Now,
    ) -> Result<Admission, Rejection> {
        self.ask.learn(sent, verdict);
        self.accepted.check_times(now.wall)?;
        // The cached verdict may be newer than the one that just arrived.
        match policy.status_by_verdict(self.accepted, None, now)? {
            RevocationStatus::Admitted(admission) => Ok(admission),
            RevocationStatus::MustAsk(_) | RevocationStatus::MustIntrospect(_) => {
                Err(Rejection::new(Cause::AnswerLate))
            }
        }
    }

    /// There is no verdict.
    ///
    /// # Errors
    /// The reason of `cause`, unless the rule admits unchecked requests while the service or its store is unreachable.
    /// For any other reason the request is refused: a client can cause an overload, and an attacker an answer that
    /// proves nothing.
    pub fn on_cannot_tell(self, reason: Unavailable, cause: Cause) -> Result<Admission, Rejection> {
        if self.passes_when_unavailable && reason == Unavailable::OutOfReach {
            // A token that was seen as revoked stays refused while there is no newer answer.
            return match self.ask.verdict() {
                Some((_, Verdict::Dead { by })) => Err(self.ask.cause(by).into()),
                Some((_, Verdict::Live)) | None => Ok(self.accepted.admit(true)),
            };
        }
        Err(cause.into())
    }
}

impl Admission {
    /// Headers to set, name and value; each replaces all that the client sent under this name.
    pub fn headers(&self) -> &[(String, String)] {
        &self.judged.headers
    }

    /// The query to refresh, although the verdict still counts: it will be stale soon.
    pub fn refresh(&self) -> Option<&Arc<RevocationQuery>> {
        self.refresh.as_ref()
    }

    /// What the rule would refuse if it enforced all of its conditions.
    pub fn reported(&self) -> impl Iterator<Item = &Rejection> {
        self.judged.reported.iter().chain(&self.reported)
    }

    /// What is exposed of its token.
    pub fn exposed(&self) -> Option<&Exposed> {
        self.verified.exposed.as_deref()
    }

    /// The proof of possession that this admission uses up. `None` for a bearer token.
    pub fn proven(&self) -> Option<&Proven> {
        self.proven.as_deref()
    }

    /// Must the header with the proof be removed?
    pub fn removes_proof(&self) -> bool {
        self.removes_proof
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    pub fn rule(&self) -> usize {
        self.rule
    }
}
