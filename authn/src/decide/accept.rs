//! Third step: a verified token against the rule of the request, and the headers that are forwarded for it.
use std::sync::Arc;

use jose::json::Json;
use wire::sightings::Client;

use super::{Admission, Entered, Removal, Verified, unknown_issuer};
use crate::binding;
use crate::binding::{Bound, Peer};
use crate::claims::identifiers::Identifiers;
use crate::claims::step_up::Login;
use crate::claims::{condition, scopes};
use crate::config::{DpopReplay, Encoding, Mode};
use crate::dpop::Proven;
use crate::engine::Engine;
use crate::policy::{Forward, Policy, Rule};
use crate::reject::{Cause, Rejection};
use crate::request::headers;
use crate::time::{Now, UnixSeconds};

/// A token that a rule accepts, except for binding and revocation, and the headers to forward.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rule: usize,
    pub(super) headers: Vec<(String, String)>,
    pub(super) bound: Bound,
    /// When the login becomes too old for the rule.
    pub(super) login: Option<Login>,
    /// What the rule does not enforce.
    pub(super) reported: Vec<Rejection>,
}

/// A request that its rule accepts, unless its session was revoked.
#[derive(Debug)]
pub struct Accepted {
    pub(super) verified: Arc<Verified>,
    pub(super) judged: Arc<Judged>,
    pub(super) removal: Removal,
    /// What the rule does not enforce, beside what its judgement of the token says.
    pub(super) reported: Vec<Rejection>,
    /// `None` for a bearer token.
    pub(super) proven: Option<Box<Proven>>,
    /// The service has not seen its proof before.
    is_claimed: bool,
    /// The request has a proof that the upstream must not get.
    pub(super) removes_proof: bool,
    /// What is reported of its client.
    pub(super) client: Option<Box<Client>>,
}

impl Policy {
    /// Judges a verified token by the request's rule, its time and its binding: at every use, cached or not.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn accept(
        &self,
        verified: Arc<Verified>,
        entered: Entered<'_>,
        now: Now,
        engine: &dyn Engine,
        peer: &dyn Peer,
    ) -> Result<Accepted, Rejection> {
        verified.window.check(now.wall)?;
        let rule = self.rules.get(entered.rule).ok_or_else(|| Rejection::new(Cause::RuleGone))?;
        let judged = self.judged(&verified, rule, entered.rule)?;
        let mut reported = Vec::new();
        binding::check(&rule.binding, &judged.bound, &entered.client, peer, &mut reported)?;
        if let Some(login) = judged.login {
            refuse_or_report(login.mode, login.check(now.wall), &mut reported)?;
        }
        let shown = entered.dpop.as_deref();
        let proven = match (&self.dpop, &rule.dpop) {
            (Some(dpop), Some(asked)) => {
                let (jkt, token) = (judged.bound.jkt.as_ref(), verified.token());
                dpop.judge(asked.required, jkt, shown, token, engine, now.wall)?.map(Box::new)
            }
            // Without `dpop` a token with `cnf.jkt` has no judgement.
            (None, _) | (_, None) => None,
        };
        let removes_proof = shown.is_some() && !rule.forwards_proof();
        let mut client = entered.sighted;
        if let (Some(sightings), Some(client)) = (&self.sightings, &mut client) {
            sightings.complete(client, peer);
        }
        Ok(Accepted {
            verified,
            judged,
            removal: entered.removal,
            reported,
            proven,
            is_claimed: false,
            removes_proof,
            client,
        })
    }

    /// A nonce for the client whose proof lacked one.
    pub fn nonce_for(&self, verified: &Verified, rule: usize, now: Now) -> Option<String> {
        // Another request may have replaced the cached judgement meanwhile.
        let judged = self.judged(verified, self.rules.get(rule)?, rule).ok()?;
        self.dpop.as_ref()?.new_nonce(judged.bound.jkt.as_ref()?, now.wall)
    }

    /// From the cache, or judged now.
    fn judged(&self, verified: &Verified, rule: &Rule, index: usize) -> Result<Arc<Judged>, Rejection> {
        if let Some(judged) = verified.judged.of_rule(index) {
            return Ok(judged);
        }
        let issuer = self.issuers.get(verified.issuer).ok_or_else(unknown_issuer)?;
        let judged = Arc::new(verified.judge(rule, index, &issuer.identifiers)?);
        verified.judged.remember(&judged);
        Ok(judged)
    }
}

impl Verified {
    fn judge(&self, rule: &Rule, index: usize, identifiers: &Identifiers) -> Result<Judged, Rejection> {
        let payload = self.parse_payload()?;
        judge(rule, index, &Signed { issuer: self.issuer, identifiers, raw: &self.payload, payload: &payload })
    }
}

