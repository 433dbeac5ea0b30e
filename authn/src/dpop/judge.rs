//! Judges a proof by RFC 9449 section 4.3, for the token that it comes with. What costs least is checked first, and the
//! signature last.
use jose::dpop::{Claims, Proof, ProofError, TargetUri};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::nonce::Judged;
use super::{Dpop, Shown};
use crate::engine::{Engine, Material};
use crate::reject::{Cause, Rejection};
use crate::time::UnixSeconds;

/// A request has proved to have its token's key. The proof may have been used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Names the proof: its key and `jti`.
    pub digest: [u8; 16],
    /// The last second in which it counts.
    pub until: UnixSeconds,
    /// For the client's next proofs: its nonce will end soon.
    pub next_nonce: Option<String>,
}

impl Dpop {
    /// `jkt`: the key that the token is bound to. `None` as the result: a bearer token, which needs no proof.
    ///
    /// # Errors
    /// The token's binding, its scheme and the proof do not fit each other, or the proof does not count.
    pub(crate) fn judge(
        &self,
        is_required: bool,
        jkt: Option<&[u8; 32]>,
        shown: Option<&Shown<'_>>,
        token: &[u8],
        engine: &dyn Engine,
        now: UnixSeconds,
    ) -> Result<Option<Proven>, Rejection> {
        let cause = match (jkt, shown) {
            (Some(jkt), Some(shown)) if shown.is_dpop => {
                return self.judge_proof(jkt, shown, token, engine, now).map(Some);
            }
            (None, None) if !is_required => return Ok(None),
            (None, None) => Cause::BoundTokenRequired,
            (Some(_), _) => Cause::BoundUnderBearer,
            (None, Some(shown)) if shown.is_dpop => Cause::UnboundUnderDpop,
            (None, Some(_)) => Cause::ProofOfUnbound,
        };
        Err(cause.into())
    }

    fn judge_proof(
        &self,
        jkt: &[u8; 32],
        shown: &Shown<'_>,
        token: &[u8],
        engine: &dyn Engine,
        now: UnixSeconds,
    ) -> Result<Proven, Rejection> {
        let text = shown.proof.as_deref().ok_or(Cause::ProofMissing)?;
        let proof = Proof::parse(text, &self.algorithms).map_err(rejection)?;
        if !bool::from(proof.thumbprint().ct_eq(jkt)) {
            return Err(Cause::ProofOfOtherKey.into());
        }
        let claims = proof.claims();
        if claims.htm.as_bytes() != &*shown.method {
            return Err(Cause::ProofHtm.into());
        }
        let target = shown.target.as_ref().ok_or(Cause::ProofNoOrigin)?;
        if TargetUri::parse(&claims.htu).as_ref() != Some(target) {
            return Err(Cause::ProofHtu.into());
        }
        let until = self.check_times(claims, now)?;
        let ath: [u8; 32] = Sha256::digest(token).into();
        if !claims.ath.is_some_and(|own| bool::from(own.ct_eq(&ath))) {
            return Err(Cause::ProofAth.into());
        }
        let next_nonce = match self.judge_nonce(claims.nonce.as_deref(), jkt, now)? {
            Judged::Fresh => None,
            Judged::EndsSoon => self.new_nonce(jkt, now),
        };
        let key = proof.key::<Material>().map_err(rejection)?;
        let verified = engine.verify(&key, proof.alg(), proof.signing_input(), proof.signature());
        verified.map_err(|_| Cause::ProofSignature)?;
        Ok(Proven { digest: proof.digest(), until, next_nonce })
    }

    /// The last second in which the proof counts.
    fn check_times(&self, claims: &Claims, now: UnixSeconds) -> Result<UnixSeconds, Rejection> {
        let until = claims.iat.saturating_add(self.max_age);
        // RFC 9449 defines no `exp` and `nbf` in proofs. A client that adds them means them (RFC 7519).
        if now.0 > until || claims.exp.is_some_and(|exp| now.0 >= exp) {
            return Err(Cause::ProofOld.into());
        }
        let latest = now.0.saturating_add(self.future_iat_tolerance);
        if claims.iat > latest || claims.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(Cause::ProofFuture.into());
        }
        Ok(UnixSeconds(until))
    }
}

fn rejection(error: ProofError) -> Rejection {
    let cause = match &error {
        ProofError::TooLong => Cause::ProofTooLong,
        ProofError::Jws(_) | ProofError::Typ => Cause::ProofMalformed,
        ProofError::Alg | ProofError::AlgNotOfKey => Cause::ProofAlg,
        ProofError::OtherKey(_) | ProofError::NoJwk | ProofError::Jwk(_) => Cause::ProofJwk,
        ProofError::Missing(_) | ProofError::Wrong(_) | ProofError::JtiLength => Cause::ProofClaim,
        ProofError::Signature => Cause::ProofSignature,
    };
    // It names members, and no value of the client's.
    Rejection::with_detail(cause, error.to_string())
}
