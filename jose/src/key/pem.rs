//! Public keys in PEM (RFC 7468 section 13): one block, one spelling.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spki::der::asn1::UintRef;
use spki::der::{Decode as _, Reader as _, Result as DerResult, SliceReader, Tag, Tagged as _, asn1::AnyRef};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::{Curve, KeyError, PublicKey};

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
        let (n, e) = rsa(bits).ok().flatten().ok_or(KeyError::PemNotSpki)?;
        PublicKey::rsa(n, e)?
    } else if kind == EC && curve() == Some(P256) {
        point(Curve::P256, bits)?
    } else if kind == EC && curve() == Some(P384) {
        point(Curve::P384, bits)?
    } else if kind == EC && curve() == Some(P521) {
        point(Curve::P521, bits)?
    } else if kind == ED25519 {
        PublicKey::ed25519(bits)?
    } else {
        return Err(KeyError::PemUnknownKind);
    };
    // Odd parameters, an integer with spare zeros: all that was not looked at shows here.
    if key.to_spki() != der { Err(KeyError::PemNotSpki) } else { Ok(key) }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa(der: &[u8]) -> DerResult<Option<(&[u8], &[u8])>> {
    let sequence = AnyRef::from_der(der)?;
    if sequence.tag() != Tag::Sequence {
        return Ok(None);
    }
    let mut integers = SliceReader::new(sequence.value())?;
    let (n, e) = (UintRef::decode(&mut integers)?, UintRef::decode(&mut integers)?);
    integers.finish()?;
    Ok(Some((n.as_bytes(), e.as_bytes())))
}

/// A compressed point would have two spellings.
fn point(curve: Curve, bits: &[u8]) -> Result<PublicKey, KeyError> {
    match bits.first() {
        Some(2 | 3) => Err(KeyError::PemNotSpki),
        _ => PublicKey::ec_point(curve, bits),
    }
}

/// The contents of the one block of a PEM text.
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