impl Accepted {
    pub fn rule(&self) -> usize {
        self.judged.rule
    }

    /// The proof that the service must not have seen before, as the rule asks. Once.
    pub fn claim<'a>(&'a self, policy: &Policy) -> Option<&'a Proven> {
        let asked = policy.rules.get(self.judged.rule)?.dpop.as_ref()?;
        self.proven.as_deref().filter(|_| asked.replay == DpopReplay::Fleet && !self.is_claimed)
    }

    /// The service has not seen its proof before.
    #[must_use]
    pub fn on_claimed(self) -> Self {
        Self { is_claimed: true, ..self }
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    /// What may have passed while the request waited.
    pub(super) fn check_times(&self, now: UnixSeconds) -> Result<(), Rejection> {
        self.verified.window.check(now)?;
        match self.judged.login {
            Some(login) if login.mode == Mode::Enforce => login.check(now),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn admit(self, unchecked: bool) -> Admission {
        Admission {
            rule: self.judged.rule,
            judged: self.judged,
            removal: self.removal,
            reported: self.reported,
            unchecked,
            by_feed: false,
            refresh: None,
            proven: self.proven,
            removes_proof: self.removes_proof,
            client: self.client,
            verified: self.verified,
        }
    }
}

/// The result of a verified signature.
pub(super) struct Signed<'s> {
    pub(super) issuer: usize,
    pub(super) identifiers: &'s Identifiers,
    pub(super) raw: &'s [u8],
    pub(super) payload: &'s Json<'s>,
}

pub(super) fn judge(rule: &Rule, index: usize, signed: &Signed<'_>) -> Result<Judged, Rejection> {
    let payload = signed.payload;
    let Json::Object(claims) = payload else {
        return Err(Rejection::new(Cause::PayloadNotObject));
    };
    if let Some(accepted) = &rule.issuers
        && !accepted.contains(&signed.issuer)
    {
        return Err(Rejection::new(Cause::IssNotOfRule));
    }
    let mut reported = Vec::new();
    let scopes = scopes::check_scopes(&rule.scopes.all, &rule.scopes.any, claims);
    refuse_or_report(rule.scopes.mode, scopes, &mut reported)?;
    for condition in &rule.conditions {
        refuse_or_report(condition.mode, condition::check_condition(condition, payload), &mut reported)?;
    }
    for kind in &rule.revocable_by {
        if signed.identifiers.find(*kind, claims)?.is_none() {
            return Err(Rejection::with_detail(Cause::NotRevocable, kind.name()));
        }
    }
    let mut login = None;
    if let Some(step_up) = &rule.step_up {
        let found = step_up.check_acr(claims).and_then(|()| step_up.login(claims)).map(|found| login = found);
        refuse_or_report(step_up.mode, found, &mut reported)?;
    }
    Ok(Judged {
        rule: index,
        headers: forwarded(&rule.forward, signed)?,
        bound: binding::bound(&rule.binding, rule.dpop.is_some(), payload)?,
        login,
        reported,
    })
}

fn refuse_or_report(mode: Mode, judged: Result<(), Rejection>, reported: &mut Vec<Rejection>) -> Result<(), Rejection> {
    match (judged, mode) {
        (Err(rejection), Mode::Report) => {
            reported.push(rejection);
            Ok(())
        }
        (judged, _) => judged,
    }
}

fn forwarded(forward: &Forward, signed: &Signed<'_>) -> Result<Vec<(String, String)>, Rejection> {
    let mut forwarded = Vec::with_capacity(forward.claims.len().saturating_add(1));
    for claim in &forward.claims {
        let text = match signed.payload.path(&claim.claim) {
            // An absent claim sets nothing, and the client's header of that name is already removed.
            None => continue,
            Some(Json::String(text)) => text.clone().into_owned(),
            Some(other) => other.to_text(),
        };
        let value = match claim.encoding {
            Encoding::Base64url => jose::base64url::encode(text.as_bytes()),
            Encoding::Plain if headers::is_safe_value(text.as_bytes()) => text,
            Encoding::Plain => {
                return Err(Rejection::with_detail(Cause::ClaimNotHeader, claim.claim.join(".")));
            }
        };
        forwarded.push((claim.header.as_str().to_owned(), value));
    }
    if let Some(header) = &forward.payload_header {
        forwarded.push((header.as_str().to_owned(), jose::base64url::encode(signed.raw)));
    }
    Ok(forwarded)
}
