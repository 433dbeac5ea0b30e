//! A published key set (RFC 7517 section 5), or a map of key ids to PEM. A key that cannot be used is left out by name. A
//! document that is no key set is refused whole.
use serde_json::{Map, Value};

use crate::alg::Algorithm;
use crate::base64url;
use crate::json::Json;
use crate::key::engine::VerifyingKey;
use crate::key::{Key, KeyError, PRIVATE_MEMBERS, is_for_verifying};
use crate::key_set::{KeySet, KeySetError};
use crate::printable::printable;

mod pem_map;

/// The longest key set or discovery document that is read.
pub const MAX_BYTES: usize = 256 * 1024;
/// The most members of `keys` that are looked at.
pub const MAX_MEMBERS: usize = 128;

/// A key set as far as it can be used.
#[derive(Debug, Clone)]
pub struct Parsed<V> {
    pub keys: KeySet<V>,
    /// Each key that was left out, and why. Names its index and key id, never its material.
    pub left_out: Vec<String>,
    /// How many members there are beyond [`MAX_MEMBERS`], none of which was looked at.
    pub beyond: usize,
    /// Keys that are not for signatures: nothing is wrong with them.
    pub for_encryption: Vec<String>,
}

/// The most keys that one line names.
const MOST_NAMED: usize = 8;

impl<V> Parsed<V> {
    /// How many keys were left out, and the reasons for the first of them: one line for the log.
    pub fn summary(&self) -> Option<String> {
        let count = self.left_out.len().saturating_add(self.beyond);
        let of = count.saturating_add(self.keys.keys().len());
        let mut named = self.left_out.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
        let unnamed = self.left_out.len().saturating_sub(MOST_NAMED);
        if unnamed > 0 {
            named.push(format!("and {unnamed} more"));
        }
        if self.beyond > 0 {
            named.push(format!("{} beyond the first {MAX_MEMBERS} members, which alone are looked at", self.beyond));
        }
        (count > 0).then(|| format!("{count} of {of} keys left out: {}", named.join("; ")))
    }
}

/// It is no key set. The last good one stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is empty")]
    Empty,
    #[error("it is compressed by {0}, though only `identity` was asked for and is read")]
    Compressed(&'static str),
    #[error("it is in UTF-16, and JSON is UTF-8 (RFC 8259 section 8.1)")]
    Utf16,
    #[error("it is HTML or XML and not JSON: a page for people perhaps, to sign in or with an error")]
    Markup,
    #[error("it is neither an object with an array `keys` nor a map of key ids to PEM")]
    NoKeys,
}

/// A body as the JSON in it: without a byte order mark, which a reader may ignore (RFC 8259 section 8.1).
///
/// # Errors
/// It is too long, or its first bytes show that it is not JSON.
pub fn json_text(body: &[u8]) -> Result<&[u8], JwksError> {
    if body.len() > MAX_BYTES {
        return Err(JwksError::TooLong);
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match text.trim_ascii_start() {
        [] => Err(JwksError::Empty),
        [0x1f, 0x8b, ..] => Err(JwksError::Compressed("gzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(JwksError::Compressed("zstd")),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [b'{', 0, ..] | [0, b'{', ..] => Err(JwksError::Utf16),
        [b'<', ..] => Err(JwksError::Markup),
        _ => Ok(text),
    }
}

/// `symmetric` takes `oct` keys as well, for a set that only this reader can fetch.
///
/// # Errors
/// See [`JwksError`]. An empty set is no error: its issuer has withdrawn all of its keys.
pub fn parse<V: VerifyingKey>(text: &[u8], allowed: &[Algorithm], symmetric: bool) -> Result<Parsed<V>, JwksError> {
    let text = json_text(text)?;
    // The strict reader first: it refuses a repeated member, of which two readers may take different values.
    let document = Json::parse(text).map_err(|error| JwksError::NotJson(error.to_string()))?;
    if let Some(map) = pem_map::map(&document) {
        return Ok(pem_map::parse(map, allowed));
    }
    document.as_object().and_then(|document| document.get("keys")?.as_array()).ok_or(JwksError::NoKeys)?;
    let document: Value = serde_json::from_slice(text).map_err(|error| JwksError::NotJson(error.to_string()))?;
    let members = document.get("keys").and_then(Value::as_array).ok_or(JwksError::NoKeys)?;
    let beyond = members.len().saturating_sub(MAX_MEMBERS);
    let mut parsed = Parsed { keys: KeySet::default(), left_out: Vec::new(), beyond, for_encryption: Vec::new() };
    for (index, member) in members.iter().take(MAX_MEMBERS).enumerate() {
        let name = match member.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("keys[{index}] (kid {})", printable(kid)),
            None => format!("keys[{index}]"),
        };
        match key(member, allowed, symmetric) {
            Ok(key) => match parsed.keys.add(key) {
                // Nothing is lost.
                Ok(()) | Err(KeySetError::DuplicateKey) => {}
                Err(error) => parsed.left_out.push(format!("{name}: {error}")),
            },
            Err(_) if is_for_encryption(member) => parsed.for_encryption.push(name),
            Err(why) => parsed.left_out.push(format!("{name}: {why}")),
        }
    }
    Ok(parsed)
}

fn key<V: VerifyingKey>(member: &Value, allowed: &[Algorithm], symmetric: bool) -> Result<Key<V>, String> {
    let Value::Object(jwk) = member else { return Err("is not an object".to_owned()) };
    if symmetric && jwk.get("kty").and_then(Value::as_str) == Some("oct") {
        return secret(jwk, allowed);
    }
    Key::from_jwk(jwk, None, None, allowed).map_err(|error: KeyError| error.to_string())
}

/// True when the key says that it is for encryption (RFC 7517 sections 4.2 to 4.4; RFC 7518 section 4.1). Providers publish
/// such keys beside those that sign. False for an exposed private key: that is worth a warning in every case.
fn is_for_encryption(member: &Value) -> bool {
    const OPERATIONS: [&str; 6] = ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"];
    let text = |name: &str| member.get(name).and_then(Value::as_str);
    let is_exposed = text("kty") != Some("oct") && PRIVATE_MEMBERS.iter().any(|name| member.get(name).is_some());
    let operations = member.get("key_ops").and_then(Value::as_array).filter(|operations| !operations.is_empty());
    let by_operations = operations.is_some_and(|operations| {
        operations.iter().all(|operation| operation.as_str().is_some_and(|name| OPERATIONS.contains(&name)))
    });
    let by_algorithm = text("alg").is_some_and(|alg| {
        ["RSA1_5", "RSA-OAEP", "ECDH-ES", "PBES2-"].iter().any(|family| alg.starts_with(family))
            || alg == "dir"
            || (alg.starts_with('A') && alg.ends_with("KW"))
    });
    !is_exposed && (text("use") == Some("enc") || (text("use").is_none() && (by_operations || by_algorithm)))
}

fn secret<V: VerifyingKey>(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Key<V>, String> {
    let text = |name: &str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}` is not a string")),
    };
    is_for_verifying(jwk).map_err(|error| error.to_string())?;
    let alg = match text("alg")? {
        None => None,
        Some(name) => Some(Algorithm::from_name(name).ok_or("its `alg` is unknown here")?),
    };
    let bytes = base64url::decode(text("k")?.ok_or("has no `k`")?).map_err(|_| "`k` is not base64url")?;
    Key::from_secret(&bytes, text("kid")?.map(str::to_owned), alg, allowed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
