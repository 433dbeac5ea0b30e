//! Public keys in PEM (RFC 7468 section 13): one block, one spelling.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::pkcs8::der::Decode as _;
use p256::pkcs8::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use superboring::reexports::rsa::pkcs1::RsaPublicKey;

use super::{KeyError, PublicKey, without_leading_zeros};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

pub(super) fn public_key(pem: &str) -> Result<PublicKey, KeyError> {
    public_key_of(&block(pem, "PUBLIC KEY")?)
}

/// From a SubjectPublicKeyInfo in DER.
pub(super) fn public_key_of(der: &[u8]) -> Result<PublicKey, KeyError> {
    let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::PemNotSpki)?;
    let bits = spki.subject_public_key.as_bytes().ok_or(KeyError::PemNotSpki)?;
    let kind = spki.algorithm.oid;
    let curve = || spki.algorithm.parameters_oid().ok();
    let key = if kind == RSA {
        let key = RsaPublicKey::try_from(bits).map_err(|_| KeyError::PemNotSpki)?;
        PublicKey::rsa(without_leading_zeros(key.modulus.as_bytes()), key.public_exponent.as_bytes())?
    } else if kind == EC && curve() == Some(P256) {
        PublicKey::p256(bits)?
    } else if kind == EC && curve() == Some(P384) {
        PublicKey::p384(bits)?
    } else if kind == EC && curve() == Some(P521) {
        PublicKey::p521(bits)?
    } else if kind == ED25519 {
        PublicKey::ed25519(bits)?
    } else {
        return Err(KeyError::PemUnknownKind);
    };
    // Odd parameters, a compressed point, an integer with spare zeros: whatever we did not look at shows here.
    if key.spki != der { Err(KeyError::PemNotSpki) } else { Ok(key) }
}

/// What is in the one block of a PEM text.
pub(super) fn block(pem: &str, wanted: &str) -> Result<Vec<u8>, KeyError> {
    let rest = pem.trim_ascii().strip_prefix("-----BEGIN ").ok_or(KeyError::PemMalformed)?;
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::PemMalformed)?;
    if label.ends_with("PRIVATE KEY") {
        return Err(KeyError::PemPrivate(label.to_owned()));
    }
    if label != wanted {
        return Err(KeyError::PemLabel(label.to_owned()));
    }
    // A second block would leave dashes in between, which are not base64.
    let end = rest.strip_suffix("-----").and_then(|rest| rest.strip_suffix(wanted));
    let body = end.and_then(|rest| rest.strip_suffix("-----END ")).ok_or(KeyError::PemMalformed)?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|_| KeyError::PemMalformed)
}
