//! Proof of possession (RFC 9449): a request's proof against its token, its request line and the time; nonces. Whether a
//! proof was used before is the driver's to find out.
mod judge;
mod nonce;
mod shown;

use jose::Algorithm;
use jose::dpop::Origin;
use wire::DerivedKeys;

pub use judge::Proven;
pub use shown::Shown;

/// The header of proofs, in lower case.
pub const HEADER: &str = "dpop";
/// The authentication scheme of bound tokens.
pub const SCHEME: &str = "DPoP";

/// The document's `dpop`, compiled.
#[derive(Debug)]
pub struct Dpop {
    /// At least one, each with another host.
    pub(crate) origins: Vec<Origin>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) max_age: u64,
    pub(crate) future_iat_tolerance: u64,
    /// `None`: no nonces.
    pub(crate) nonce_lifetime: Option<u64>,
    pub(crate) remembered_proofs: usize,
    pub(crate) derived: DerivedKeys,
}

impl Dpop {
    /// The used proofs to remember, at least.
    pub fn remembered_proofs(&self) -> usize {
        self.remembered_proofs
    }

    /// Keys for what this proxy stores about proofs.
    pub fn derived(&self) -> &DerivedKeys {
        &self.derived
    }

    /// The value of `algs` in challenges (RFC 9449 section 7.1).
    pub(crate) fn algs(&self) -> String {
        self.algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests;
