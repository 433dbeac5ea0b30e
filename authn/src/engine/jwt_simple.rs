//! Signatures by jwt-simple's keys and primitives.
use hmac::digest::{FixedOutput, MacMarker, Update};
use hmac::{Hmac, Mac};
use jose::{Algorithm, BadSignature};
use jwt_simple::algorithms::{P256PublicKey, P384PublicKey};
use p256::ecdsa::signature::Verifier as _;
use superboring::hash::MessageDigest;
use superboring::pkey::{PKey, Public};
use superboring::rsa::Padding;
use superboring::sign::{RsaPssSaltlen, Verifier};

use super::{Engine, Key, Material};

/// For comparison: jwt-simple's keys, and the primitives that jwt-simple itself calls. P-521, which jwt-simple lacks, is
/// from the same family of crates.
///
/// jwt-simple's `verify_token` is not used: it reads the clock, parses the claims and copies the key on each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtSimple;

impl Engine for JwtSimple {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !key.verifies(alg) {
            return Err(BadSignature);
        }
        verify(key.verifying(), alg, signing_input, signature)
    }
}

pub(super) fn verify(
    key: &Material,
    alg: Algorithm,
    signing_input: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    match (alg, key) {
        (Algorithm::HS256, Material::Hmac(states)) => hmac(states.hs256.as_ref(), signing_input, signature),
        (Algorithm::HS384, Material::Hmac(states)) => hmac(states.hs384.as_ref(), signing_input, signature),
        (Algorithm::HS512, Material::Hmac(states)) => hmac(states.hs512.as_ref(), signing_input, signature),
        (_, Material::Rsa(forms)) => {
            let (digest, padding) = rsa_scheme(alg).ok_or(BadSignature)?;
            rsa_by_superboring(&forms.jwt_simple, digest, padding, signing_input, signature)
        }
        (Algorithm::ES256, Material::P256(key)) => es256(key, signing_input, signature),
        (Algorithm::ES384, Material::P384(key)) => es384(key, signing_input, signature),
        (Algorithm::ES512, Material::P521(key)) => es512(key, signing_input, signature),
        (Algorithm::EdDSA, Material::Ed25519(forms)) => {
            // RFC 8032 section 5.1.7: 64 bytes, S below the group order.
            let signature = ed25519_compact::Signature::from_slice(signature).map_err(|_| BadSignature)?;
            forms.jwt_simple.as_ref().verify(signing_input, &signature).map_err(|_| BadSignature)
        }
        _ => Err(BadSignature),
    }
}

/// In constant time. Only the whole tag counts: a shorter one would be quicker to guess.
fn hmac<D>(keyed: Option<&Hmac<D>>, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature>
where
    Hmac<D>: Clone + Update + FixedOutput + MacMarker,
    D: hmac::EagerHash,
{
    let mut mac = keyed.ok_or(BadSignature)?.clone();
    Mac::update(&mut mac, signing_input);
    mac.verify_slice(signature).map_err(|_| BadSignature)
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

fn rsa_by_superboring(
    key: &PKey<Public>,
    digest: MessageDigest,
    padding: Padding,
    signing_input: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let mut verifier = Verifier::new(digest, key).map_err(|_| BadSignature)?;
    verifier.set_rsa_padding(padding).map_err(|_| BadSignature)?;
    // RFC 7518 section 3.5: the salt is as long as the hash. Of no effect with PKCS #1 v1.5.
    verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).map_err(|_| BadSignature)?;
    verifier.update(signing_input).map_err(|_| BadSignature)?;
    match verifier.verify(signature) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(BadSignature),
    }
}

/// RFC 7518 section 3.4: r and s in 32 bytes each, both from 1 to n - 1. A high s is as good as a low one.
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
