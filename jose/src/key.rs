//! One key: read once, with the algorithms that it may verify and its thumbprint. How it verifies is the engine's part.
use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::alg::{Algorithm, Family};
use crate::base64url;
use crate::jws::MAX_KID_BYTES;
use crate::key::engine::{BadSignature, VerifyingKey};

mod certificate;
pub mod engine;
mod error;
mod jwk;
mod pem;
mod public;

pub use error::KeyError;
pub use jwk::{PRIVATE_MEMBERS, is_for_verifying};
pub use public::{Curve, MIN_RSA_BITS, PublicKey};

/// A key and the algorithms that it may verify. The key decides the algorithm: a token's `alg` must be among
/// [`Key::algorithms`].
///
/// `V` is the key in the form of an engine, made when the key is read.
#[derive(Clone)]
pub struct Key<V> {
    kid: Option<String>,
    /// The member `issuer` of a JWK, as Entra ID writes it.
    issuer: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    verifying: V,
    family: Family,
    thumbprint: [u8; 32],
    spki: Option<Vec<u8>>,
    rsa_bits: Option<usize>,
}

impl<V: VerifyingKey> Key<V> {
    /// A public key as a JWK (RFC 7517). `kid` replaces the JWK's own. `alg` narrows the key to one algorithm, as the
    /// JWK's own `alg` does. Without either the key takes each of `allowed` that fits it.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_jwk(
        jwk: &Map<String, Value>,
        kid: Option<String>,
        alg: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let members = jwk::read(jwk)?;
        let kid = kid.or(members.kid);
        let alg = match (members.alg, alg) {
            (Some(jwk), Some(configured)) if jwk != configured => {
                return Err(KeyError::AlgorithmConflict { jwk, configured });
            }
            (own, configured) => own.or(configured),
        };
        Ok(Self { issuer: members.issuer, ..Self::from_public(&members.public, kid, alg, allowed)? })
    }

    /// A public key as PEM (RFC 7468 section 13: `PUBLIC KEY`, one block).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(
        pem: &str,
        kid: Option<String>,
        alg: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        Self::from_public(&pem::public_key(pem)?, kid, alg, allowed)
    }

    /// The public key of an X.509 certificate in PEM (RFC 7468 section 5), one block. It takes each of `allowed` that
    /// fits it.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_certificate(pem: &str, kid: String, allowed: &[Algorithm]) -> Result<Self, KeyError> {
        Self::from_public(&certificate::public_key(pem)?, Some(kid), None, allowed)
    }

    /// A public key that was read already.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_public(
        public: &PublicKey,
        kid: Option<String>,
        alg: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let rsa_bits = public.rsa_bits();
        if let Some(bits) = rsa_bits.filter(|bits| *bits > V::MAX_RSA_BITS) {
            return Err(KeyError::RsaTooLarge { bits, most: V::MAX_RSA_BITS });
        }
        let verifying = V::from_public(public).ok_or_else(|| public.unusable())?;
        Ok(Self {
            kid: checked_kid(kid)?,
            issuer: None,
            algorithms: fitting(public.family(), alg, allowed)?,
            verifying,
            family: public.family(),
            thumbprint: public.thumbprint(),
            spki: Some(public.to_spki()),
            rsa_bits,
        })
    }

    /// An HMAC secret. It must be long enough for each algorithm that it is to verify. `alg` narrows these to one.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_secret(
        secret: &[u8],
        kid: Option<String>,
        alg: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let algorithms = fitting(Family::Hmac, alg, allowed)?;
        for &algorithm in &algorithms {
            // RFC 7518 section 3.2.
            let needs = match algorithm {
                Algorithm::HS256 => 32,
                Algorithm::HS384 => 48,
                Algorithm::HS512 => 64,
                _ => return Err(KeyError::AlgorithmMismatch(algorithm)),
            };
            if secret.len() < needs {
                return Err(KeyError::SecretTooShort { algorithm, has: secret.len(), needs });
            }
        }
        Ok(Self {
            kid: checked_kid(kid)?,
            issuer: None,
            verifying: V::from_secret(secret, &algorithms).ok_or(KeyError::NoAlgorithmFits)?,
            algorithms,
            family: Family::Hmac,
            thumbprint: thumbprint(&format!(r#"{{"k":"{}","kty":"oct"}}"#, base64url::encode(secret))),
            spki: None,
            rsa_bits: None,
        })
    }

    /// Checks one signature over the exact bytes of `signing_input`.
    ///
    /// # Errors
    /// The signature does not match, is not of its algorithm's form, or the key is not for `alg`.
    pub fn verify(&self, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !self.verifies(alg) {
            return Err(BadSignature);
        }
        self.verifying.verify(alg, signing_input, signature)
    }
}

impl<V> Key<V> {
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The member `issuer` of its JWK: the tenants that it signs for, where a provider has several.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// True when both verify the same tokens.
    pub fn is_same(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
            && self.kid == other.kid
            && self.algorithms == other.algorithms
            && self.issuer == other.issuer
    }

    /// The algorithms that this key may verify: at least one, all of one family.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub fn verifies(&self, alg: Algorithm) -> bool {
        self.algorithms.contains(&alg)
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The key in the form of its engine.
    pub fn verifying(&self) -> &V {
        &self.verifying
    }

    /// The SHA-256 thumbprint of the key as a JWK (RFC 7638). An HMAC secret has one too: it must not be logged.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// The DER SubjectPublicKeyInfo; none for an HMAC secret.
    pub fn spki(&self) -> Option<&[u8]> {
        self.spki.as_deref()
    }

    /// The length of an RSA modulus.
    pub fn rsa_bits(&self) -> Option<usize> {
        self.rsa_bits
    }
}

impl<V> fmt::Debug for Key<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

fn fitting(family: Family, alg: Option<Algorithm>, allowed: &[Algorithm]) -> Result<Vec<Algorithm>, KeyError> {
    if let Some(alg) = alg {
        if alg.family() != family {
            return Err(KeyError::AlgorithmMismatch(alg));
        }
        if !allowed.contains(&alg) {
            return Err(KeyError::AlgorithmNotAllowed(alg));
        }
        return Ok(vec![alg]);
    }
    let fitting: Vec<Algorithm> =
        Algorithm::ALL.into_iter().filter(|alg| alg.family() == family && allowed.contains(alg)).collect();
    if fitting.is_empty() { Err(KeyError::NoAlgorithmFits) } else { Ok(fitting) }
}

/// A longer one could never match: tokens with it are refused earlier.
fn checked_kid(kid: Option<String>) -> Result<Option<String>, KeyError> {
    match kid {
        Some(kid) if kid.len() > MAX_KID_BYTES => Err(KeyError::KidTooLong),
        kid => Ok(kid),
    }
}

/// RFC 7638 section 3: over the required members only, in lexicographic order, without white space.
fn thumbprint(canonical: &str) -> [u8; 32] {
    Sha256::digest(canonical).into()
}
