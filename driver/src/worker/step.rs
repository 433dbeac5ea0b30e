//! Decides without side effects: turns a request's headers, or the end of a wait, into the next step.
use authn::policy::Policy;
use authn::revocation::Verdict;
use authn::time::UnixSeconds;

use crate::refusal_line::PresentedToken;

use super::*;

/// The next step of a request.
pub enum Step {
    Refuse(Refused),
    /// Forwarded without identity. Unchecked tokens are removed.
    Open {
        rule: usize,
        removals: Vec<Removal>,
    },
    /// The filter itself replies.
    Probe {
        rule: usize,
    },
    Admit {
        admission: Admission,
        cookie_session: bool,
    },
    Check {
        asking: Asking,
        cookie_session: bool,
    },
    /// The service must not have seen its proof before.
    Claim {
        accepted: Accepted,
        proof: UsedProof,
        cookie_session: bool,
    },
    AwaitKeys {
        entered: Entered<'static>,
        issuer: usize,
        rejection: Rejection,
    },
    Introspect {
        issuer: usize,
        subject: Introspected,
    },
}

/// A request that is refused.
pub struct Refused {
    pub rule: Option<usize>,
    pub rejection: Rejection,
    /// It is only reported: how its tokens are hidden from the upstream, to which it is forwarded without identity.
    pub reported: Option<Vec<Removal>>,
    /// Its token, as far as one was found.
    pub token: Option<RefusedToken>,
    /// For the client's next proof.
    pub nonce: Option<String>,
}

pub enum RefusedToken {
    Unverified(Box<[u8]>),
    Verified(Arc<Verified>),
}

/// The result of a request's headers.
pub struct Judged {
    pub edits: Vec<OwnedEdit>,
    pub missing: Settings,
    pub step: Step,
}

/// True when the request has already waited for its issuer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RetryState {
    /// It may wait once.
    First,
    /// It has waited for keys. It does not wait again for a key that is still unknown.
    KeysAwaited,
}

