//! Second step: signature and registered claims of a JWT.
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use jose::json::{Json, Object};
use jose::{Padding, Unverified};

use super::judgements::Judgements;
use super::{
    DEFAULT_FUTURE_IAT_TOLERANCE, Entered, Signed, confirmed, introspected, judge, registered, unknown_issuer,
};
use crate::claims::members;
use crate::claims::window::Window;
use crate::engine::{Engine, KeySet};
use crate::keys::rings::Keyrings;
use crate::policy::{Issuer, Policy};
use crate::reject::{Cause, Rejection};
use crate::revocation::{RevocationQuery, Whose};
use crate::time::Now;

/// Whose key signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// The issuer's place in the document.
    pub issuer: usize,
    /// RFC 7638 thumbprint of the key.
    pub thumbprint: [u8; 32],
    /// Which of the issuer's key sets in a row holds it.
    pub(super) generation: u32,
}

/// A token whose signature and registered claims hold. Kept in the cache; what depends on the request or on time is
/// judged again at every use.
#[derive(Debug)]
pub struct Verified {
    pub(super) token: Box<[u8]>,
    pub(super) payload: Box<[u8]>,
    pub(super) issuer: usize,
    pub(super) thumbprint: [u8; 32],
    /// The last of the issuer's key sets that was seen to hold the key.
    pub(super) generation: AtomicU32,
    pub(super) window: Window,
    pub(super) questions: Questions,
    /// For an opaque token, in the place of key and signature.
    pub(super) introspected: Option<introspected::Introspected>,
    /// For a JWT that is introspected too: the answer.
    pub(super) confirmation: Mutex<Option<confirmed::Confirmation>>,
    pub(super) judged: Judgements,
}

/// What can be asked about a token.
#[derive(Debug)]
pub(super) enum Questions {
    /// The document has no `revocation`.
    None,
    Query(Arc<RevocationQuery>),
    /// No revocation could be compared with it: refused by the rules that ask, admitted by those that do not.
    Unaskable(Rejection),
}

/// A token that cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverifiable {
    pub rejection: Rejection,
    /// No key of this issuer's published set, as it was last fetched, verifies it: a newer one may.
    pub awaits_keys_of: Option<usize>,
    /// It is opaque, and this issuer is to be asked about it.
    pub introspect: Option<usize>,
}

impl Policy {
    /// Takes a token apart. Padding is taken only where some issuer writes it, and compared with the token's own issuer by
    /// [`Policy::signer`].
    ///
    /// # Errors
    /// Why it is no token.
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
    /// Why it is refused, and [`RejectReason::KeysUnavailable`] when its issuer's keys are not at hand.
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
        let Signer { issuer: place, thumbprint, generation } =
            self.signer(engine, keyrings, &unverified, claims, now)?;
        let issuer = self.issuers.get(place).ok_or_else(unknown_issuer)?;
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
                    place,
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
        // While the payload is at hand in its parsed form. A rule that does not take the token says so in `accept`.
        let judged = self.rules.get(entered.rule).and_then(|rule| {
            let identifiers = &issuer.identifiers;
            let signed = Signed { issuer: place, identifiers, raw: unverified.payload(), payload: &payload };
            judge(rule, entered.rule, &signed).ok().map(Arc::new)
        });
        Ok(Verified {
            token: token.into(),
            payload: unverified.payload().into(),
            issuer: place,
            thumbprint,
            generation: AtomicU32::new(generation),
            window: times.window,
            questions,
            introspected: None,
            confirmation: Mutex::default(),
            judged: Judgements::of(judged),
        })
    }

    /// Is the key that verified this token still one of its issuer's, and for such tokens? A key that has left the set, or is
    /// now for another key id, algorithm or tenant, takes its tokens along, whatever the cache knows of them.
    ///
    /// # Errors
    /// [`RejectReason::KeysUnavailable`] when nobody can tell.
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

    /// Would the key that verified this token be tried again? What it is for may be narrower now.
    fn holds_key_of(&self, verified: &Verified, issuer: &Issuer, keys: &KeySet) -> Result<bool, Rejection> {
        let unverified = self.unverified(&verified.token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let iss = members::unverified_issuer(payload.as_object().ok_or(Cause::PayloadNotObject)?)?;
        let header = unverified.header();
        let mut candidates = keys.candidates(header.kid.as_deref(), header.alg)?;
        Ok(candidates.any(|key| *key.thumbprint() == verified.thumbprint && issuer.may_be_signed_by(key, iss)))
    }

    /// Whose key signed a token: the issuer that `iss` names, and the key of it that verifies the signature. Says nothing
    /// of what the token claims.
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
        let Some((place, issuer)) = self.by_issuer.find(iss).and_then(|place| Some((place, self.issuers.get(place)?)))
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
        let current = keyrings.current(&issuer.keys, place, now.monotonic)?;
        // Another key may have taken the place of one, under the same kid or under none.
        let awaiting = |rejection| {
            let awaits_keys_of = issuer.published.is_some().then_some(place);
            Unverifiable { rejection, awaits_keys_of, introspect: None }
        };
        let candidates =
            current.keys.candidates(header.kid.as_deref(), header.alg).map_err(|none| awaiting(none.into()))?;
        // Before the signature, which costs a thousand times as much: an expired token that is sent again and again must
        // not buy that work. Nothing is admitted on the strength of a claim that nobody has verified.
        registered::check_unexpired(issuer, claims, now.wall)?;
        for key in candidates {
            if !issuer.may_be_signed_by(key, iss) {
                continue;
            }
            if engine.verify(key, header.alg, unverified.signing_input(), unverified.signature()).is_ok() {
                let (thumbprint, generation) = (*key.thumbprint(), current.generation);
                return Ok(Signer { issuer: place, thumbprint, generation });
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
    /// About how much memory it holds, what a rule adds to it included.
    pub fn bytes(&self) -> usize {
        // Forwarded headers are parts of the payload, at most doubled by encoding.
        size_of::<Self>().saturating_add(self.token.len()).saturating_add(self.payload.len().saturating_mul(3))
    }

    /// The exact bytes that were verified.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    pub fn issuer(&self) -> usize {
        self.issuer
    }

    /// When it counts, skew included.
    pub fn window(&self) -> Window {
        self.window
    }

    /// RFC 7638 thumbprint of the key that verified it; of an opaque token, nothing.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    pub(super) fn parse_payload(&self) -> Result<Json<'_>, Rejection> {
        Json::parse(&self.payload).map_err(|_| Rejection::new(Cause::PayloadNotJson))
    }
}
