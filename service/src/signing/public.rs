//! The public half of a signing key: the key that verifies, its thumbprint, its JWK.
use std::fmt;

use aws_lc_rs::signature::ParsedPublicKey;
use jose::{Algorithm, Curve, Key, PublicKey, base64url};
use serde_json::{Map, Value};

use crate::base::signature::{self, AwsLcKey};

pub struct Public {
    key: PublicKey,
    algorithm: Algorithm,
    verifying: ParsedPublicKey,
    kid: String,
    jwk: Map<String, Value>,
}

impl Public {
    /// Big-endian. `None`: not 2048 to 8192 bits, another exponent than 65537, or invalid numbers.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        Self::of(PublicKey::rsa(modulus, exponent).ok()?, Algorithm::RS256)
    }

    /// The uncompressed point: 4, x, y (SEC 1 section 2.3.3).
    pub fn p256(point: &[u8]) -> Option<Self> {
        Self::of(PublicKey::ec_point(Curve::P256, point).ok()?, Algorithm::ES256)
    }

    /// RFC 8032 section 5.1.2.
    pub fn ed25519(bytes: &[u8]) -> Option<Self> {
        Self::of(PublicKey::ed25519(bytes).ok()?, Algorithm::EdDSA)
    }

    fn of(key: PublicKey, algorithm: Algorithm) -> Option<Self> {
        // Whether it may verify at all, by its size for example.
        let checked: Key<AwsLcKey> = Key::from_public(&key, None, Some(algorithm), &[algorithm]).ok()?;
        let kid = base64url::encode(checked.thumbprint());
        let mut jwk = key.to_jwk();
        jwk.insert("alg".into(), algorithm.name().into());
        jwk.insert("kid".into(), kid.as_str().into());
        jwk.insert("use".into(), "sig".into());
        Some(Self { verifying: signature::parse(&key, algorithm)?, key, algorithm, kid, jwk })
    }

    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The RFC 7638 thumbprint. A revocation of it ends every token that this key signed.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// RFC 7517, with `alg`, `kid` and `use`.
    pub fn jwk(&self) -> &Map<String, Value> {
        &self.jwk
    }

    /// The signature in the JWS form (RFC 7518 section 3.4: r‖s for ECDSA).
    pub fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        self.verifying.verify_sig(input, signature).is_ok()
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Public({}, {})", self.algorithm, self.kid)
    }
}