impl Worker {
    pub(super) fn judge<E: Exchange>(
        &mut self,
        pairs: &[Pair<'_>],
        selected: Option<&str>,
        body_follows: bool,
        exchange: &E,
        now: Now,
    ) -> Judged {
        let core = Arc::clone(&self.core);
        let request = match Request::from_pairs(pairs) {
            Ok(request) => request.with_body_to_follow(body_follows),
            Err(rejection) => {
                let step = Refused::new(None, rejection).into();
                return Judged { edits: Vec::new(), missing: Settings::default(), step };
            }
        };
        let edits: Vec<OwnedEdit> = core.policy.clear(&request).into_iter().map(OwnedEdit::from).collect();
        let mut missing = core.policy.missing_proxy_settings(&request);
        let step = match core.policy.enter_by(&request, selected) {
            Entry::Open { rule, .. } if core.policy.answers(rule) => Step::Probe { rule },
            Entry::Open { rule, removals } => Step::Open { rule, removals },
            Entry::Denied { rule, rejection } => {
                if rejection.reason == RejectReason::PathSuspicious {
                    missing = missing.union(missing_by_path(request.path()));
                }
                let reported = core.policy.only_reports(rule).then(|| core.policy.reported_tokens(rule, &request));
                Step::from(Refused::new(rule, rejection)).reported_by(reported)
            }
            Entry::Token(entered) => {
                exchange.observe(Stage::Entered(&entered));
                let reported = self.reported(entered.rule(), entered.removal());
                self.judge_token(entered, RetryState::First, exchange, now).reported_by(reported)
            }
        };
        Judged { edits, missing, step }
    }

    /// The step after a wait.
    pub(super) fn after<E: Exchange>(&mut self, phase: Phase, wake: Wake, exchange: &E, now: Now) -> Step {
        let reported = phase.rule().zip(phase.removal()).and_then(|(rule, removal)| self.reported(rule, removal));
        self.after_wake(phase, wake, exchange, now).reported_by(reported)
    }

    /// How the token is hidden if the rule only reports.
    fn reported(&self, rule: usize, removal: &Removal) -> Option<Vec<Removal>> {
        self.core.policy.only_reports(Some(rule)).then(|| vec![removal.clone()])
    }

    fn after_wake<E: Exchange>(&mut self, phase: Phase, wake: Wake, exchange: &E, now: Now) -> Step {
        exchange.observe(Stage::Woken(&wake));
        match (phase, wake) {
            (Phase::Checking { asking, cookie_session }, Wake::Verdict { sent, verdict: Verdict::Live })
                if asking.needs_newer(sent) =>
            {
                Step::Check { asking, cookie_session }
            }
            (Phase::Checking { asking, cookie_session }, Wake::Verdict { sent, verdict }) => {
                let (rule, verified) = (asking.rule(), Arc::clone(asking.verified()));
                admitted(rule, verified, asking.on_verdict(&self.core.policy, sent, verdict, now), cookie_session)
            }
            (Phase::Checking { asking, cookie_session }, Wake::CannotTell(reason, cause)) => {
                let (rule, verified) = (asking.rule(), Arc::clone(asking.verified()));
                admitted(rule, verified, asking.on_cannot_tell(reason, cause), cookie_session)
            }
            (Phase::Claiming { accepted, cookie_session }, Wake::Claimed(Ok(()))) => {
                self.status_after_wait(accepted.on_claimed(), cookie_session, now)
            }
            (Phase::Claiming { accepted, .. }, Wake::Claimed(Err(cause))) => {
                self.refused_verified(&accepted, cause.into())
            }
            (Phase::Introspecting { subject }, Wake::Introspected(Err(rejection))) => {
                let token = match subject.jwt() {
                    Some(jwt) => RefusedToken::Verified(Arc::clone(jwt)),
                    None => RefusedToken::Unverified(subject.token().into()),
                };
                Refused::new(Some(subject.rule()), rejection).about(token).into()
            }
            (Phase::Introspecting { subject }, Wake::Introspected(Ok(verified))) => {
                self.after_introspection(subject, verified, exchange, now)
            }
            (Phase::AwaitingKeys { entered, .. }, Wake::Keys { is_judged_anew: true }) => {
                self.judge_token(entered, RetryState::KeysAwaited, exchange, now)
            }
            (Phase::AwaitingKeys { entered, rejection }, Wake::Keys { is_judged_anew: false }) => {
                Refused::unverified(&entered, rejection).into()
            }
            // An event that does not match the request's phase.
            (phase, _) => Refused::new(phase.rule(), Rejection::new(Cause::AnswerLate)).into(),
        }
    }

    fn after_introspection<E: Exchange>(
        &mut self,
        subject: Introspected,
        verified: Arc<Verified>,
        exchange: &E,
        now: Now,
    ) -> Step {
        let rule = subject.rule();
        let token = Arc::clone(&verified);
        let refused =
            |rejection, token| Step::from(Refused::new(Some(rule), rejection).about(RefusedToken::Verified(token)));
        // Its key may have been removed while the request waited.
        if let Err(unverifiable) = self.core.policy.check_still_trusts(&verified, &self.keys.1, now) {
            return refused(unverifiable.rejection, token);
        }
        let step = match subject {
            Introspected::Opaque(entered) => self.accept(verified, entered, exchange, now),
            Introspected::Jwt { accepted, cookie_session } => self.status_after_wait(accepted, cookie_session, now),
        };
        match step {
            Step::Introspect { .. } => refused(Rejection::new(Cause::IntrospectionTimeout), token),
            step => step,
        }
    }

    pub(super) fn refused_verified(&self, accepted: &Accepted, rejection: Rejection) -> Step {
        let (rule, token) = (accepted.rule(), RefusedToken::Verified(Arc::clone(accepted.verified())));
        let refused = Refused::new(Some(rule), rejection).about(token);
        Step::from(refused).reported_by(self.reported(rule, accepted.removal()))
    }

    /// An accepted request has waited for something else than a verdict.
    fn status_after_wait(&mut self, accepted: Accepted, cookie_session: bool, now: Now) -> Step {
        let accepted = match self.claim(accepted, cookie_session, now) {
            Ok(accepted) => accepted,
            Err(step) => return *step,
        };
        let (rule, token) = (accepted.rule(), Arc::clone(accepted.verified()));
        let status = self.core.policy.status_after_introspection(accepted, self.known(), now);
        by_status(rule, token, status, cookie_session)
    }

    fn judge_token<E: Exchange>(&mut self, entered: Entered<'_>, retry: RetryState, exchange: &E, now: Now) -> Step {
        let verified = match self.verified(&entered, now) {
            Ok(verified) => verified,
            Err(Unverifiable { introspect: Some(issuer), .. }) => {
                return Step::Introspect { issuer, subject: Introspected::Opaque(entered.into_owned()) };
            }
            Err(Unverifiable { rejection, awaits_keys_of: Some(issuer), .. }) if retry == RetryState::First => {
                return Step::AwaitKeys { entered: entered.into_owned(), issuer, rejection };
            }
            Err(Unverifiable { rejection, .. }) => return Refused::unverified(&entered, rejection).into(),
        };
        self.accept(verified, entered, exchange, now)
    }

    fn accept<E: Exchange>(&mut self, verified: Arc<Verified>, entered: Entered<'_>, exchange: &E, now: Now) -> Step {
        exchange.observe(Stage::Verified(&verified));
        let (rule, cookie_session) = (entered.rule(), entered.is_cookie_session());
        let token = Arc::clone(&verified);
        let core = Arc::clone(&self.core);
        let accepted = match core.policy.accept(verified, entered, now, core.engine.as_ref(), exchange) {
            Ok(accepted) => accepted,
            Err(rejection) => {
                let nonce = match rejection.reason {
                    RejectReason::DpopNonceRequired => core.policy.nonce_for(&token, rule, now),
                    _ => None,
                };
                let refused = Refused::new(Some(rule), rejection).about(RefusedToken::Verified(token));
                return Refused { nonce, ..refused }.into();
            }
        };
        exchange.observe(Stage::Accepted);
        let accepted = match self.claim(accepted, cookie_session, now) {
            Ok(accepted) => accepted,
            Err(step) => return *step,
        };
        let status = core.policy.revocation_status(accepted, self.known(), now);
        self.count_feed(&status, now);
        by_status(rule, token, status, cookie_session)
    }

    /// The step by which its proof is claimed, or that comes before. `Ok`: it has no proof to claim any more.
    fn claim(&self, accepted: Accepted, cookie_session: bool, now: Now) -> Result<Accepted, Box<Step>> {
        let Some(proven) = accepted.claim(&self.core.policy) else { return Ok(accepted) };
        let seconds = UsedProofs::remembered_seconds(proven, now.wall);
        let proof = UsedProof { digest: proven.digest, seconds };
        Err(Box::new(match self.core.policy.before_claim(&accepted, now) {
            Ok(BeforeClaim::Nothing) => Step::Claim { accepted, proof, cookie_session },
            Ok(BeforeClaim::Introspection) => introspect(accepted, cookie_session),
            Err(rejection) => self.refused_verified(&accepted, rejection),
        }))
    }

    fn count_feed(&mut self, status: &Result<RevocationStatus, Rejection>, now: Now) {
        let (Some(known), Some(feed)) = (self.known(), self.core.policy.revocation().and_then(|it| it.feed)) else {
            return;
        };
        let answer = match status {
            Ok(RevocationStatus::Admitted(admission)) if admission.by_feed => FeedAnswer::Clear,
            Ok(RevocationStatus::MustAsk(_)) if known.is_fresh(feed.lag, now.monotonic) => FeedAnswer::Asked,
            Ok(RevocationStatus::MustAsk(_)) => FeedAnswer::Silent,
            // A cached verdict, or no question of revocation.
            Ok(RevocationStatus::Admitted(_) | RevocationStatus::MustIntrospect(_)) | Err(_) => return,
        };
        self.counts.count(Counter::FeedAnswer(answer));
    }

    /// From the token cache, or just verified.
    fn verified(&mut self, entered: &Entered<'_>, now: Now) -> Result<Arc<Verified>, Unverifiable> {
        let (policy, keys) = (&self.core.policy, &self.keys.1);
        if let Some(verified) = self.core.tokens.find(entered.token())
            && policy.is_for_rule(&verified, entered.rule())
            && (policy.still_trusts(&verified, keys, now)?
                || policy.keeps(&verified, entered.rule(), self.known(), now))
        {
            self.counts.count(Counter::TokenHit);
            return Ok(verified);
        }
        self.counts.count(Counter::TokenMiss);
        if let Some(issuer) = policy.introspecting(entered.rule(), entered.token()) {
            return Err(Unverifiable::opaque(issuer));
        }
        let verified = Arc::new(policy.verify(self.core.engine.as_ref(), keys, entered, now)?);
        self.core.tokens.insert(Arc::clone(&verified));
        Ok(verified)
    }
}

fn by_status(
    rule: usize,
    token: Arc<Verified>,
    status: Result<RevocationStatus, Rejection>,
    cookie_session: bool,
) -> Step {
    match status {
        Ok(RevocationStatus::Admitted(admission)) => Step::Admit { admission, cookie_session },
        Ok(RevocationStatus::MustAsk(asking)) => Step::Check { asking, cookie_session },
        Ok(RevocationStatus::MustIntrospect(accepted)) => introspect(accepted, cookie_session),
        Err(rejection) => Refused::new(Some(rule), rejection).about(RefusedToken::Verified(token)).into(),
    }
}

fn introspect(accepted: Accepted, cookie_session: bool) -> Step {
    let issuer = accepted.verified().issuer();
    Step::Introspect { issuer, subject: Introspected::Jwt { accepted, cookie_session } }
}

fn admitted(rule: usize, verified: Arc<Verified>, judged: Result<Admission, Rejection>, cookie_session: bool) -> Step {
    match judged {
        Ok(admission) => Step::Admit { admission, cookie_session },
        Err(rejection) => Refused::new(Some(rule), rejection).about(RefusedToken::Verified(verified)).into(),
    }
}

impl Step {
    /// A refusal is only reported if there is a way to forward the request.
    fn reported_by(self, reported: Option<Vec<Removal>>) -> Self {
        match self {
            Step::Refuse(refused) => Step::Refuse(Refused { reported, ..refused }),
            step => step,
        }
    }
}

impl Refused {
    pub fn new(rule: Option<usize>, rejection: Rejection) -> Self {
        Self { rule, rejection, token: None, reported: None, nonce: None }
    }

    fn unverified(entered: &Entered<'_>, rejection: Rejection) -> Self {
        Self::new(Some(entered.rule()), rejection).about(RefusedToken::Unverified(entered.token().into()))
    }

    fn about(self, token: RefusedToken) -> Self {
        Self { token: Some(token), ..self }
    }
}

impl RefusedToken {
    /// What is exposed of it, if it was verified.
    pub fn exposed(&self) -> Option<&Arc<Exposed>> {
        match self {
            RefusedToken::Unverified(_) => None,
            RefusedToken::Verified(verified) => verified.exposed(),
        }
    }

    /// What it says about itself.
    pub fn presented(&self, policy: &Policy, now: UnixSeconds) -> PresentedToken {
        match self {
            RefusedToken::Unverified(token) => {
                PresentedToken { is_verified: false, summary: policy.summary_of_unverified(token, now) }
            }
            RefusedToken::Verified(verified) => {
                PresentedToken { is_verified: true, summary: policy.summary_of(verified, now) }
            }
        }
    }
}

impl From<Refused> for Step {
    fn from(refused: Refused) -> Self {
        Self::Refuse(refused)
    }
}
