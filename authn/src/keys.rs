//! One key, as configured: parsed once, with the algorithms that it may verify and its name that no header chooses.
use std::fmt;

use hmac::{Hmac, KeyInit};
use jwt_simple::algorithms::{Edwards25519PublicKey, P256PublicKey, P384PublicKey, RSAPublicKey};
use p521::pkcs8::EncodePublicKey as _;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};
use superboring::pkey::{PKey, Public};

use crate::alg::{Algorithm, Family};
use crate::b64;
use crate::engine::rsa::Modulus;
use crate::jws::MAX_KID_BYTES;

mod certificate;
mod pem;
mod set;

pub use set::{Candidates, KeySet, KeySetError, MAX_CANDIDATES, MAX_KEYS, MAX_KEYS_WITHOUT_KID};

pub const MIN_RSA_BITS: usize = 2048;
pub const MAX_RSA_BITS: usize = 4096;

/// The only RSA exponent: smaller ones have a history of forgeries, larger ones cost time on every request.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1; RFC 8037 section 2.
pub(crate) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A key and what it may do. The key decides the algorithm: a token's `alg` only has to be among [`Key::algorithms`].
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    /// The issuers that a JWK says it is for, as Entra ID writes it.
    issuer: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    material: Material,
    thumbprint: [u8; 32],
    spki: Option<Vec<u8>>,
    rsa_bits: Option<usize>,
}

/// The key itself, in the forms in which the engines need it on every request.
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
    pub portable: ed25519_dalek::VerifyingKey,
}

/// HMAC states that have taken in the secret, cloned for each use. Only the key's own algorithms are there.
#[derive(Clone, Default)]
pub struct HmacStates {
    pub hs256: Option<Hmac<Sha256>>,
    pub hs384: Option<Hmac<Sha384>>,
    pub hs512: Option<Hmac<Sha512>>,
}

