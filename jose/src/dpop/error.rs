//! Why a text is not a DPoP proof.
use super::proof::{MAX_JTI_BYTES, MAX_PROOF_BYTES};
use crate::jws::JwsError;
use crate::key::KeyError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("it is longer than {MAX_PROOF_BYTES} bytes")]
    TooLong,
    #[error("it is not a JWS: {0}")]
    Jws(JwsError),
    #[error("its `typ` is not dpop+jwt")]
    Typ,
    #[error("its `alg` is not allowed for proofs")]
    Alg,
    /// The key is in `jwk` alone. A second statement about it could be read by another verifier.
    #[error("its header has `{0}` beside `jwk`")]
    OtherKey(&'static str),
    #[error("its header has no `jwk`, or one that is not an object")]
    NoJwk,
    #[error("its `jwk` cannot be used: {0}")]
    Jwk(KeyError),
    #[error("its `alg` is not one of its key's")]
    AlgNotOfKey,
    #[error("its claim `{0}` is missing")]
    Missing(&'static str),
    #[error("its claim `{0}` has the wrong type or form")]
    Wrong(&'static str),
    #[error("its `jti` is empty or longer than {MAX_JTI_BYTES} bytes")]
    JtiLength,
    #[error("its signature does not match its key")]
    Signature,
}
