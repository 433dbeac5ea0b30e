//! DPoP proofs (RFC 9449 section 4.2), read strictly and bound to nothing yet: [`Proof`] is the JWT with its claims, and
//! [`TargetUri`] the URI that its `htu` must name. The caller compares the claims with its request.
mod error;
mod proof;
mod target;

pub use error::ProofError;
pub use proof::{Claims, MAX_JTI_BYTES, MAX_PROOF_BYTES, Proof};
pub use target::{Origin, TargetUri};

#[cfg(test)]
mod tests;
