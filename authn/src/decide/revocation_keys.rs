//! The revocations that match a verified token, in readable form.
use wire::Kind;
use wire::RevocationKey;

use super::{Verified, unknown_issuer};
use crate::claims::members;
use crate::policy::Policy;
use crate::reject::Rejection;
use crate::revocation;
use crate::revocation::Whose;

impl Policy {
    /// The revocation keys of a token, each with its kind, for display.
    ///
    /// # Errors
    /// Why there are none.
    pub fn revocation_keys(&self, verified: &Verified) -> Result<Vec<(Kind, RevocationKey)>, Rejection> {
        let Some(revocation) = self.revocation() else { return Ok(Vec::new()) };
        if verified.introspected.is_some() {
            return self.introspected_keys(revocation, verified);
        }
        let unverified = self.unverified(&verified.token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let (Some(claims), Some(issuer)) = (payload.as_object(), self.issuers.get(verified.issuer)) else {
            return Err(unknown_issuer());
        };
        let (name, input) = (members::unverified_issuer(claims)?, unverified.signing_input());
        let whose =
            Whose { index: verified.issuer, issuer: name, entry: &issuer.issuer, identifiers: &issuer.identifiers };
        revocation::keys(revocation, whose, claims, input, Some(&verified.thumbprint))
    }

    /// The claims that a revocation of this kind is compared with, in order of preference.
    pub fn revocation_claims(&self, issuer: usize, kind: Kind) -> Vec<String> {
        self.issuers.get(issuer).map(|issuer| issuer.identifiers.names(kind)).unwrap_or_default()
    }

    /// The kinds that are checked, and by which this token cannot be revoked.
    ///
    /// # Errors
    /// As [`Policy::revocation_keys`].
    pub fn not_revocable_by(&self, verified: &Verified) -> Result<Vec<Kind>, Rejection> {
        let Some(revocation) = self.revocation() else { return Ok(Vec::new()) };
        let keys = self.revocation_keys(verified)?;
        let has = |kind: &Kind| keys.iter().any(|(other, _)| other == kind);
        Ok(revocation.kinds.iter().filter(|kind| !has(kind)).copied().collect())
    }
}
