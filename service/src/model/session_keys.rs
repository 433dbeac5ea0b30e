//! The ring of keys of sessions: they derive names in the store, make and recognise tokens, and encrypt data. The first key
//! is used for new sessions, each of the others for the sessions that it made.
//!
//! A session's name and data, and its tokens' tags, are all under one key of the ring, and the tag says which.
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::Secret;
use wire::opaque_token::{OpaqueToken, Purpose};

const LABEL: &[u8] = b"sessions";
const FORM: u8 = 1;

/// 128 random bits. Prints as 22 characters of base64url; not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid(pub [u8; 16]);

/// The index of a key in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAt(usize);

/// The store keeps this MAC in the place of the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenMac(pub [u8; 32]);

/// The name of a session or subject in the store: 128 bits that reveal no identity. Prints as 22 characters of base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(pub [u8; 16]);

pub struct Ring(Vec<hmac::Key>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

/// The use of a MAC. Codes are part of stored names: never reuse one.
#[derive(Clone, Copy)]
enum Use {
    SessionName = 1,
    SubjectName = 2,
    AccessTag = 3,
    RefreshTag = 4,
    Token = 5,
    TokenId = 6,
    Seal = 7,
    StatusPage = 8,
}

impl Ring {
    pub fn new(secrets: &[Secret]) -> Self {
        Self(secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &secret.derive_key(LABEL))).collect())
    }

    /// The key for new sessions.
    pub fn first(&self) -> KeyAt {
        KeyAt(0)
    }

    pub fn all(&self) -> impl Iterator<Item = KeyAt> + use<> {
        (0..self.0.len()).map(KeyAt)
    }

    /// A random token and its tag.
    pub fn make_token(&self, at: KeyAt, purpose: Purpose, sid: Sid) -> Result<OpaqueToken, NoRandomness> {
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|_| NoRandomness)?;
        let mut token = OpaqueToken { purpose, sid: sid.0, random, tag: [0; 16] };
        token.tag = self.tag(at, &token);
        Ok(token)
    }

    /// The key that made this token. `None`: it is not ours, or its key has left the ring.
    pub fn maker_of(&self, token: &OpaqueToken) -> Option<KeyAt> {
        self.all().find(|at| constant_time::verify_slices_are_equal(&self.tag(*at, token), &token.tag).is_ok())
    }

    pub fn token_mac(&self, at: KeyAt, token: &OpaqueToken) -> TokenMac {
        TokenMac(self.mac(at, Use::Token, &[&[purpose_code(token.purpose)], &token.sid, &token.random]))
    }

    /// The token's `jti`: identifies it without revealing it.
    pub fn token_id(&self, at: KeyAt, token: &OpaqueToken) -> String {
        let id = self.mac(at, Use::TokenId, &[&[purpose_code(token.purpose)], &token.sid, &token.random]);
        URL_SAFE_NO_PAD.encode(id.first_chunk::<16>().unwrap_or(&[0; 16]))
    }

    pub fn session_name(&self, at: KeyAt, sid: Sid) -> Name {
        Name::of(&self.mac(at, Use::SessionName, &[&sid.0]))
    }

    pub fn subject_name(&self, at: KeyAt, issuer: &str, subject: &str) -> Name {
        let length = (issuer.len() as u64).to_be_bytes();
        Name::of(&self.mac(at, Use::SubjectName, &[&length, issuer.as_bytes(), subject.as_bytes()]))
    }

    /// A page of a status list of this issuer.
    pub fn status_page_name(&self, at: KeyAt, issuer: &str, list: u16, page: u32) -> Name {
        let parts: [&[u8]; 3] = [&list.to_be_bytes(), &page.to_be_bytes(), issuer.as_bytes()];
        Name::of(&self.mac(at, Use::StatusPage, &parts))
    }

    /// Encrypts `text` for `context` alone: moved to another context it does not open.
    ///
    /// `1 | nonce 12 | ciphertext and tag`, AES-256-GCM. Each context has a key of its own, so that random nonces never
    /// come near the number at which one might repeat.
    pub fn seal(&self, at: KeyAt, context: &str, mut text: Vec<u8>) -> Result<Vec<u8>, NoRandomness> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoRandomness)?;
        let sealing = self.sealing(at, context).ok_or(NoRandomness)?;
        sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut text)
            .map_err(|_| NoRandomness)?;
        let mut sealed = vec![FORM];
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// `None`: sealed under another key or for another context, or changed since.
    pub fn open(&self, at: KeyAt, context: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let rest = sealed.strip_prefix(&[FORM])?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.sealing(at, context)?.open_in_place(nonce, Aad::from(context), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn sealing(&self, at: KeyAt, context: &str) -> Option<LessSafeKey> {
        let key = self.mac(at, Use::Seal, &[context.as_bytes()]);
        UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
    }

    fn tag(&self, at: KeyAt, token: &OpaqueToken) -> [u8; 16] {
        let purpose = match token.purpose {
            Purpose::Access => Use::AccessTag,
            Purpose::Refresh => Use::RefreshTag,
        };
        *self.mac(at, purpose, &[&token.sid, &token.random]).first_chunk().unwrap_or(&[0; 16])
    }

    /// Every use has its own first byte, and parts of fixed length come before the variable one.
    fn mac(&self, at: KeyAt, of: Use, parts: &[&[u8]]) -> [u8; 32] {
        // Only this ring makes an index, so there is a key at it.
        let Some(key) = self.0.get(at.0) else { return [0; 32] };
        let mut mac = hmac::Context::with_key(key);
        mac.update(&[1, of as u8]);
        for part in parts {
            mac.update(part);
        }
        let mut whole = [0; 32];
        whole.copy_from_slice(mac.sign().as_ref());
        whole
    }
}

impl Sid {
    pub fn random() -> Result<Self, NoRandomness> {
        let mut sid = [0; 16];
        rand::fill(&mut sid).map_err(|_| NoRandomness)?;
        Ok(Self(sid))
    }
}

impl std::str::FromStr for Sid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ())?;
        Ok(Self(bytes.try_into().map_err(|_| ())?))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({self})")
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({})", self.0.len())
    }
}

fn purpose_code(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Access => 1,
        Purpose::Refresh => 2,
    }
}

impl Name {
    fn of(mac: &[u8; 32]) -> Self {
        Self(*mac.first_chunk().unwrap_or(&[0; 16]))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

#[cfg(test)]
mod tests;
