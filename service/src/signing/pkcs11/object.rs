//! A private key in a token: found by its URI, checked for signing, with its public half.
use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::TokenError;
use super::uri::Pkcs11Uri;
use crate::signing::public::Public;

/// The OID of P-256 (RFC 5480 section 2.1.1.1) in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Ed25519 as tokens encode it: its OID (RFC 8410), the curve's name (PKCS#11 3.0 section 2.3.5), or an older OID.
const ED25519: &[&[u8]] = &[
    &[0x06, 0x03, 0x2b, 0x65, 0x70],
    b"\x13\x0cedwards25519",
    &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01],
];

/// # Errors
/// None, or several.
pub fn find(session: &Session, uri: &Pkcs11Uri) -> Result<ObjectHandle, TokenError> {
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    wanted.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    wanted.extend(uri.id.clone().map(Attribute::Id));
    match session.find_objects(&wanted)?.as_slice() {
        [] => Err(TokenError::NoObject),
        [key] => Ok(*key),
        more => Err(TokenError::Objects(more.len())),
    }
}

/// The public half of this private key, which may sign.
///
/// # Errors
/// It may not sign, has an unsupported type, or the token does not give its public half.
pub fn read(session: &Session, key: ObjectHandle, uri: &Pkcs11Uri) -> Result<Public, TokenError> {
    if flag(session, key, AttributeType::Sign)? == Some(false) {
        return Err(TokenError::Unfit("it may not sign (CKA_SIGN)"));
    }
    if flag(session, key, AttributeType::AlwaysAuthenticate)? == Some(true) {
        return Err(TokenError::Unfit("it requires the PIN for each signature (CKA_ALWAYS_AUTHENTICATE)"));
    }
    let exposed = flag(session, key, AttributeType::Extractable)? == Some(true)
        || flag(session, key, AttributeType::Sensitive)? == Some(false);
    if exposed {
        tracing::warn!(object = uri.object, "this private key can leave its token (CKA_EXTRACTABLE, CKA_SENSITIVE)");
    }
    let kind = match attribute(session, key, AttributeType::KeyType)? {
        Some(Attribute::KeyType(kind)) => kind,
        _ => return Err(TokenError::Unfit("the token does not give its type (CKA_KEY_TYPE)")),
    };
    // The public half has the private key's id, which key generation gives to both. Without an id, the label is used.
    let mut wanted = vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(kind)];
    wanted.push(match bytes(session, key, AttributeType::Id)?.filter(|id| !id.is_empty()) {
        Some(id) => Attribute::Id(id),
        None => Attribute::Label(uri.object.clone().unwrap_or_default().into_bytes()),
    });
    let public = session.find_objects(&wanted)?.first().copied();
    // Some tokens keep the public values with the private key, too. In each case a signature must verify with them.
    let said = |kind| {
        for object in [public, Some(key)].into_iter().flatten() {
            if let Some(value) = bytes(session, object, kind)?.filter(|value| !value.is_empty()) {
                return Ok(value);
            }
        }
        Err(TokenError::Unfit("the token does not give its public half: it needs a public key with the same CKA_ID"))
    };
    let public = if kind == KeyType::RSA {
        let (modulus, exponent) = (said(AttributeType::Modulus)?, said(AttributeType::PublicExponent)?);
        Public::rsa(&modulus, &exponent)
    } else if kind == KeyType::EC && said(AttributeType::EcParams)? == P256 {
        Public::p256(unwrapped(&said(AttributeType::EcPoint)?, 65))
    } else if kind == KeyType::EC_EDWARDS && ED25519.contains(&said(AttributeType::EcParams)?.as_slice()) {
        Public::ed25519(unwrapped(&said(AttributeType::EcPoint)?, 32))
    } else {
        None
    };
    public.ok_or(TokenError::Unfit(
        "it is not an RSA key of 2048 to 8192 bits with the exponent 65537, P-256 key or Ed25519 key",
    ))
}

fn attribute(session: &Session, object: ObjectHandle, kind: AttributeType) -> Result<Option<Attribute>, TokenError> {
    match session.get_attributes(object, &[kind]) {
        Ok(mut found) => Ok(found.pop()),
        // A value that the library cannot read, such as an empty flag.
        Err(Error::TryFromSlice(_) | Error::InvalidValue | Error::NotSupported) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn flag(session: &Session, object: ObjectHandle, kind: AttributeType) -> Result<Option<bool>, TokenError> {
    Ok(match attribute(session, object, kind)? {
        Some(
            Attribute::Sign(is)
            | Attribute::AlwaysAuthenticate(is)
            | Attribute::Extractable(is)
            | Attribute::Sensitive(is),
        ) => Some(is),
        _ => None,
    })
}

fn bytes(session: &Session, object: ObjectHandle, kind: AttributeType) -> Result<Option<Vec<u8>>, TokenError> {
    Ok(match attribute(session, object, kind)? {
        Some(
            Attribute::Id(value)
            | Attribute::Modulus(value)
            | Attribute::PublicExponent(value)
            | Attribute::EcParams(value)
            | Attribute::EcPoint(value),
        ) => Some(value),
        _ => None,
    })
}

/// A point of `length` bytes: bare, as a DER OCTET STRING, or as a BIT STRING without unused bits. Tokens differ.
fn unwrapped(value: &[u8], length: usize) -> &[u8] {
    let Ok(short) = u8::try_from(length) else { return value };
    let octets = value.strip_prefix(&[0x04, short]);
    let bits = value.strip_prefix(&[0x03, short.saturating_add(1), 0]);
    octets.or(bits).filter(|inner| inner.len() == length).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_in_each_form_that_tokens_give_it() {
        let point: Vec<u8> = (0..32).collect();
        let with = |prefix: &[u8]| [prefix, &point].concat();
        for value in [with(&[]), with(&[4, 32]), with(&[3, 33, 0])] {
            assert_eq!(unwrapped(&value, 32), point);
        }
        for value in [with(&[4, 31]), with(&[3, 33, 1]), with(&[5, 32])] {
            assert_eq!(unwrapped(&value, 32), value);
        }
        // A bare point that begins like a wrapped one is not cut.
        let odd = [&[4, 32], &point[2..]].concat();
        assert_eq!(unwrapped(&odd, 32), odd);
    }
}
