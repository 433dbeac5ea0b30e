//! Second step: signature and registered claims of a JWT.
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use jose::json::{Json, Object};
use jose::{Padding, Unverified};

use super::judgements::Judgements;
use super::{
    DEFAULT_FUTURE_IAT_TOLERANCE, Entered, Exposed, Signed, confirmed, introspected, judge, registered, unknown_issuer,
};
use crate::claims::members;
use crate::claims::window::Window;
use crate::engine::{Engine, KeySet};
use crate::keys::rings::Keyrings;
use crate::policy::{Issuer, Policy};
use crate::reject::{Cause, Rejection};
use crate::revocation::{RevocationQuery, Whose};
use crate::time::Now;

/// The key that signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// The issuer's index in the document.
    pub issuer: usize,
    /// RFC 7638 thumbprint of the key.
    pub thumbprint: [u8; 32],
    /// The generation of the issuer's key set that contains it.
    pub(super) generation: u32,
}

/// A token whose signature and registered claims are valid. Kept in the cache; everything that depends on the request
/// or on time is judged again at every use.
#[derive(Debug)]
pub struct Verified {
    pub(super) token: Box<[u8]>,
    pub(super) payload: Box<[u8]>,
    pub(super) issuer: usize,
    pub(super) thumbprint: [u8; 32],
    /// The last generation of the issuer's key set that was seen to contain the key.
    pub(super) generation: AtomicU32,
    pub(super) window: Window,
    pub(super) questions: Questions,
    /// For an opaque token, instead of key and signature.
    pub(super) introspected: Option<introspected::Introspected>,
    /// For a JWT that is also introspected: the answer.
    pub(super) confirmation: Mutex<Option<confirmed::Confirmation>>,
    pub(super) judged: Judgements,
    pub(super) exposed: Option<Arc<Exposed>>,
}

/// The revocation query of a token, if any.
#[derive(Debug)]
pub(super) enum Questions {
    /// The document has no `revocation`.
    None,
    Query(Arc<RevocationQuery>),
    /// No revocation could be compared with it: refused by rules that check revocations, admitted by others.
    Unaskable(Rejection),
}

/// A token that cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverifiable {
    pub rejection: Rejection,
    /// No key of this issuer's last fetched set verifies it: a newer set may.
    pub awaits_keys_of: Option<usize>,
    /// It is opaque, and this issuer must be asked about it.
    pub introspect: Option<usize>,
}