/// Why a key is refused when it is configured. Names members, never values that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the JWK has no `{0}`")]
    Missing(&'static str),
    #[error("the JWK's `{0}` is not {1}")]
    WrongType(&'static str, &'static str),
    #[error("the JWK's `{0}` is not base64url without padding")]
    NotBase64Url(&'static str),
    #[error("the JWK has the private member `{0}`; give the public key only, and treat this key as exposed")]
    PrivateMember(&'static str),
    #[error(
        "the JWK's `kty` is oct, a shared secret; secrets are named by `secret_env` and never written in the configuration"
    )]
    SecretJwk,
    #[error("the JWK's `kty` is none of RSA, EC, OKP")]
    UnknownKeyType,
    #[error("the JWK's `crv` is none of P-256, P-384 and P-521 (EC), Ed25519 (OKP)")]
    UnknownCurve,
    #[error("the JWK's `{0}` says that the key is not for verifying signatures")]
    NotForVerifying(&'static str),
    #[error("the JWK's `alg` is none of those that are known here")]
    UnknownAlgorithm,
    #[error("the JWK's `alg` is {jwk}, and the configured `alg` is {configured}")]
    AlgorithmConflict { jwk: Algorithm, configured: Algorithm },
    #[error("`alg` is {0}, which is not among the issuer's `algorithms`")]
    AlgorithmNotAllowed(Algorithm),
    #[error("`alg` is {0}, which is for another kind of key")]
    AlgorithmMismatch(Algorithm),
    #[error("none of the issuer's `algorithms` is for this kind of key")]
    NoAlgorithmFits,
    #[error("the key id (`kid`) has more than {MAX_KID_BYTES} bytes")]
    KidTooLong,
    #[error("the RSA modulus (`n`) has {0} bits, and at least {MIN_RSA_BITS} are needed")]
    RsaTooSmall(usize),
    #[error("the RSA modulus (`n`) has {0} bits, and at most {MAX_RSA_BITS} are taken")]
    RsaTooLarge(usize),
    #[error("the RSA exponent (`e`) is not 65537")]
    RsaExponent,
    #[error("the RSA modulus (`n`) is even")]
    RsaModulus,
    #[error("the point (`x`, `y`) is not on the curve {0}, or has not the curve's length")]
    NotOnCurve(&'static str),
    #[error("`x` is no Ed25519 public key: not 32 bytes, not a point, not canonical, or of small order")]
    WeakEd25519,
    #[error("the secret has {has} bytes, and {algorithm} needs at least {needs} (RFC 7518 section 3.2)")]
    SecretTooShort { algorithm: Algorithm, has: usize, needs: usize },
    #[error("`pem` is not one PEM block with base64 between its lines")]
    PemMalformed,
    #[error("`pem` holds a private key ({0}); give the public key only, and treat this key as exposed")]
    PemPrivate(String),
    #[error("`pem` holds a {0}, not a PUBLIC KEY")]
    PemLabel(String),
    #[error("`pem` is not a SubjectPublicKeyInfo in plain DER (RFC 5280; EC points uncompressed)")]
    PemNotSpki,
    #[error("`pem` holds a key of a kind that is none of RSA, EC P-256, P-384 or P-521, Ed25519")]
    PemUnknownKind,
    #[error("it is no single X.509 certificate in PEM and DER")]
    CertificateMalformed,
    #[error("the certificate's key usage has no digitalSignature")]
    CertificateNotForSignatures,
}

impl Key {
    /// A public key as a JWK (RFC 7517). `kid` replaces the JWK's own, `alg` narrows as the JWK's own does, and without
    /// either the key takes every one of `allowed` that fits it.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_jwk(
        jwk: &Map<String, Value>,
        kid: Option<String>,
        alg: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let kind = jwk_string(jwk, "kty")?.ok_or(KeyError::Missing("kty"))?;
        if kind == "oct" {
            return Err(KeyError::SecretJwk);
        }
        for member in PRIVATE_MEMBERS {
            if jwk.contains_key(member) {
                return Err(KeyError::PrivateMember(member));
            }
        }
        is_for_verifying(jwk)?;
        let kid = match kid {
            Some(kid) => Some(kid),
            None => jwk_string(jwk, "kid")?.map(str::to_owned),
        };
        let own = match jwk_string(jwk, "alg")? {
            Some(name) => Some(Algorithm::from_name(name).ok_or(KeyError::UnknownAlgorithm)?),
            None => None,
        };
        let alg = match (own, alg) {
            (Some(jwk), Some(configured)) if jwk != configured => {
                return Err(KeyError::AlgorithmConflict { jwk, configured });
            }
            (own, configured) => own.or(configured),
        };
        let public = match kind {
            "RSA" => PublicKey::rsa(&jwk_bytes(jwk, "n")?, &jwk_bytes(jwk, "e")?),
            "EC" => {
                let crv = jwk_string(jwk, "crv")?.ok_or(KeyError::Missing("crv"))?;
                let (x, y) = (jwk_bytes(jwk, "x")?, jwk_bytes(jwk, "y")?);
                match crv {
                    "P-256" => PublicKey::p256(&uncompressed(&x, &y, 32).ok_or(KeyError::NotOnCurve("P-256"))?),
                    "P-384" => PublicKey::p384(&uncompressed(&x, &y, 48).ok_or(KeyError::NotOnCurve("P-384"))?),
                    "P-521" => PublicKey::p521(&uncompressed(&x, &y, 66).ok_or(KeyError::NotOnCurve("P-521"))?),
                    _ => Err(KeyError::UnknownCurve),
                }
            }
            "OKP" => match jwk_string(jwk, "crv")?.ok_or(KeyError::Missing("crv"))? {
                "Ed25519" => PublicKey::ed25519(&jwk_bytes(jwk, "x")?),
                _ => Err(KeyError::UnknownCurve),
            },
            _ => Err(KeyError::UnknownKeyType),
        }?;
        let issuer = jwk_string(jwk, "issuer")?.map(Into::into);
        Ok(Self { issuer, ..public.into_key(kid, alg, allowed)? })
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
        pem::public_key(pem)?.into_key(kid, alg, allowed)
    }

    /// An HMAC secret. It must be long enough for each algorithm that it is to verify; `alg` narrows these to one.
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
        let mut states = HmacStates::default();
        for &algorithm in &algorithms {
            let needs = match algorithm {
                Algorithm::Hs256 => 32,
                Algorithm::Hs384 => 48,
                Algorithm::Hs512 => 64,
                _ => return Err(KeyError::AlgorithmMismatch(algorithm)),
            };
            let too_short = KeyError::SecretTooShort { algorithm, has: secret.len(), needs };
            if secret.len() < needs {
                return Err(too_short);
            }
            // HMAC takes a key of any length, so these never fail.
            match algorithm {
                Algorithm::Hs384 => states.hs384 = Some(Hmac::new_from_slice(secret).map_err(|_| too_short)?),
                Algorithm::Hs512 => states.hs512 = Some(Hmac::new_from_slice(secret).map_err(|_| too_short)?),
                _ => states.hs256 = Some(Hmac::new_from_slice(secret).map_err(|_| too_short)?),
            }
        }
        Ok(Self {
            kid: checked_kid(kid)?,
            issuer: None,
            algorithms,
            material: Material::Hmac(Box::new(states)),
            thumbprint: thumbprint(&format!(r#"{{"k":"{}","kty":"oct"}}"#, b64::encode(secret))),
            spki: None,
            rsa_bits: None,
        })
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The member `issuer` of its JWK: which tenants' issuers it is for, where a provider has several.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Is it the same key, which verifies the same tokens?
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
            && self.kid == other.kid
            && self.algorithms == other.algorithms
            && self.issuer == other.issuer
    }

    /// What this key may verify: at least one, all of one family.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub fn verifies(&self, alg: Algorithm) -> bool {
        self.algorithms.contains(&alg)
    }

    pub fn material(&self) -> &Material {
        &self.material
    }

    /// The SHA-256 thumbprint of the key as a JWK (RFC 7638); of an HMAC secret too, so keep that one from logs.
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

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .field("family", &self.material.family())
            .finish_non_exhaustive()
    }
}

