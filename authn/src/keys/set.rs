//! The keys of one issuer, and which of them a token may have been signed with.
use super::Key;
use crate::alg::Algorithm;
use crate::cause::Cause;
use crate::fault::Denial;

pub const MAX_KEYS: usize = 64;
/// The most signatures checked for one token.
pub const MAX_CANDIDATES: usize = 4;
/// Of one algorithm: with one more key that has the token's kid, all of them are still tried.
pub const MAX_KEYS_WITHOUT_KID: usize = 3;

/// At most [`MAX_CANDIDATES`] keys: the one with the token's kid first.
pub type Candidates<'k> = std::iter::Flatten<std::array::IntoIter<Option<&'k Key>, MAX_CANDIDATES>>;

#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("{0} keys, and at most {MAX_KEYS} are taken")]
    TooMany(usize),
    #[error("two keys for {algorithm} have the key id (`kid`) {kid:?}")]
    DuplicateKid { kid: String, algorithm: Algorithm },
    #[error("a key for {0} without key id (`kid`) is there twice")]
    DuplicateKey(Algorithm),
    #[error(
        "more than {MAX_KEYS_WITHOUT_KID} keys for {0} have no key id (`kid`), and no more signatures than \
         {MAX_CANDIDATES} are tried for one token"
    )]
    TooManyWithoutKid(Algorithm),
}

impl KeySet {
    /// # Errors
    /// See [`KeySetError`]. No key at all is no error: an issuer's key set may be empty for a time.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeySetError> {
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        for &algorithm in Algorithm::ALL {
            let mut seen: Vec<&Key> = Vec::new();
            for key in keys.iter().filter(|key| key.verifies(algorithm)) {
                match key.kid() {
                    Some(kid) if seen.iter().any(|other| other.kid() == Some(kid)) => {
                        return Err(KeySetError::DuplicateKid { kid: kid.to_owned(), algorithm });
                    }
                    None if seen.iter().any(|other| other.kid().is_none() && other.thumbprint == key.thumbprint) => {
                        return Err(KeySetError::DuplicateKey(algorithm));
                    }
                    _ => seen.push(key),
                }
            }
            if seen.iter().filter(|key| key.kid().is_none()).count() > MAX_KEYS_WITHOUT_KID {
                return Err(KeySetError::TooManyWithoutKid(algorithm));
            }
        }
        Ok(Self { keys })
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys to try for a token: those with its kid, those configured without one, and for a token without kid all of
    /// them; in each case only those for `alg`. Of more than [`MAX_CANDIDATES`] (a token without kid) the first count.
    ///
    /// # Errors
    /// `KeyUnknown` where no key answers to the kid, `AlgNotAllowed` where keys do but none of them is for `alg`: an RSA
    /// public key never verifies HS256, and a secret never RS256.
    pub fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Result<Candidates<'_>, Denial> {
        let named = self.keys.iter().filter(|key| key.kid().is_some() && (kid.is_none() || key.kid() == kid));
        let unnamed = self.keys.iter().filter(|key| key.kid().is_none());
        let mut answering = named.chain(unnamed).peekable();
        if answering.peek().is_none() {
            let cause = if kid.is_some() { Cause::KidUnknown } else { Cause::NoKey };
            return Err(Denial::new(cause));
        }
        let mut found = [None; MAX_CANDIDATES];
        for (slot, key) in found.iter_mut().zip(answering.filter(|key| key.verifies(alg))) {
            *slot = Some(key);
        }
        if found.iter().all(Option::is_none) {
            return Err(Denial::new(Cause::AlgNotOfKey));
        }
        Ok(found.into_iter().flatten())
    }

    /// By RFC 7638 thumbprint: whether a key that has verified a token is still there.
    pub fn get_by_thumbprint(&self, thumbprint: &[u8; 32]) -> Option<&Key> {
        self.keys.iter().find(|key| key.thumbprint() == thumbprint)
    }
}