impl Policy {
    /// Parses a token. Padding is accepted only if some issuer uses it; [`Policy::signer`] compares it with the token's
    /// own issuer.
    ///
    /// # Errors
    /// Why it is not a token.
    pub fn unverified<'t>(&self, token: &'t [u8]) -> Result<Unverified<'t>, Rejection> {
        let parse = match self.issuers.iter().any(|issuer| issuer.padded) {
            true => Unverified::parse_perhaps_padded,
            false => Unverified::parse,
        };
        parse(token, self.limits().token_bytes).map_err(Rejection::from)
    }

    /// Checks a token's signature and its registered claims.
    ///
    /// # Errors
    /// Why it is refused, and `RejectReason::KeysUnavailable` when its issuer's keys are not at hand.
    pub fn verify(
        &self,
        engine: &dyn Engine,
        keyrings: &Keyrings,
        entered: &Entered<'_>,
        now: Now,
    ) -> Result<Verified, Unverifiable> {
        let token = entered.token();
        let unverified = self.unverified(token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let Json::Object(claims) = &payload else {
            return Err(Rejection::new(Cause::PayloadNotObject).into());
        };
        let Signer { issuer: index, thumbprint, generation } =
            self.signer(engine, keyrings, &unverified, claims, now)?;
        let issuer = self.issuers.get(index).ok_or_else(unknown_issuer)?;
        for (name, values) in &issuer.required_header {
            if !unverified.header_has(name, values) {
                return Err(Rejection::with_detail(Cause::HeaderMemberNotRequired, name.clone()).into());
            }
        }
        let future_iat_tolerance =
            self.revocation().map_or(DEFAULT_FUTURE_IAT_TOLERANCE, |revocation| revocation.future_iat_tolerance);
        let times = registered::check_registered(issuer, future_iat_tolerance, unverified.header(), claims, now.wall)?;
        let questions = match self.revocation() {
            None => Questions::None,
            Some(revocation) => {
                let whose = Whose {
                    index,
                    issuer: members::unverified_issuer(claims)?,
                    identifiers: &issuer.identifiers,
                    entry: &issuer.issuer,
                };
                let input = unverified.signing_input();
                match RevocationQuery::new(revocation, whose, claims, input, Some(&thumbprint), times.issued) {
                    Ok(ask) => Questions::Query(Arc::new(ask)),
                    Err(rejection) => Questions::Unaskable(rejection),
                }
            }
        };
        // While the parsed payload is available. If the rule does not accept the token, `accept` says so.
        let judged = self.rules.get(entered.rule).and_then(|rule| {
            let identifiers = &issuer.identifiers;
            let signed = Signed { issuer: index, identifiers, raw: unverified.payload(), payload: &payload };
            judge(rule, entered.rule, &signed).ok().map(Arc::new)
        });
        Ok(Verified {
            token: token.into(),
            payload: unverified.payload().into(),
            issuer: index,
            thumbprint,
            generation: AtomicU32::new(generation),
            window: times.window,
            questions,
            introspected: None,
            confirmation: Mutex::default(),
            judged: Judgements::of(judged),
            exposed: self.expose(members::unverified_issuer(claims)?, &issuer.identifiers, claims),
        })
    }

    /// Is the key that verified this token still one of its issuer's, and for such tokens? If a key has left the set,
    /// or is now for another key id, algorithm or tenant, its tokens are refused, whatever the cache contains.
    ///
    /// # Errors
    /// `RejectReason::KeysUnavailable` when nobody can tell.
    pub fn still_trusts(&self, verified: &Verified, keyrings: &Keyrings, now: Now) -> Result<bool, Rejection> {
        let Some(issuer) = self.issuers.get(verified.issuer) else { return Ok(false) };
        if let Some(introspected) = &verified.introspected {
            return Ok(introspected.is_fresh(issuer, now));
        }
        let current = keyrings.current(&issuer.keys, verified.issuer, now.monotonic)?;
        if current.generation == verified.generation.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let holds = self.holds_key_of(verified, issuer, current.keys).unwrap_or(false);
        if holds {
            verified.generation.store(current.generation, Ordering::Relaxed);
        }
        Ok(holds)
    }

    /// Would the key that verified this token be tried again? Its use may have been restricted since.
    fn holds_key_of(&self, verified: &Verified, issuer: &Issuer, keys: &KeySet) -> Result<bool, Rejection> {
        let unverified = self.unverified(&verified.token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let iss = members::unverified_issuer(payload.as_object().ok_or(Cause::PayloadNotObject)?)?;
        let header = unverified.header();
        let mut candidates = keys.candidates(header.kid.as_deref(), header.alg)?;
        Ok(candidates.any(|key| *key.thumbprint() == verified.thumbprint && issuer.may_be_signed_by(key, iss)))
    }

    /// The signer of a token: the issuer that `iss` names, and its key that verifies the signature. It does not judge
    /// the claims.
    ///
    /// # Errors
    /// Why there is no such issuer or key.
    pub fn signer(
        &self,
        engine: &dyn Engine,
        keyrings: &Keyrings,
        unverified: &Unverified<'_>,
        claims: &Object<'_>,
        now: Now,
    ) -> Result<Signer, Unverifiable> {
        let iss = members::unverified_issuer(claims)?;
        let Some((index, issuer)) = self.by_issuer.find(iss).and_then(|index| Some((index, self.issuers.get(index)?)))
        else {
            return Err(unknown_issuer().into());
        };
        let header = unverified.header();
        if !issuer.algorithms.contains(&header.alg) {
            return Err(Rejection::new(Cause::AlgNotOfIssuer).into());
        }
        if unverified.padding() == if issuer.padded { Padding::Without } else { Padding::With } {
            return Err(Rejection::new(Cause::PaddingUnexpected).into());
        }
        let current = keyrings.current(&issuer.keys, index, now.monotonic)?;
        // A key may have been replaced, under the same kid or without one.
        let awaiting = |rejection| {
            let awaits_keys_of = issuer.published.is_some().then_some(index);
            Unverifiable { rejection, awaits_keys_of, introspect: None }
        };
        let candidates =
            current.keys.candidates(header.kid.as_deref(), header.alg).map_err(|none| awaiting(none.into()))?;
        // Before the signature, which costs a thousand times as much: an expired token that is sent repeatedly must not
        // cause that work. Nothing is admitted because of an unverified claim.
        registered::check_unexpired(issuer, claims, now.wall)?;
        for key in candidates {
            if !issuer.may_be_signed_by(key, iss) {
                continue;
            }
            if engine.verify(key, header.alg, unverified.signing_input(), unverified.signature()).is_ok() {
                let (thumbprint, generation) = (*key.thumbprint(), current.generation);
                return Ok(Signer { issuer: index, thumbprint, generation });
            }
        }
        Err(awaiting(Rejection::new(Cause::SignatureMismatch)))
    }
}

impl From<Rejection> for Unverifiable {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, awaits_keys_of: None, introspect: None }
    }
}

impl Verified {
    /// Its approximate memory, including what a rule adds.
    pub fn bytes(&self) -> usize {
        // Forwarded headers are parts of the payload; encoding at most doubles them. So are exposed facts.
        let copies = if self.exposed.is_some() { 5 } else { 3 };
        size_of::<Self>().saturating_add(self.token.len()).saturating_add(self.payload.len().saturating_mul(copies))
    }

    /// The exact bytes that were verified.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    pub fn issuer(&self) -> usize {
        self.issuer
    }

    /// When it counts, including skew.
    pub fn window(&self) -> Window {
        self.window
    }

    /// RFC 7638 thumbprint of the key that verified it; meaningless for an opaque token.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    pub(super) fn parse_payload(&self) -> Result<Json<'_>, Rejection> {
        Json::parse(&self.payload).map_err(|_| Rejection::new(Cause::PayloadNotJson))
    }
}