/// A public key that is good in itself, whatever it will be used for.
struct PublicKey {
    material: Material,
    spki: Vec<u8>,
    thumbprint: [u8; 32],
    rsa_bits: Option<usize>,
}

impl PublicKey {
    /// From big-endian integers.
    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        // RFC 7518 section 6.3.1.1 warns of libraries that write a leading zero; it changes nothing, the thumbprint is
        // taken without it.
        let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
        let bits = bit_length(n);
        if bits < MIN_RSA_BITS {
            return Err(KeyError::RsaTooSmall(bits));
        }
        if bits > MAX_RSA_BITS {
            return Err(KeyError::RsaTooLarge(bits));
        }
        if e != RSA_EXPONENT {
            return Err(KeyError::RsaExponent);
        }
        let key = RSAPublicKey::from_components(n, e).map_err(|_| KeyError::RsaModulus)?;
        let forms = RsaForms {
            jwt_simple: PKey::from_rsa(key.as_ref().clone()).map_err(|_| KeyError::RsaModulus)?,
            portable: Modulus::new(n).ok_or(KeyError::RsaModulus)?,
        };
        Ok(Self {
            spki: key.to_der().map_err(|_| KeyError::RsaModulus)?,
            thumbprint: thumbprint(&format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64::encode(e), b64::encode(n))),
            rsa_bits: Some(bits),
            material: Material::Rsa(Box::new(forms)),
        })
    }

    /// From an uncompressed point (SEC 1 section 2.3.3).
    fn p256(point: &[u8]) -> Result<Self, KeyError> {
        let error = KeyError::NotOnCurve("P-256");
        let key = P256PublicKey::from_bytes(point).map_err(|_| error.clone())?;
        Ok(Self {
            spki: key.to_der().map_err(|_| error.clone())?,
            thumbprint: ec_thumbprint("P-256", &key.to_bytes_uncompressed()).ok_or(error)?,
            rsa_bits: None,
            material: Material::P256(key),
        })
    }

    fn p384(point: &[u8]) -> Result<Self, KeyError> {
        let error = KeyError::NotOnCurve("P-384");
        let key = P384PublicKey::from_bytes(point).map_err(|_| error.clone())?;
        Ok(Self {
            spki: key.to_der().map_err(|_| error.clone())?,
            thumbprint: ec_thumbprint("P-384", &key.to_bytes_uncompressed()).ok_or(error)?,
            rsa_bits: None,
            material: Material::P384(key),
        })
    }

    fn p521(point: &[u8]) -> Result<Self, KeyError> {
        let error = KeyError::NotOnCurve("P-521");
        let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| error.clone())?;
        Ok(Self {
            spki: key.to_public_key_der().map_err(|_| error.clone())?.into_vec(),
            thumbprint: ec_thumbprint("P-521", key.to_sec1_point(false).as_bytes()).ok_or(error)?,
            rsa_bits: None,
            material: Material::P521(Box::new(key)),
        })
    }

    fn ed25519(point: &[u8]) -> Result<Self, KeyError> {
        // The constructor also refuses points of small order and encodings that are not canonical.
        let key = Edwards25519PublicKey::from_bytes(point).map_err(|_| KeyError::WeakEd25519)?;
        let portable = ed25519_dalek::VerifyingKey::try_from(point).map_err(|_| KeyError::WeakEd25519)?;
        Ok(Self {
            spki: key.to_der(),
            thumbprint: thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64::encode(point))),
            rsa_bits: None,
            material: Material::Ed25519(Box::new(Ed25519Forms { jwt_simple: key, portable })),
        })
    }

    fn into_key(self, kid: Option<String>, alg: Option<Algorithm>, allowed: &[Algorithm]) -> Result<Key, KeyError> {
        Ok(Key {
            kid: checked_kid(kid)?,
            issuer: None,
            algorithms: fitting(self.material.family(), alg, allowed)?,
            material: self.material,
            thumbprint: self.thumbprint,
            spki: Some(self.spki),
            rsa_bits: self.rsa_bits,
        })
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
        Algorithm::ALL.iter().copied().filter(|alg| alg.family() == family && allowed.contains(alg)).collect();
    if fitting.is_empty() { Err(KeyError::NoAlgorithmFits) } else { Ok(fitting) }
}

