//! Opaque tokens: which issuer a rule asks about one, and the result of an answer. `confirmed` handles JWTs that are
//! also introspected.
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jose::json::{Json, Number, Object};
use wire::{Kind, RevocationKey};

use super::{DEFAULT_FUTURE_IAT_TOLERANCE, Questions, Unverifiable, Verified, registered, unknown_issuer};
use crate::config::RevocationMode;
use crate::introspection::{Failure, Introspection, Reply, Unanswered};
use crate::policy::{Issuer, Policy};
use crate::reject::{Cause, Rejection};
use crate::revocation::{self, FeedWord, Known, Revocation, RevocationQuery, Whose};
use crate::time::{Monotonic, Now, UnixSeconds};

/// How long our own service allows an answer to be kept, in seconds.
const KEEP_FOR: &str = "portcullis_keep_for";

/// Replaces the signature.
#[derive(Debug)]
pub(super) struct Introspected {
    /// When the request was sent.
    sent: Monotonic,
    /// The server has since said that it is not active.
    ended: AtomicBool,
    /// How long it counts while the feed says that it was not revoked.
    kept_for: Duration,
}

impl Introspected {
    pub(super) fn is_fresh(&self, issuer: &Issuer, now: Now) -> bool {
        !self.ended.load(Ordering::Relaxed)
            && issuer.introspection.as_ref().is_some_and(|server| server.is_fresh(self.sent, now.monotonic))
    }

    fn is_kept(&self, now: Now) -> bool {
        let (sent, now) = (self.sent, now.monotonic);
        !self.ended.load(Ordering::Relaxed) && sent <= now && now.since(sent) < self.kept_for
    }
}

impl Policy {
    /// The issuer that a rule asks about this token: the one whose format it matches. `None` for a JWT, valid or not,
    /// and for a token without a matching format.
    pub fn introspecting(&self, rule: usize, token: &[u8]) -> Option<usize> {
        let rule = self.rules.get(rule)?;
        let fits = |issuer: &usize| self.introspection(*issuer).is_some_and(|server| server.is_opaque_of(token));
        rule.introspecting.iter().copied().find(fits)
    }

    /// How this issuer is asked about its tokens, if it is.
    pub fn introspection(&self, issuer: usize) -> Option<&Introspection> {
        self.issuers.get(issuer)?.introspection.as_ref()
    }

