//! The one place where signatures are checked: a seam behind which engines can stand beside each other.
use hmac::digest::{FixedOutput, MacMarker, Update};
use hmac::{Hmac, Mac};
use jwt_simple::algorithms::{P256PublicKey, P384PublicKey};
use p256::ecdsa::signature::Verifier as _;
use superboring::hash::MessageDigest;
use superboring::pkey::{PKey, Public};
use superboring::rsa::Padding;
use superboring::sign::{RsaPssSaltlen, Verifier};

use crate::alg::Algorithm;
use crate::config;
use crate::keys::{Key, Material};

pub mod host_call;
pub(crate) mod rsa;

pub use host_call::HostEngine;

/// Checks one signature with one key. Engines differ in speed, never in the answer.
pub trait Engine: Send + Sync {
    /// # Errors
    /// The signature does not match, is not of its algorithm's form, or the key is not for `alg`.
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// Deliberately without a reason: what is wrong with a forgery is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct BadSignature;

/// An engine for all of a configuration's life, and which one it is.
pub struct Chosen {
    pub engine: Box<dyn Engine>,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Host,
    Portable,
}

impl Kind {
    /// In logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::Portable => "portable",
        }
    }
}

/// `engine: host`, and the host's verifier is absent, not allowed, or gives wrong answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("engine: the host has no `{}` that answers rightly; say `auto` or `portable`", host_call::FUNCTION)]
pub struct HostCannotVerify;

/// `call` calls the host's verifier, as [`HostEngine`] says.
///
/// # Errors
/// The engine that is wanted in so many words is not there.
pub fn choose<F>(wanted: config::Engine, call: F) -> Result<Chosen, HostCannotVerify>
where
    F: Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let portable = || Chosen { engine: Box::new(Portable), kind: Kind::Portable };
    if wanted == config::Engine::Portable {
        return Ok(portable());
    }
    let mut host = HostEngine::new(call);
    match wanted {
        _ if host.self_test() => Ok(Chosen { engine: Box::new(host), kind: Kind::Host }),
        config::Engine::Host => Err(HostCannotVerify),
        config::Engine::Auto | config::Engine::Portable => Ok(portable()),
    }
}

/// The engine for every host: what is quickest in Wasm for each algorithm, and jwt-simple where that is it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl Engine for Portable {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !key.verifies(alg) {
            return Err(BadSignature);
        }
        match (alg, key.material()) {
            (_, Material::Rsa(forms)) => match rsa::verifies(&forms.portable, alg, signing_input, signature) {
                Some(true) => Ok(()),
                Some(false) | None => Err(BadSignature),
            },
            (Algorithm::EdDsa, Material::Ed25519(forms)) => {
                // Strict, which refuses an R of small order and an S that is not reduced, as jwt-simple does and
                // BoringSSL does not. RFC 8032 section 5.1.7 leaves open whether the equation is multiplied by eight:
                // jwt-simple multiplies, dalek and BoringSSL do not. So jwt-simple alone takes a signature whose R was
                // moved by a point of small order, which only the key's holder can make; see the test of it.
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                forms.portable.verify_strict(signing_input, &signature).map_err(|_| BadSignature)
            }
            _ => JwtSimple.verify(key, alg, signing_input, signature),
        }
    }
}

/// The engine to compare with: jwt-simple's keys, and under them the primitives that jwt-simple itself calls. P-521, which
/// jwt-simple has not, is the same crates' sibling.
///
/// Not jwt-simple's `verify_token`, which reads the clock, parses the claims and copies the key on each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtSimple;

impl Engine for JwtSimple {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !key.verifies(alg) {
            return Err(BadSignature);
        }
        match (alg, key.material()) {
            (Algorithm::Hs256, Material::Hmac(states)) => hmac(states.hs256.as_ref(), signing_input, signature),
            (Algorithm::Hs384, Material::Hmac(states)) => hmac(states.hs384.as_ref(), signing_input, signature),
            (Algorithm::Hs512, Material::Hmac(states)) => hmac(states.hs512.as_ref(), signing_input, signature),
            (_, Material::Rsa(forms)) => {
                let (digest, padding) = rsa_scheme(alg).ok_or(BadSignature)?;
                rsa_by_superboring(&forms.jwt_simple, digest, padding, signing_input, signature)
            }
            (Algorithm::Es256, Material::P256(key)) => es256(key, signing_input, signature),
            (Algorithm::Es384, Material::P384(key)) => es384(key, signing_input, signature),
            (Algorithm::Es512, Material::P521(key)) => es512(key, signing_input, signature),
            (Algorithm::EdDsa, Material::Ed25519(forms)) => {
                // RFC 8032 section 5.1.7: 64 bytes, S below the group order.
                let signature = ed25519_compact::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                forms.jwt_simple.as_ref().verify(signing_input, &signature).map_err(|_| BadSignature)
            }
            _ => Err(BadSignature),
        }
    }
}

/// In constant time, and only the whole tag: a shorter one would be quicker to guess.
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
        Algorithm::Rs256 => Some((MessageDigest::sha256(), Padding::PKCS1)),
        Algorithm::Rs384 => Some((MessageDigest::sha384(), Padding::PKCS1)),
        Algorithm::Rs512 => Some((MessageDigest::sha512(), Padding::PKCS1)),
        Algorithm::Ps256 => Some((MessageDigest::sha256(), Padding::PKCS1_PSS)),
        Algorithm::Ps384 => Some((MessageDigest::sha384(), Padding::PKCS1_PSS)),
        Algorithm::Ps512 => Some((MessageDigest::sha512(), Padding::PKCS1_PSS)),
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

#[cfg(test)]
mod tests;
