//! Checks signatures with jwt-simple's keys and primitives: the reference that the other engines are compared with.
use jose::{Algorithm, BadSignature, Family};
use jwt_simple::algorithms::{Edwards25519PublicKey, RSAPublicKey};
use superboring::hash::MessageDigest;
use superboring::pkey::PKey;
use superboring::rsa::Padding;
use superboring::sign::{RsaPssSaltlen, Verifier};

use super::{Engine, Key, Portable};

/// For comparison: jwt-simple's keys, and the primitives that jwt-simple itself calls. For HMAC and ECDSA, [`Portable`]
/// has the same ones. jwt-simple's `verify_token` is not used, because it reads the clock and parses the claims.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtSimple;

impl Engine for JwtSimple {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !key.verifies(alg) {
            return Err(BadSignature);
        }
        let spki = || key.spki().ok_or(BadSignature);
        match alg.family() {
            Family::Rsa => rsa(spki()?, alg, signing_input, signature),
            Family::Ed25519 => ed25519(spki()?, signing_input, signature),
            Family::Hmac | Family::P256 | Family::P384 | Family::P521 => {
                Portable.verify(key, alg, signing_input, signature)
            }
        }
    }
}

fn rsa(spki: &[u8], alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let (digest, padding) = rsa_scheme(alg).ok_or(BadSignature)?;
    let key = RSAPublicKey::from_der(spki).map_err(|_| BadSignature)?;
    let key = PKey::from_rsa(key.as_ref().clone()).map_err(|_| BadSignature)?;
    let mut verifier = Verifier::new(digest, &key).map_err(|_| BadSignature)?;
    verifier.set_rsa_padding(padding).map_err(|_| BadSignature)?;
    // RFC 7518 section 3.5: the salt has the length of the hash. No effect with PKCS #1 v1.5.
    verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).map_err(|_| BadSignature)?;
    verifier.update(signing_input).map_err(|_| BadSignature)?;
    match verifier.verify(signature) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(BadSignature),
    }
}

fn ed25519(spki: &[u8], signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let key = Edwards25519PublicKey::from_der(spki).map_err(|_| BadSignature)?;
    // RFC 8032 section 5.1.7: 64 bytes, S below the group order.
    let signature = ed25519_compact::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    key.as_ref().verify(signing_input, &signature).map_err(|_| BadSignature)
}

fn rsa_scheme(alg: Algorithm) -> Option<(MessageDigest, Padding)> {
    match alg {
        Algorithm::RS256 => Some((MessageDigest::sha256(), Padding::PKCS1)),
        Algorithm::RS384 => Some((MessageDigest::sha384(), Padding::PKCS1)),
        Algorithm::RS512 => Some((MessageDigest::sha512(), Padding::PKCS1)),
        Algorithm::PS256 => Some((MessageDigest::sha256(), Padding::PKCS1_PSS)),
        Algorithm::PS384 => Some((MessageDigest::sha384(), Padding::PKCS1_PSS)),
        Algorithm::PS512 => Some((MessageDigest::sha512(), Padding::PKCS1_PSS)),
        _ => None,
    }
}