/// A longer one could never match: tokens with it are refused earlier.
fn checked_kid(kid: Option<String>) -> Result<Option<String>, KeyError> {
    match kid {
        Some(kid) if kid.len() > MAX_KID_BYTES => Err(KeyError::KidTooLong),
        kid => Ok(kid),
    }
}

/// RFC 7517 sections 4.2 and 4.3.
pub(crate) fn is_for_verifying(jwk: &Map<String, Value>) -> Result<(), KeyError> {
    if jwk_string(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::NotForVerifying("use"));
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(KeyError::NotForVerifying("key_ops")),
        Some(_) => Err(KeyError::WrongType("key_ops", "an array")),
    }
}

fn jwk_string<'j>(jwk: &'j Map<String, Value>, member: &'static str) -> Result<Option<&'j str>, KeyError> {
    jwk.get(member).map(|value| value.as_str().ok_or(KeyError::WrongType(member, "a string"))).transpose()
}

fn jwk_bytes(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = jwk_string(jwk, member)?.ok_or(KeyError::Missing(member))?;
    b64::decode(text).map_err(|_| KeyError::NotBase64Url(member))
}

/// RFC 7518 section 6.2.1.2: both coordinates in full length, leading zeros and all.
fn uncompressed(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Of an integer without leading zero bytes.
fn bit_length(bytes: &[u8]) -> usize {
    let unused = bytes.first().map_or(0, |first| first.leading_zeros());
    bytes.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

fn ec_thumbprint(crv: &str, uncompressed: &[u8]) -> Option<[u8; 32]> {
    let (_, coordinates) = uncompressed.split_first()?;
    let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
    let (x, y) = (b64::encode(x), b64::encode(y));
    Some(thumbprint(&format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)))
}

/// RFC 7638 section 3: over the required members only, in lexicographic order, without white space.
fn thumbprint(canonical: &str) -> [u8; 32] {
    Sha256::digest(canonical).into()
}

#[cfg(test)]
mod tests;
