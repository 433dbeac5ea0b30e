//! A map of key ids to certificates or public keys in PEM, as Google publishes them: certificates for Firebase, public keys
//! for its Identity-Aware Proxy. Its shape tells it from a key set.
use super::{MAX_MEMBERS, Parsed};
use crate::alg::Algorithm;
use crate::json::{Json, Object};
use crate::key::engine::VerifyingKey;
use crate::key::{Key, KeyError};
use crate::key_set::KeySet;
use crate::printable::printable;

/// The document as such a map: an object of strings, one of them PEM at least. A key set is none, since its `keys` is an
/// array.
pub(super) fn map<'d, 't>(document: &'d Json<'t>) -> Option<&'d Object<'t>> {
    let members = document.as_object()?;
    let is_pem = |value: &Json<'_>| {
        let text = value.as_str().unwrap_or_default();
        is_block(text, CERTIFICATE) || is_block(text, PUBLIC_KEY)
    };
    let are_strings = members.iter().all(|(_, value)| value.as_str().is_some());
    (are_strings && members.iter().any(|(_, value)| is_pem(value))).then_some(members)
}

pub(super) fn parse<V: VerifyingKey>(map: &Object<'_>, allowed: &[Algorithm]) -> Parsed<V> {
    let beyond = map.len().saturating_sub(MAX_MEMBERS);
    let mut parsed = Parsed { keys: KeySet::default(), left_out: Vec::new(), beyond, for_encryption: Vec::new() };
    for (kid, value) in map.iter().take(MAX_MEMBERS) {
        let name = format!("kid {}", printable(kid));
        match key(kid, value.as_str().unwrap_or_default(), allowed) {
            Ok(key) => {
                if let Err(error) = parsed.keys.add(key) {
                    parsed.left_out.push(format!("{name}: {error}"));
                }
            }
            Err(KeyError::CertificateNotForSignatures) => parsed.for_encryption.push(name),
            Err(why) => parsed.left_out.push(format!("{name}: {why}")),
        }
    }
    parsed
}

fn key<V: VerifyingKey>(kid: &str, pem: &str, allowed: &[Algorithm]) -> Result<Key<V>, KeyError> {
    match is_block(pem, CERTIFICATE) {
        true => Key::from_certificate(pem, kid.to_owned(), allowed),
        false => Key::from_pem(pem, Some(kid.to_owned()), None, allowed),
    }
}

fn is_block(text: &str, begin: &str) -> bool {
    text.trim_ascii_start().starts_with(begin)
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----";
