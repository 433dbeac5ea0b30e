//! A public key as numbers: bounds, thumbprint, JWK and SubjectPublicKeyInfo. The engine checks that a point is on its
//! curve.
use serde_json::{Map, Value, json};

use super::{KeyError, thumbprint};
use crate::alg::Family;
use crate::base64url;

/// RFC 7518 section 3.3.
pub const MIN_RSA_BITS: usize = 2048;
/// The only RSA exponent: smaller ones have a history of forgeries, larger ones cost time for each signature.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// The uncompressed point: 4, x, y (SEC 1 section 2.3.3).
    Ec { curve: Curve, point: Vec<u8> },
    /// RFC 8032 section 5.1.2.
    Ed25519([u8; 32]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The value of `crv`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.name() == name)
    }

    pub const fn family(self) -> Family {
        match self {
            Self::P256 => Family::P256,
            Self::P384 => Family::P384,
            Self::P521 => Family::P521,
        }
    }

    /// The bytes of one coordinate.
    const fn length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Its object identifier in DER (RFC 5480 section 2.1.1.1).
    const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }
}

impl PublicKey {
    /// From a JWK (RFC 7517), of which `kid`, `alg` and the like do not count.
    ///
    /// # Errors
    /// See [`KeyError`]: also for a JWK with private members, and one that is not for verifying signatures.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, KeyError> {
        super::jwk::read(jwk).map(|members| members.public)
    }

    /// From big-endian integers.
    ///
    /// # Errors
    /// The modulus is too short, or the exponent is not 65537.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        // RFC 7518 section 6.3.1.1 warns of libraries that write a leading zero. It does no harm: the thumbprint is
        // computed without it.
        let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
        let bits = bit_length(n);
        if bits < MIN_RSA_BITS {
            return Err(KeyError::RsaTooSmall(bits));
        }
        if e != RSA_EXPONENT {
            return Err(KeyError::RsaExponent);
        }
        Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// From both coordinates in full length, leading zeros included (RFC 7518 section 6.2.1.2).
    ///
    /// # Errors
    /// A coordinate is of another length.
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        if x.len() != curve.length() || y.len() != curve.length() {
            return Err(KeyError::NotOnCurve(curve.name()));
        }
        Ok(Self::Ec { curve, point: [&[4], x, y].concat() })
    }

    /// From an uncompressed point.
    ///
    /// # Errors
    /// It is compressed, or of another length.
    pub fn ec_point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        let coordinates = point.strip_prefix(&[4]).and_then(|rest| rest.split_at_checked(curve.length()));
        let (x, y) = coordinates.ok_or(KeyError::NotOnCurve(curve.name()))?;
        Self::ec(curve, x, y)
    }

    /// # Errors
    /// It does not have 32 bytes.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self::Ed25519).map_err(|_| KeyError::WeakEd25519)
    }

    pub fn family(&self) -> Family {
        match self {
            Self::Rsa { .. } => Family::Rsa,
            Self::Ec { curve, .. } => curve.family(),
            Self::Ed25519(_) => Family::Ed25519,
        }
    }

    /// The length of an RSA modulus.
    pub fn rsa_bits(&self) -> Option<usize> {
        match self {
            Self::Rsa { n, .. } => Some(bit_length(n)),
            Self::Ec { .. } | Self::Ed25519(_) => None,
        }
    }

    /// The error for a key that an engine does not support.
    pub(super) fn unusable(&self) -> KeyError {
        match self {
            Self::Rsa { .. } => KeyError::RsaModulus,
            Self::Ec { curve, .. } => KeyError::NotOnCurve(curve.name()),
            Self::Ed25519(_) => KeyError::WeakEd25519,
        }
    }

    /// The members of a JWK that RFC 7638 section 3.2 uses for the thumbprint: only the public key.
    pub fn to_jwk(&self) -> Map<String, Value> {
        let members = match self {
            Self::Rsa { n, e } => json!({ "kty": "RSA", "n": base64url::encode(n), "e": base64url::encode(e) }),
            Self::Ec { curve, .. } => {
                let (x, y) = self.coordinates();
                json!({ "kty": "EC", "crv": curve.name(), "x": base64url::encode(x), "y": base64url::encode(y) })
            }
            Self::Ed25519(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url::encode(x) }),
        };
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// The SHA-256 thumbprint (RFC 7638).
    pub fn thumbprint(&self) -> [u8; 32] {
        thumbprint(&match self {
            Self::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64url::encode(e), base64url::encode(n))
            }
            Self::Ec { curve, .. } => {
                let (x, y) = self.coordinates();
                let (x, y) = (base64url::encode(x), base64url::encode(y));
                format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.name())
            }
            Self::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url::encode(x)),
        })
    }

    /// SubjectPublicKeyInfo in DER (RFC 5280 section 4.1; RFC 3279 section 2.3, RFC 5480, RFC 8410).
    pub fn to_spki(&self) -> Vec<u8> {
        let (algorithm, key) = match self {
            Self::Rsa { n, e } => {
                let key = der(0x30, &[unsigned(n), unsigned(e)].concat());
                ([RSA_OID, &[0x05, 0x00]].concat(), key)
            }
            Self::Ec { curve, point } => ([EC_OID, curve.oid()].concat(), point.clone()),
            Self::Ed25519(point) => (ED25519_OID.to_vec(), point.to_vec()),
        };
        // A bit string begins with the number of bits that its last byte leaves unused.
        let key = der(0x03, &[&[0], key.as_slice()].concat());
        der(0x30, &[der(0x30, &algorithm), key].concat())
    }

    fn coordinates(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Ec { curve, point } => {
                let coordinates = point.get(1..).and_then(|rest| rest.split_at_checked(curve.length()));
                coordinates.unwrap_or_default()
            }
            Self::Rsa { .. } | Self::Ed25519(_) => Default::default(),
        }
    }
}

const RSA_OID: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_OID: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// One value in DER (X.690 section 8.1): tag, length, contents.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let length = without_leading_zeros(&length);
    let mut value = vec![tag];
    match length {
        [] => value.push(0),
        [short @ 0..=0x7f] => value.push(*short),
        long => {
            value.push(0x80 | long.len() as u8);
            value.extend_from_slice(long);
        }
    }
    value.extend_from_slice(contents);
    value
}

/// A positive INTEGER, from big-endian bytes without leading zeros.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    match bytes.first() {
        Some(0..=0x7f) => der(0x02, bytes),
        // Without the zero it would be negative.
        _ => der(0x02, &[&[0], bytes].concat()),
    }
}

pub(super) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Of an integer without leading zero bytes.
fn bit_length(bytes: &[u8]) -> usize {
    let unused = bytes.first().map_or(0, |first| first.leading_zeros());
    bytes.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}
