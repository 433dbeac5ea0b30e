//! The note beside a revocation: its subject, its reason and its author, encrypted with AES-256-GCM under a key of the shared
//! secret and bound to the revocation's key. A dump of the store reveals no identity.
//!
//! `1 | secret id 8 | nonce 12 | ciphertext and tag`
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use wire::{DerivedKeys, RevocationKey, SecretId};

const FORM: u8 = 1;

/// What an operator can read back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    pub kind: String,
    pub iss: String,
    /// jti, sid, sub, client_id or thumbprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// base64url, for a token without jti.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_input_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub by: String,
    /// Unix seconds.
    pub at: u64,
    /// Unix seconds; absent if it holds until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Encrypts notes, with one key for each live secret, in their order.
pub struct NoteCipher(Vec<(SecretId, LessSafeKey)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the note could not be sealed")]
pub struct NoteError;

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl NoteCipher {
    /// # Errors
    /// Never for keys of 32 bytes; AWS-LC says so by a result.
    pub fn new(secrets: &[DerivedKeys]) -> Result<Self, NoteError> {
        let keys = secrets.iter().map(|derived| {
            let key = UnboundKey::new(&AES_256_GCM, derived.seal_key()).map_err(|_| NoteError)?;
            Ok((derived.id(), LessSafeKey::new(key)))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// NoteCipher under the secret at `secret`, the one that `key` was derived from.
    ///
    /// # Errors
    /// No such secret, or no randomness.
    pub fn seal(&self, secret: usize, key: RevocationKey, note: &Note) -> Result<Vec<u8>, NoteError> {
        let (id, sealing) = self.0.get(secret).ok_or(NoteError)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoteError)?;
        let mut text = serde_json::to_vec(note).map_err(|_| NoteError)?;
        sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&key.0), &mut text)
            .map_err(|_| NoteError)?;
        Ok([&[FORM], id.0.as_slice(), &nonce, &text].concat())
    }

    /// `None`: sealed under a secret that is not live any more, for another key, or not a note at all.
    pub fn open(&self, key: RevocationKey, sealed: &[u8]) -> Option<Note> {
        let (&form, rest) = sealed.split_first()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, sealing) = self.0.iter().find(|(ours, _)| ours.0 == *id)?;
        if form != FORM {
            return None;
        }
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = sealing.open_in_place(nonce, Aad::from(&key.0), &mut text).ok()?;
        serde_json::from_slice(opened).ok()
    }
}

impl fmt::Debug for NoteCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteCipher({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Secret;

    fn derived(byte: u8) -> DerivedKeys {
        Secret::new(&[byte; 32]).unwrap().derive()
    }

    fn note() -> Note {
        Note {
            kind: "user".into(),
            iss: "https://issuer.example".into(),
            id: Some("alice".into()),
            signing_input_sha256: None,
            reason: Some("left".into()),
            by: "admin".into(),
            at: 1,
            until: Some(2),
        }
    }

    #[test]
    fn opens_what_it_sealed_for_that_key_only() {
        let cipher = NoteCipher::new(&[derived(1), derived(2)]).unwrap();
        let key = RevocationKey([7; 16]);
        let sealed = cipher.seal(1, key, &note()).unwrap();
        assert_eq!(cipher.open(key, &sealed), Some(note()));
        assert_eq!(cipher.open(RevocationKey([8; 16]), &sealed), None);
        assert_eq!(NoteCipher::new(&[derived(1)]).unwrap().open(key, &sealed), None);
        assert!(!sealed.windows(5).any(|window| window == b"alice"));
    }

    #[test]
    fn notices_every_changed_byte() {
        let cipher = NoteCipher::new(&[derived(1)]).unwrap();
        let key = RevocationKey([7; 16]);
        let sealed = cipher.seal(0, key, &note()).unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(cipher.open(key, &bad), None, "byte {at}");
        }
        assert_eq!(cipher.open(key, &[]), None);
    }
}
