//! The secret that filter and service share, and the keys derived from it.
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Kind, RevocationKey};

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// The salt of the extract step, as long as HMAC-SHA-256's output.
const SALT: &[u8; 32] = b"portcullis shared secret salt v1";

/// The shared secret: at least 32 bytes, the same in the filter's environment and in the service's secret file. Both
/// remove white space at its ends, so that a file's last newline is not part of the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared secret has {0} bytes, but needs at least {min}", min = Secret::MIN_BYTES)]
pub struct SecretTooShort(pub usize);

/// Identifies which of several live secrets made a message. Public: it reveals nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretId(pub [u8; 8]);

/// The keys derived from one secret (HKDF-SHA-256, RFC 5869). The HMAC states are keyed once, here, and cloned per use.
#[derive(Clone)]
pub struct DerivedKeys {
    id: SecretId,
    pepper: HmacSha256,
    request: HmacSha256,
    reply: HmacSha256,
    cache: HmacSha256,
    seal: [u8; 32],
}

impl Secret {
    pub const MIN_BYTES: usize = 32;

    /// # Errors
    /// Fewer than [`Secret::MIN_BYTES`] bytes remain without white space at the ends.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretTooShort> {
        let trimmed = bytes.trim_ascii();
        if trimmed.len() < Self::MIN_BYTES {
            return Err(SecretTooShort(trimmed.len()));
        }
        Ok(Self(trimmed.to_vec()))
    }

    /// A key for a use of the service alone, which the filter never derives: HKDF with its label.
    pub fn derive_key(&self, label: &[u8]) -> [u8; 32] {
        mac_of(&mac_of(SALT, &[&self.0]), &[label, &[1]])
    }

    pub fn derive(&self) -> DerivedKeys {
        // HKDF-SHA-256 (RFC 5869) for outputs of one block: extract is HMAC(salt, secret), expand is HMAC(extracted,
        // label ‖ 1). Written out because the hkdf crate's `expand` can fail and these cannot; a test compares them
        // with that crate.
        let extracted = mac_of(SALT, &[&self.0]);
        let expand = |label: &[u8]| mac_of(&extracted, &[label, &[1]]);
        let [a, b, c, d, e, f, g, h, ..] = expand(b"secret id");
        DerivedKeys {
            id: SecretId([a, b, c, d, e, f, g, h]),
            pepper: keyed(&expand(b"revocation key pepper")),
            request: keyed(&expand(b"check request mac")),
            reply: keyed(&expand(b"check reply mac")),
            cache: keyed(&expand(b"shared verdict mac")),
            seal: expand(b"operator notes seal"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl DerivedKeys {
    pub fn id(&self) -> SecretId {
        self.id
    }

    /// The name under which a revocation is stored: `HMAC-SHA-256(pepper, version ‖ kind ‖ len ‖ iss ‖ len ‖ id)`, its
    /// first 128 bits. `issuer` and `id` are the unescaped strings; lengths are 64-bit big-endian. A step-up is that of the
    /// session with this id.
    pub fn revocation_key(&self, kind: Kind, issuer: &str, id: &[u8]) -> RevocationKey {
        if kind == Kind::StepUp {
            return self.step_up_key(self.revocation_key(Kind::Session, issuer, id));
        }
        let mut mac = self.pepper.clone();
        mac.update(&[1, kind.code()]);
        mac.update(&(issuer.len() as u64).to_be_bytes());
        mac.update(issuer.as_bytes());
        mac.update(&(id.len() as u64).to_be_bytes());
        mac.update(id);
        RevocationKey(truncated(mac))
    }

    /// The name of the demand that the user of a session logs in again, from the key of that session or token:
    /// `HMAC-SHA-256(pepper, version ‖ kind ‖ key)`, its first 128 bits. A report that names a session by its key alone can
    /// lead to a demand.
    pub fn step_up_key(&self, session: RevocationKey) -> RevocationKey {
        let mut mac = self.pepper.clone();
        mac.update(&[1, Kind::StepUp.code()]);
        mac.update(&session.0);
        RevocationKey(truncated(mac))
    }

    /// A 128-bit MAC for data that one proxy stores for itself (shared data). Parts are joined with their lengths.
    pub fn cache_mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.cache.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        truncated(mac)
    }

    /// The AES-256-GCM key that encrypts the operator's notes stored beside a revocation.
    pub fn seal_key(&self) -> &[u8; 32] {
        &self.seal
    }

    pub(crate) fn request_mac(&self) -> HmacSha256 {
        self.request.clone()
    }

    pub(crate) fn reply_mac(&self) -> HmacSha256 {
        self.reply.clone()
    }
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DerivedKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

fn keyed(key: &[u8; 32]) -> HmacSha256 {
    // HMAC accepts keys of every length, and a key of a whole block cannot fail by type.
    let mut block = hmac::digest::Key::<HmacSha256>::default();
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    HmacSha256::new(&block)
}

fn mac_of(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn truncated(mac: HmacSha256) -> [u8; 16] {
    let whole = mac.finalize().into_bytes();
    let mut out = [0u8; 16];
    for (to, from) in out.iter_mut().zip(whole) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_and_the_last_newline_is_not_counted() {
        assert_eq!(Secret::new(&[b'x'; 31]), Err(SecretTooShort(31)));
        let mut with_newline = vec![b'x'; 31];
        with_newline.push(b'\n');
        assert_eq!(Secret::new(&with_newline), Err(SecretTooShort(31)));
        with_newline[31] = b'x';
        with_newline.push(b'\n');
        assert_eq!(Secret::new(&with_newline), Secret::new(&[b'x'; 32]));
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new(&[b'q'; 40]).unwrap();
        assert!(!format!("{secret:?} {:?}", secret.derive()).contains("qq"));
    }

    #[test]
    fn names_differ_by_kind_issuer_and_id_and_cannot_be_shifted_across_fields() {
        let derived = Secret::new(&[1; 32]).unwrap().derive();
        let names = [
            derived.revocation_key(Kind::User, "ab", b"c"),
            derived.revocation_key(Kind::User, "a", b"bc"),
            derived.revocation_key(Kind::Session, "ab", b"c"),
            derived.revocation_key(Kind::StepUp, "ab", b"c"),
            Secret::new(&[2; 32]).unwrap().derive().revocation_key(Kind::User, "ab", b"c"),
        ];
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(names[0], derived.revocation_key(Kind::User, "ab", b"c"));
    }

    #[test]
    fn the_derivation_is_hkdf() {
        let hkdf = hkdf::Hkdf::<Sha256>::new(Some(SALT), &[5; 40]);
        let mut id = [0; 32];
        hkdf.expand(b"secret id", &mut id).unwrap();
        assert_eq!(Secret::new(&[5; 40]).unwrap().derive().id().0, id[..8]);
        let mut seal = [0; 32];
        hkdf.expand(b"operator notes seal", &mut seal).unwrap();
        assert_eq!(Secret::new(&[5; 40]).unwrap().derive().seal_key(), &seal);
        assert_eq!(Secret::new(&[5; 40]).unwrap().derive_key(b"operator notes seal"), seal);
    }

    // A fixed value, to detect a change of the derivation: it would lose every stored revocation.
    #[test]
    fn the_derivation_is_pinned() {
        let derived = Secret::new(b"0123456789abcdef0123456789abcdef").unwrap().derive();
        let key = derived.revocation_key(Kind::User, "https://issuer.example", b"alice");
        assert_eq!(key.to_string(), "TUWCQOlBWgvQvfJRr6uiyA");
    }
}