    /// The issuers with introspection.
    pub fn introspected_issuers(&self) -> impl Iterator<Item = usize> + use<'_> {
        let is_asked = |(index, issuer): (usize, &Issuer)| issuer.introspection.is_some().then_some(index);
        self.issuers.iter().enumerate().filter_map(is_asked)
    }

    /// The revocation query of a token that is known from an earlier answer, unless there is a verdict: sent while the
    /// introspection is in flight, so that the request waits once and not twice.
    pub fn worth_asking(
        &self,
        earlier: &Verified,
        rule: usize,
        known: Option<Known<'_>>,
        now: Now,
    ) -> Option<Arc<RevocationQuery>> {
        let (revocation, ask) = (self.revocation()?, earlier.ask()?);
        let asks = self.rules.get(rule)?.revocation != RevocationMode::Off;
        let is_clear = known.is_some_and(|known| revocation.word(Some(known), ask, now.monotonic) == FeedWord::Clear);
        let knows = is_clear || ask.verdict().is_some_and(|(sent, _)| revocation.is_fresh(sent, now.monotonic));
        (asks && !knows).then(|| Arc::clone(ask))
    }

    /// Does an answer that is no longer fresh still count, because the feed says that the token was not revoked?
    pub fn keeps(&self, verified: &Verified, rule: usize, known: Option<Known<'_>>, now: Now) -> bool {
        let (Some(introspected), Some(revocation), Some(ask)) =
            (&verified.introspected, self.revocation(), verified.ask())
        else {
            return false;
        };
        let checks = self.rules.get(rule).is_some_and(|rule| rule.revocation != RevocationMode::Off);
        checks && introspected.is_kept(now) && revocation.word(known, ask, now.monotonic) == FeedWord::Clear
    }

    /// Does the cached answer apply to this rule? An opaque token counts only by the answer of the server that the rule
    /// asks.
    pub fn is_for_rule(&self, verified: &Verified, rule: usize) -> bool {
        // The formats of a rule's issuers exclude each other: a match is unique.
        verified.introspected.is_none()
            || self.rules.get(rule).is_some_and(|rule| rule.introspecting.contains(&verified.issuer))
    }

    /// The result of a reply about a token.
    ///
    /// # Errors
    /// `Ok(Err(…))` is a "no", cached as long as a yes. `Err` is no answer.
    pub fn introspected(
        &self,
        issuer: usize,
        token: &[u8],
        reply: &Reply<'_>,
        sent: Monotonic,
        now: Now,
    ) -> Result<Result<Verified, Rejection>, Unanswered> {
        // An answer alone does not make a JWT valid, since its signature decides: see `confirm`.
        if !self.introspection(issuer).is_some_and(|server| server.is_opaque_of(token)) {
            return Err(Failure::NotUnderstood.into());
        }
        Ok(reply.read()?.and_then(|response| self.active(issuer, token, &response, reply.body, sent, now)))
    }

    fn active(
        &self,
        index: usize,
        token: &[u8],
        response: &Json<'_>,
        text: &[u8],
        sent: Monotonic,
        now: Now,
    ) -> Result<Verified, Rejection> {
        let issuer = self.issuers.get(index).ok_or_else(unknown_issuer)?;
        let claims = response.as_object().ok_or_else(|| Rejection::new(Cause::ResponseNotObject))?;
        let future_iat_tolerance =
            self.revocation().map_or(DEFAULT_FUTURE_IAT_TOLERANCE, |revocation| revocation.future_iat_tolerance);
        let times = registered::check_introspected(issuer, future_iat_tolerance, claims, now.wall)?;
        let questions = match self.revocation() {
            None => Questions::None,
            Some(revocation) => {
                // Its issue time is unknown, so every revocation of its user, client or issuer ends it, including those
                // that a later login would survive.
                let issued = times.issued.unwrap_or(UnixSeconds(0));
                let whose =
                    Whose { index, issuer: &issuer.issuer, entry: &issuer.issuer, identifiers: &issuer.identifiers };
                match RevocationQuery::new(revocation, whose, claims, token, None, Some(issued)) {
                    Ok(ask) => Questions::Query(ask.into()),
                    Err(rejection) => Questions::Unaskable(rejection),
                }
            }
        };
        Ok(Verified {
            token: token.into(),
            payload: text.into(),
            issuer: index,
            thumbprint: [0; 32],
            generation: AtomicU32::new(0),
            window: times.window,
            questions,
            introspected: Some(Introspected {
                sent,
                ended: AtomicBool::new(false),
                kept_for: kept_for(issuer, claims),
            }),
            confirmation: Mutex::default(),
            judged: Default::default(),
            exposed: self.expose(&issuer.issuer, &issuer.identifiers, claims),
        })
    }

    pub(super) fn introspected_keys(
        &self,
        revocation: &Revocation,
        verified: &Verified,
    ) -> Result<Vec<(Kind, RevocationKey)>, Rejection> {
        let response = Json::parse(&verified.payload).map_err(|_| Rejection::new(Cause::ResponseNotObject))?;
        let (Some(claims), Some(issuer)) = (response.as_object(), self.issuers.get(verified.issuer)) else {
            return Err(unknown_issuer());
        };
        let (name, identifiers) = (issuer.issuer.as_str(), &issuer.identifiers);
        let whose = Whose { index: verified.issuer, issuer: name, entry: name, identifiers };
        revocation::keys(revocation, whose, claims, &verified.token, None)
    }
}

/// As long as the issuer's server and the document both allow. Only our own service says it: while an answer is kept, it does
/// not see that the session is in use.
fn kept_for(issuer: &Issuer, claims: &Object<'_>) -> Duration {
    let longest = issuer.introspection.as_ref().and_then(|server| server.kept_for).unwrap_or_default();
    let Some(Json::Number(Number::Unsigned(said))) = claims.get(KEEP_FOR) else { return Duration::ZERO };
    longest.min(Duration::from_secs(*said))
}

impl Unverifiable {
    /// It contains no claims: this issuer must be asked.
    pub fn opaque(issuer: usize) -> Self {
        // If this were ever sent, it would be the refusal of an opaque token without a server to ask.
        let rejection = Rejection::new(Cause::TokenOpaque);
        Self { rejection, awaits_keys_of: None, introspect: Some(issuer) }
    }
}

impl Verified {
    pub fn is_opaque(&self) -> bool {
        self.introspected.is_some()
    }

    /// The server no longer knows it. A holder of this value must not treat the token as valid.
    pub fn end(&self) {
        if let Some(introspected) = &self.introspected {
            introspected.ended.store(true, Ordering::Relaxed);
        }
        *self.confirmation.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Was it active when its issuer's server was last asked?
    pub fn was_active(&self) -> bool {
        self.confirmation().is_some()
            || self.introspected.as_ref().is_some_and(|introspected| !introspected.ended.load(Ordering::Relaxed))
    }

    fn ask(&self) -> Option<&Arc<RevocationQuery>> {
        match &self.questions {
            Questions::Query(ask) => Some(ask),
            Questions::None | Questions::Unaskable(_) => None,
        }
    }

    /// Takes over what is known of the same query: the session did not change because the token was introspected again.
    pub fn inherit(&self, earlier: &Verified) {
        if let (Some(ours), Some(theirs)) = (self.ask(), earlier.ask())
            && ours == theirs
        {
            ours.inherit(theirs);
        }
    }
}
