//! The public key of an X.509 certificate (RFC 5280 section 4.1). It is trusted as a bare key is, because of where it came
//! from: no chain is followed, and names, dates and the certificate's own signature are not looked at.
use spki::ObjectIdentifier;
use spki::der::asn1::AnyRef;
use spki::der::{Decode as _, Reader as _, Result as DerResult, SliceReader, Tag, TagNumber, Tagged as _};

use super::{KeyError, PublicKey, pem};

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// The first bit of the first byte, behind the count of unused bits (RFC 5280 section 4.2.1.3).
const DIGITAL_SIGNATURE: u8 = 0x80;

/// The parts of a certificate that are used.
struct Certificate<'c> {
    /// The SubjectPublicKeyInfo, in DER.
    spki: &'c [u8],
    /// Its key may verify signatures of data. Without the extension it may.
    signs: bool,
}

/// # Errors
/// It is no single certificate in PEM, or its key is not for signatures or not of a known kind.
pub(super) fn public_key(text: &str) -> Result<PublicKey, KeyError> {
    let der = pem::block(text, "CERTIFICATE").map_err(|_| KeyError::CertificateMalformed)?;
    let certificate = read(&der).ok().flatten().ok_or(KeyError::CertificateMalformed)?;
    if !certificate.signs {
        return Err(KeyError::CertificateNotForSignatures);
    }
    pem::public_key_of(certificate.spki)
}

/// `None` and errors mean the same: it is no certificate in DER.
fn read(der: &[u8]) -> DerResult<Option<Certificate<'_>>> {
    let Some(certificate) = sequence(AnyRef::from_der(der)?) else { return Ok(None) };
    let mut certificate = SliceReader::new(certificate)?;
    let Some(signed) = sequence(AnyRef::decode(&mut certificate)?) else { return Ok(None) };
    let algorithm = AnyRef::decode(&mut certificate)?.tag();
    let signature = AnyRef::decode(&mut certificate)?.tag();
    certificate.finish()?;
    if (algorithm, signature) != (Tag::Sequence, Tag::BitString) {
        return Ok(None);
    }
    let mut signed = SliceReader::new(signed)?;
    // Version 1 says nothing.
    if Tag::peek(&signed)? == context(0) {
        AnyRef::decode(&mut signed)?;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for expected in [Tag::Integer, Tag::Sequence, Tag::Sequence, Tag::Sequence, Tag::Sequence] {
        if AnyRef::decode(&mut signed)?.tag() != expected {
            return Ok(None);
        }
    }
    let spki = signed.tlv_bytes()?;
    let mut signs = true;
    while !signed.is_finished() {
        let part = AnyRef::decode(&mut signed)?;
        if part.tag() == context(3) {
            let Some(extensions) = sequence(AnyRef::from_der(part.value())?) else { return Ok(None) };
            signs &= may_sign(extensions)?;
        }
    }
    Ok(Some(Certificate { spki, signs }))
}

fn may_sign(extensions: &[u8]) -> DerResult<bool> {
    let mut extensions = SliceReader::new(extensions)?;
    let mut signs = true;
    while !extensions.is_finished() {
        let Some(extension) = sequence(AnyRef::decode(&mut extensions)?) else { return Ok(false) };
        let mut extension = SliceReader::new(extension)?;
        if ObjectIdentifier::decode(&mut extension)? != KEY_USAGE {
            continue;
        }
        let mut value = AnyRef::decode(&mut extension)?;
        if value.tag() == Tag::Boolean {
            value = AnyRef::decode(&mut extension)?;
        }
        let usage = AnyRef::from_der(value.value())?;
        signs &=
            usage.tag() == Tag::BitString && usage.value().get(1).is_some_and(|byte| byte & DIGITAL_SIGNATURE != 0);
    }
    Ok(signs)
}

/// The contents of a sequence.
fn sequence(value: AnyRef<'_>) -> Option<&[u8]> {
    (value.tag() == Tag::Sequence).then(|| value.value())
}

const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

#[cfg(test)]
mod tests;
