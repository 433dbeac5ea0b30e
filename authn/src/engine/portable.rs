//! Checks signatures with the fastest implementation in Wasm for each algorithm.
use hmac::digest::{FixedOutput, MacMarker, Update};
use hmac::{Hmac, Mac};
use jose::{Algorithm, BadSignature, PublicKey, VerifyingKey};
use jwt_simple::algorithms::{P256PublicKey, P384PublicKey};
use p256::ecdsa::signature::Verifier as _;

use super::{Engine, Key, Material, rsa};

/// The engine for every host: our own RSA, dalek for Ed25519, jwt-simple's keys and primitives for the rest. P-521, which
/// jwt-simple lacks, comes from the same family of crates.
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
            (Algorithm::HS256, Material::Hmac(states)) => hmac(states.hs256.as_ref(), signing_input, signature),
            (Algorithm::HS384, Material::Hmac(states)) => hmac(states.hs384.as_ref(), signing_input, signature),
            (Algorithm::HS512, Material::Hmac(states)) => hmac(states.hs512.as_ref(), signing_input, signature),
            (_, Material::Rsa(modulus)) => match rsa::verifies(modulus, alg, signing_input, signature) {
                Some(true) => Ok(()),
                Some(false) | None => Err(BadSignature),
            },
            (Algorithm::EdDSA, Material::Ed25519(key)) => {
                // Strict: it refuses an R of small order and an S that is not reduced, as jwt-simple does and BoringSSL
                // does not. RFC 8032 section 5.1.7 leaves open whether the equation is multiplied by eight: jwt-simple
                // multiplies, dalek and BoringSSL do not. So only jwt-simple accepts a signature whose R was moved by a
                // point of small order, which only the key's holder can make; see its test.
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                key.verify_strict(signing_input, &signature).map_err(|_| BadSignature)
            }
            (Algorithm::ES256, Material::P256(key)) => es256(key, signing_input, signature),
            (Algorithm::ES384, Material::P384(key)) => es384(key, signing_input, signature),
            (Algorithm::ES512, Material::P521(key)) => es512(key, signing_input, signature),
            _ => Err(BadSignature),
        }
    }
}

/// In constant time. Only the whole tag counts, because a shorter one would be easier to guess.
fn hmac<D>(keyed: Option<&Hmac<D>>, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature>
where
    Hmac<D>: Clone + Update + FixedOutput + MacMarker,
    D: hmac::EagerHash,
{
    let mut mac = keyed.ok_or(BadSignature)?.clone();
    Mac::update(&mut mac, signing_input);
    mac.verify_slice(signature).map_err(|_| BadSignature)
}

/// RFC 7518 section 3.4: r and s in 32 bytes each, both from 1 to n - 1. A high s is accepted.
fn es256(key: &P256PublicKey, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    key.as_ref().verify(signing_input, &signature).map_err(|_| BadSignature)
}

fn es384(key: &P384PublicKey, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature = p384::ecdsa::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    key.as_ref().verify(signing_input, &signature).map_err(|_| BadSignature)
}

/// 521 bits in 66 bytes each.
fn es512(key: &p521::ecdsa::VerifyingKey, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature = p521::ecdsa::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    key.verify(signing_input, &signature).map_err(|_| BadSignature)
}
