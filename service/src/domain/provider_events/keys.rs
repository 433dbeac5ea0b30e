//! A provider's key set (RFC 7517), read once into keys that verify. The key decides the algorithm.
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::{Algorithm, Family};

/// The longest key set, in bytes, and the most members of one.
pub const MAX_SET_BYTES: usize = 256 * 1024;
pub const MAX_MEMBERS: usize = 128;
/// The most signatures that are tried for one token.
const MAX_CANDIDATES: usize = 8;
/// RFC 7518 section 3.3 asks for 2048 bits; above 8192 a check takes too long.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// 65537, the one exponent that is in use.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The one that the set says it is for.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// How a signature was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    Good,
    Bad,
    /// The key is there, and is none for this algorithm.
    OtherAlgorithm,
    /// No such key: a newer set may have it.
    UnknownKey,
}

impl KeySet {
    /// Keys that we cannot use are left out: a set may have keys for others too.
    ///
    /// # Errors
    /// It is no key set; the last good one is better.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if bytes.len() > MAX_SET_BYTES {
            return Err("is too long for a key set");
        }
        let set: Set = serde_json::from_slice(bytes).map_err(|_| "is not a key set")?;
        if set.keys.len() > MAX_MEMBERS {
            return Err("has too many keys");
        }
        Ok(Self(set.keys.into_iter().filter_map(Key::read).collect()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Without a key id, any key of the algorithm may have signed. A key without one may be meant by any.
    pub fn judge(&self, kid: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Judged {
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        let nameless = |key: &&Key| kid.is_some() && key.kid.is_none();
        let candidates = self.0.iter().filter(named).chain(self.0.iter().filter(nameless));
        let mut fitting = candidates.filter(|key| key.fits(algorithm)).peekable();
        if fitting.peek().is_none() {
            let there = kid.is_some() && self.0.iter().any(|key| named(&key));
            return if there { Judged::OtherAlgorithm } else { Judged::UnknownKey };
        }
        match fitting.take(MAX_CANDIDATES).any(|key| key.verifies(algorithm, message, signature)) {
            true => Judged::Good,
            false => Judged::Bad,
        }
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Jwk {
            kty: String,
            kid: Option<String>,
            #[serde(rename = "use")]
            usage: Option<String>,
            key_ops: Option<Vec<String>>,
            alg: Option<String>,
            crv: Option<String>,
            n: Option<String>,
            e: Option<String>,
            x: Option<String>,
            y: Option<String>,
            d: Option<Value>,
        }
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.usage.is_some_and(|usage| usage != "sig")
            || jwk.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
        {
            return None;
        }
        // A private key that is published is everybody's.
        if jwk.d.is_some() {
            return None;
        }
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let point = |length: usize, x, y| -> Option<Vec<u8>> {
            let (x, y): (Vec<u8>, Vec<u8>) = (bytes(x)?, bytes(y)?);
            // RFC 7518 section 6.2.1.2: the full length, zeros included.
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
        };
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::Rsa { n: bytes(jwk.n)?, e: bytes(jwk.e)? },
            ("EC", Some("P-256")) => Material::P256(point(32, jwk.x, jwk.y)?),
            ("EC", Some("P-384")) => Material::P384(point(48, jwk.x, jwk.y)?),
            ("EC", Some("P-521")) => Material::P521(point(66, jwk.x, jwk.y)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(jwk.x)?),
            _ => return None,
        };
        if !material.is_sound() {
            return None;
        }
        let only = match jwk.alg {
            None => None,
            // What is published is never a secret's.
            Some(name) => {
                Some(Algorithm::from_name(&name).filter(|algorithm| algorithm.family() == material.family())?)
            }
        };
        Some(Self { kid: jwk.kid, only, material })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.material.family() == algorithm.family() && self.only.is_none_or(|only| only == algorithm)
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters| match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok(),
            Material::P256(_) | Material::P384(_) | Material::P521(_) | Material::Ed25519(_) => false,
        };
        match (algorithm, &self.material) {
            (Algorithm::RS256, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::RS384, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::RS512, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::PS256, _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            (Algorithm::PS384, _) => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            (Algorithm::PS512, _) => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            (Algorithm::ES256, Material::P256(point)) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Algorithm::ES384, Material::P384(point)) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (Algorithm::ES512, Material::P521(point)) => {
                UnparsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, point).verify(message, signature).is_ok()
            }
            (Algorithm::EdDSA, Material::Ed25519(key)) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
            (Algorithm::ES256 | Algorithm::ES384 | Algorithm::ES512 | Algorithm::EdDSA, _) => false,
            (Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512, _) => false,
        }
    }
}

impl Material {
    fn family(&self) -> Family {
        match self {
            Material::Rsa { .. } => Family::Rsa,
            Material::P256(_) => Family::P256,
            Material::P384(_) => Family::P384,
            Material::P521(_) => Family::P521,
            Material::Ed25519(_) => Family::Ed25519,
        }
    }

    /// On its curve, of a length that is in use.
    fn is_sound(&self) -> bool {
        match self {
            Material::Rsa { n, e } => {
                *e == RSA_EXPONENT && RSA_BYTES.contains(&n.len()) && n.first().is_some_and(|first| *first >= 0x80)
            }
            Material::P256(point) => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).is_ok(),
            Material::P384(point) => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).is_ok(),
            Material::P521(point) => ParsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, point).is_ok(),
            Material::Ed25519(key) => ParsedPublicKey::new(&signature::ED25519, key).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests;
