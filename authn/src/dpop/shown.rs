//! What a request shows of DPoP: the scheme of its token, the header with the proof, and the URI that the proof must name.
use std::borrow::Cow;
use std::fmt;

use jose::dpop::{MAX_PROOF_BYTES, TargetUri};

use super::{Dpop, HEADER};
use crate::reject::{Cause, Rejection};
use crate::request::Request;
use crate::request::host::Host;
use crate::request::path::PlainPath;

/// Not judged yet. Prints without the proof.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown<'r> {
    /// The token came under the scheme `DPoP`.
    pub(super) is_dpop: bool,
    pub(super) proof: Option<Cow<'r, [u8]>>,
    pub(super) method: Cow<'r, [u8]>,
    /// The request's URI, by configuration. `None`: it has the host of no origin.
    pub(super) target: Option<TargetUri>,
}

impl Dpop {
    /// `None`: the request shows nothing of DPoP.
    ///
    /// # Errors
    /// More than one proof (RFC 9449 section 4.3, check 1), or one that is too long.
    pub(crate) fn show<'r>(
        &self,
        request: &Request<'r>,
        path: &PlainPath<'r>,
        host: &Host,
        is_dpop: bool,
    ) -> Result<Option<Box<Shown<'r>>>, Rejection> {
        let mut proofs = request.header_values(HEADER.as_bytes());
        let proof = proofs.next();
        // A proxy may have joined two headers by a comma, which no proof contains.
        if proofs.next().is_some() || proof.is_some_and(|proof| proof.contains(&b',')) {
            return Err(Cause::ProofTwice.into());
        }
        if proof.is_some_and(|proof| proof.len() > MAX_PROOF_BYTES) {
            return Err(Cause::ProofTooLong.into());
        }
        if !is_dpop && proof.is_none() {
            return Ok(None);
        }
        let target = self.target(path, host);
        let (proof, method) = (proof.map(Cow::Borrowed), Cow::Borrowed(request.method()));
        Ok(Some(Box::new(Shown { is_dpop, proof, method, target })))
    }

    /// Scheme and authority are the configuration's. The request's host only chooses among them.
    fn target(&self, path: &PlainPath<'_>, host: &Host) -> Option<TargetUri> {
        let origin = match self.origins.as_slice() {
            [one] => one,
            several => several.iter().find(|origin| origin.host().as_bytes() == host.as_bytes())?,
        };
        TargetUri::new(origin, std::str::from_utf8(path.raw()).ok()?)
    }
}

impl Shown<'_> {
    /// Freed from the request's headers.
    pub(crate) fn into_owned(self) -> Shown<'static> {
        Shown {
            is_dpop: self.is_dpop,
            proof: self.proof.map(|proof| Cow::Owned(proof.into_owned())),
            method: Cow::Owned(self.method.into_owned()),
            target: self.target,
        }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_dpop, proof, target, .. } = self;
        let has_proof = proof.is_some();
        f.debug_struct("Shown")
            .field("is_dpop", is_dpop)
            .field("has_proof", &has_proof)
            .field("target", target)
            .finish_non_exhaustive()
    }
}
