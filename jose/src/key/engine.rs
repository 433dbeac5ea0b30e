//! The interface to the cryptography. This crate reads keys and tokens. An engine converts a key to its own form once,
//! and checks signatures with it.
use crate::alg::Algorithm;
use crate::key::PublicKey;

/// The most keys of one set, unless an engine has its own bound.
pub const MAX_KEYS: usize = 64;

/// A key in the form that an engine uses to check signatures. Engines differ in speed and in the keys that they
/// support. For a supported key they all give the same answer.
pub trait VerifyingKey: Sized {
    /// The longest RSA modulus that the engine supports.
    const MAX_RSA_BITS: usize;
    /// The most keys of one set that are kept in this form.
    const MAX_KEYS: usize = MAX_KEYS;

    /// `None` for an unusable key: an even modulus, a point that is not on its curve, or a point of small order.
    fn from_public(public: &PublicKey) -> Option<Self>;

    /// An HMAC secret, for each of `algorithms`. `None` in an engine that does not support secrets.
    fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Option<Self>;

    /// # Errors
    /// The signature does not match, is not of its algorithm's form (RFC 7518 section 3: r and s in full length for
    /// ECDSA), or the key is of another family than `alg`.
    fn verify(&self, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// Has no reason on purpose: the client must not learn what is wrong with a forged token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct BadSignature;

#[cfg(test)]
pub(crate) mod any {
    use super::{BadSignature, VerifyingKey};
    use crate::alg::Algorithm;
    use crate::key::PublicKey;

    /// Accepts every key and refuses every signature.
    #[derive(Debug, Clone)]
    pub(crate) struct Any;

    impl VerifyingKey for Any {
        const MAX_RSA_BITS: usize = 4096;

        fn from_public(_: &PublicKey) -> Option<Self> {
            Some(Self)
        }

        fn from_secret(_: &[u8], _: &[Algorithm]) -> Option<Self> {
            Some(Self)
        }

        fn verify(&self, _: Algorithm, _: &[u8], _: &[u8]) -> Result<(), BadSignature> {
            Err(BadSignature)
        }
    }
}
