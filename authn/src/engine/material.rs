//! A key in the forms in which the engines need it for each request.
use ed25519_dalek::VerifyingKey as DalekKey;
use hmac::{Hmac, KeyInit};
use jose::{Algorithm, Curve, Family, PublicKey};
use jwt_simple::algorithms::{Edwards25519PublicKey, P256PublicKey, P384PublicKey, RSAPublicKey};
use sha2::{Sha256, Sha384, Sha512};
use superboring::pkey::{PKey, Public};

use super::rsa::Modulus;

#[derive(Clone)]
pub enum Material {
    Hmac(Box<HmacStates>),
    Rsa(Box<RsaForms>),
    P256(P256PublicKey),
    P384(P384PublicKey),
    P521(Box<p521::ecdsa::VerifyingKey>),
    Ed25519(Box<Ed25519Forms>),
}

#[derive(Clone)]
pub struct RsaForms {
    pub jwt_simple: PKey<Public>,
    pub portable: Modulus,
}

#[derive(Clone)]
pub struct Ed25519Forms {
    pub jwt_simple: Edwards25519PublicKey,
    /// With its point already unpacked.
    pub portable: DalekKey,
}

/// HMAC states that have taken in the secret, cloned for each use. Only those of the key's own algorithms are present.
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
    /// `None` for a key that no engine takes: an even modulus, a point that is not on its curve or of small order.
    pub(super) fn from_public(public: &PublicKey) -> Option<Self> {
        Some(match public {
            PublicKey::Rsa { n, e } => {
                let key = RSAPublicKey::from_components(n, e).ok()?;
                Material::Rsa(Box::new(RsaForms {
                    jwt_simple: PKey::from_rsa(key.as_ref().clone()).ok()?,
                    portable: Modulus::new(n)?,
                }))
            }
            PublicKey::Ec { curve: Curve::P256, point } => Material::P256(P256PublicKey::from_bytes(point).ok()?),
            PublicKey::Ec { curve: Curve::P384, point } => Material::P384(P384PublicKey::from_bytes(point).ok()?),
            PublicKey::Ec { curve: Curve::P521, point } => {
                Material::P521(Box::new(p521::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?))
            }
            PublicKey::Ed25519(point) => Material::Ed25519(Box::new(Ed25519Forms {
                // This constructor also refuses points of small order and encodings that are not canonical.
                jwt_simple: Edwards25519PublicKey::from_bytes(point).ok()?,
                portable: DalekKey::from_bytes(point).ok()?,
            })),
        })
    }

    /// `None` where one of `algorithms` needs another kind of key.
    pub(super) fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        let mut states = HmacStates::default();
        for algorithm in algorithms {
            // HMAC takes a key of any length, so these never fail.
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

#[cfg(test)]
mod tests;
