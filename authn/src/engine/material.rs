//! A key in the forms that the engines need for each request.
use ed25519_dalek::VerifyingKey as DalekKey;
use hmac::{Hmac, KeyInit};
use jose::{Algorithm, Curve, Family, PublicKey};
use jwt_simple::algorithms::{P256PublicKey, P384PublicKey};
use sha2::{Sha256, Sha384, Sha512};

use super::rsa::Modulus;

#[derive(Clone)]
pub enum Material {
    Hmac(Box<HmacStates>),
    Rsa(Box<Modulus>),
    P256(P256PublicKey),
    P384(P384PublicKey),
    P521(Box<p521::ecdsa::VerifyingKey>),
    /// With its point already decompressed.
    Ed25519(Box<DalekKey>),
}

/// HMAC states that have absorbed the secret; cloned for each use. Only those for the key's own algorithms are present.
#[derive(Clone, Default)]
pub struct HmacStates {
    pub hs256: Option<Hmac<Sha256>>,
    pub hs384: Option<Hmac<Sha384>>,
    pub hs512: Option<Hmac<Sha512>>,
}

impl Material {
    pub fn family(&self) -> Family {
        match self {
            Material::Hmac(_) => Family::Hmac,
            Material::Rsa(_) => Family::Rsa,
            Material::P256(_) => Family::P256,
            Material::P384(_) => Family::P384,
            Material::P521(_) => Family::P521,
            Material::Ed25519(_) => Family::Ed25519,
        }
    }
}

impl Material {
    /// `None` for a key that no engine supports: an even modulus, a point that is not on its curve, or a point of small
    /// order.
    pub(super) fn from_public(public: &PublicKey) -> Option<Self> {
        Some(match public {
            // The exponent is always 65537.
            PublicKey::Rsa { n, e: _ } => Material::Rsa(Box::new(Modulus::new(n)?)),
            PublicKey::Ec { curve: Curve::P256, point } => Material::P256(P256PublicKey::from_bytes(point).ok()?),
            PublicKey::Ec { curve: Curve::P384, point } => Material::P384(P384PublicKey::from_bytes(point).ok()?),
            PublicKey::Ec { curve: Curve::P521, point } => {
                Material::P521(Box::new(p521::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?))
            }
            PublicKey::Ed25519(point) => Material::Ed25519(Box::new(ed25519(point)?)),
        })
    }

    /// `None` if one of `algorithms` needs another kind of key.
    pub(super) fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        let mut states = HmacStates::default();
        for algorithm in algorithms {
            // HMAC accepts a key of any length, so these never fail.
            match algorithm {
                Algorithm::HS256 => states.hs256 = Some(Hmac::new_from_slice(secret).ok()?),
                Algorithm::HS384 => states.hs384 = Some(Hmac::new_from_slice(secret).ok()?),
                Algorithm::HS512 => states.hs512 = Some(Hmac::new_from_slice(secret).ok()?),
                _ => return None,
            }
        }
        Some(Material::Hmac(Box::new(states)))
    }
}

/// `None` also for a point of small order, for which anybody can sign, and for an encoding that is not canonical: one key
/// must not have two thumbprints.
fn ed25519(encoded: &[u8; 32]) -> Option<DalekKey> {
    let key = DalekKey::from_bytes(encoded).ok()?;
    let canonical = key.to_edwards().compress().to_bytes() == *encoded;
    (canonical && !key.is_weak()).then_some(key)
}

#[cfg(test)]
mod tests;
