//! Checks signatures with the fastest implementation in Wasm for each algorithm.
use jose::{Algorithm, BadSignature, PublicKey, VerifyingKey};

use super::{Engine, Key, Material, jwt_simple, rsa};

/// The engine for every host: our own RSA, dalek for Ed25519, and jwt-simple for the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl Engine for Portable {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        key.verify(alg, signing_input, signature)
    }
}

impl VerifyingKey for Material {
    /// The largest modulus that the arithmetic of `rsa` supports.
    const MAX_RSA_BITS: usize = 4096;

    fn from_public(public: &PublicKey) -> Option<Self> {
        Material::from_public(public)
    }

    fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        Material::from_secret(secret, algorithms)
    }

    fn verify(&self, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match (alg, self) {
            (_, Material::Rsa(forms)) => match rsa::verifies(&forms.portable, alg, signing_input, signature) {
                Some(true) => Ok(()),
                Some(false) | None => Err(BadSignature),
            },
            (Algorithm::EdDSA, Material::Ed25519(forms)) => {
                // Strict: it refuses an R of small order and an S that is not reduced, as jwt-simple does and BoringSSL
                // does not. RFC 8032 section 5.1.7 leaves open whether the equation is multiplied by eight: jwt-simple
                // multiplies, dalek and BoringSSL do not. So only jwt-simple accepts a signature whose R was moved by a
                // point of small order, which only the key's holder can make; see its test.
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                forms.portable.verify_strict(signing_input, &signature).map_err(|_| BadSignature)
            }
            _ => jwt_simple::verify(self, alg, signing_input, signature),
        }
    }
}
