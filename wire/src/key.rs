//! The name of a revocation, and the answer stored under it.
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The kinds of revocations. Codes are part of the stored name: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One token: iss and [`token_id_from_jti`]; without any of [`TOKEN_ID_CLAIMS`], iss and [`token_id_from_signing_input`].
    Token,
    /// iss and sid, or the issuer's own claim for it.
    Session,
    /// iss and sub, or the issuer's own claim for it.
    User,
    /// iss and client_id, otherwise azp, or the issuer's own claim for it.
    Client,
    /// iss and the RFC 7638 thumbprint of the key that verified.
    SigningKey,
    /// iss alone.
    Issuer,
    /// A session, whose user must log in again; or a token without session. See [`crate::DerivedKeys::step_up_key`].
    StepUp,
}

/// 128 bits that name a revocation and contain no identity. Prints as 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevocationKey(pub [u8; 16]);

/// The service's answer for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Live,
    Dead,
    /// Dead if issued before this time (whole seconds since 1970).
    Before(u64),
}

/// The claims that identify a token; the first one present counts: `jti` (RFC 7519), and Entra's `uti`. Filter and
/// service must agree on them, whatever an issuer's configuration says.
pub const TOKEN_ID_CLAIMS: [&str; 2] = ["jti", "uti"];

/// The id of a token with a jti (an empty one counts) or an equivalent claim: `j` and the jti's bytes, unescaped.
pub fn token_id_from_jti(jti: &str) -> Vec<u8> {
    // The first byte separates a jti that was chosen to look like a digest from that digest.
    [b"j", jti.as_bytes()].concat()
}

/// The id of a token without jti: `h` and the SHA-256 of its signing input, `header.payload` as it was sent. Not of the
/// whole token, since an ECDSA signature can be altered and stay valid.
pub fn token_id_from_signing_input(signing_input: &[u8]) -> Vec<u8> {
    [b"h".as_slice(), &Sha256::digest(signing_input)].concat()
}

impl Kind {
    /// Do many tokens share this key?
    pub const fn is_shared(self) -> bool {
        match self {
            Kind::Client | Kind::SigningKey | Kind::Issuer => true,
            Kind::Token | Kind::Session | Kind::User | Kind::StepUp => false,
        }
    }

    pub const ALL: [Kind; 7] =
        [Kind::Token, Kind::Session, Kind::User, Kind::Client, Kind::SigningKey, Kind::Issuer, Kind::StepUp];

    pub fn code(self) -> u8 {
        match self {
            Kind::Token => 1,
            Kind::Session => 2,
            Kind::User => 3,
            Kind::Client => 4,
            Kind::SigningKey => 5,
            Kind::Issuer => 6,
            Kind::StepUp => 7,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Token => "token",
            Kind::Session => "session",
            Kind::User => "user",
            Kind::Client => "client",
            Kind::SigningKey => "key",
            Kind::Issuer => "issuer",
            Kind::StepUp => "step_up",
        }
    }

    /// Tokens, sessions and signing keys end for good. A user, client or issuer continues with the next login, so only
    /// tokens issued before the revocation are dead. A step-up is about tokens whose login was before it.
    pub fn is_simply_dead(self) -> bool {
        match self {
            Kind::Token | Kind::Session | Kind::SigningKey => true,
            Kind::User | Kind::Client | Kind::Issuer | Kind::StepUp => false,
        }
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    pub const ALL: Self = Self(0x7f);

    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        kinds.into_iter().fold(Self::default(), |all, kind| Self(all.0 | bit(kind)))
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & bit(kind) != 0
    }

    pub fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn byte(self) -> u8 {
        self.0
    }

    pub fn from_byte(byte: u8) -> Self {
        Self(byte & Self::ALL.0)
    }
}

fn bit(kind: Kind) -> u8 {
    match kind {
        Kind::Token => 1,
        Kind::Session => 1 << 1,
        Kind::User => 1 << 2,
        Kind::Client => 1 << 3,
        Kind::SigningKey => 1 << 4,
        Kind::Issuer => 1 << 5,
        Kind::StepUp => 1 << 6,
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Answer {
    /// Is a token issued at `issued` (whole seconds since 1970) dead by this answer?
    pub fn ends(self, issued: u64) -> bool {
        match self {
            Answer::Live => false,
            Answer::Dead => true,
            Answer::Before(before) => issued < before,
        }
    }
}

impl fmt::Display for RevocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for RevocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationKey({self})")
    }
}

impl FromStr for RevocationKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ())?;
        Ok(Self(bytes.try_into().map_err(|_| ())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_ends_what_was_issued_earlier_and_nothing_else() {
        assert!(Answer::Before(100).ends(99));
        assert!(!Answer::Before(100).ends(100));
        assert!(Answer::Dead.ends(u64::MAX));
        assert!(!Answer::Live.ends(0));
    }

    #[test]
    fn a_jti_that_looks_like_a_digest_is_not_that_digest() {
        let digest = token_id_from_signing_input(b"header.payload");
        assert_eq!((digest.len(), digest[0]), (33, b'h'));
        assert_eq!(token_id_from_jti("abc"), b"jabc");
        assert_eq!(token_id_from_jti(""), b"j");
        let as_text = String::from_utf8_lossy(&digest).into_owned();
        assert_ne!(token_id_from_jti(&as_text), digest);
    }

    #[test]
    fn keys_print_and_parse_back() {
        let key = RevocationKey([7; 16]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("short".parse::<RevocationKey>(), Err(()));
    }
}
