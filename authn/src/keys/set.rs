//! The keys of one issuer, and which of them a token may have been signed with.
use super::Key;
use crate::alg::Algorithm;
use crate::cause::Cause;
use crate::fault::Rejection;
use crate::jwks::printable;

pub const MAX_KEYS: usize = 64;
/// The most signatures checked for one token.
pub const MAX_CANDIDATES: usize = 8;
/// Of one algorithm: with one more key that has the token's kid, all of them are still tried.
pub const MAX_KEYS_WITHOUT_KID: usize = MAX_CANDIDATES - 1;

/// At most [`MAX_CANDIDATES`] keys: the one with the token's kid first.
pub type Candidates<'k> = std::iter::Flatten<std::array::IntoIter<Option<&'k Key>, MAX_CANDIDATES>>;

#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("more than {MAX_KEYS} keys are not taken")]
    TooMany,
    #[error("this key is there twice, with the same key id (`kid`), algorithms and `issuer`")]
    DuplicateKey,
    #[error(
        "more keys for {algorithm} answer to the key id (`kid`) {kid}, those without a key id included, than the \
         {MAX_CANDIDATES} that are tried for one token"
    )]
    TooManyOfKid { kid: String, algorithm: Algorithm },
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
        let mut set = Self::default();
        keys.into_iter().try_for_each(|key| set.add(key))?;
        Ok(set)
    }

    /// Several keys may have one key id, as some providers have it while they change keys. Whatever key id a token has, all
    /// keys that answer to it are tried: one that could be one too many is refused here, where it can be said.
    ///
    /// # Errors
    /// See [`KeySetError`]. The set stays as it was.
    pub fn add(&mut self, key: Key) -> Result<(), KeySetError> {
        if self.keys.len() >= MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        if self.keys.iter().any(|other| other.is_same(&key)) {
            return Err(KeySetError::DuplicateKey);
        }
        for &algorithm in key.algorithms() {
            let of = |kid: Option<&str>| {
                self.keys.iter().filter(|other| other.verifies(algorithm) && other.kid() == kid).count()
            };
            // One without a key id answers to every one.
            let fullest = match key.kid() {
                Some(kid) => Some(kid),
                None => self.keys.iter().filter_map(Key::kid).max_by_key(|kid| of(Some(kid))),
            };
            let unnamed = of(None);
            if key.kid().is_none() && unnamed >= MAX_KEYS_WITHOUT_KID {
                return Err(KeySetError::TooManyWithoutKid(algorithm));
            }
            if let Some(kid) = fullest
                && of(Some(kid)).saturating_add(unnamed) >= MAX_CANDIDATES
            {
                return Err(KeySetError::TooManyOfKid { kid: printable(kid), algorithm });
            }
        }
        self.keys.push(key);
        Ok(())
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
    pub fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Result<Candidates<'_>, Rejection> {
        let named = self.keys.iter().filter(|key| key.kid().is_some() && (kid.is_none() || key.kid() == kid));
        let unnamed = self.keys.iter().filter(|key| key.kid().is_none());
        let mut answering = named.chain(unnamed).peekable();
        if answering.peek().is_none() {
            let cause = if kid.is_some() { Cause::KidUnknown } else { Cause::NoKey };
            return Err(Rejection::new(cause));
        }
        let mut found = [None; MAX_CANDIDATES];
        for (slot, key) in found.iter_mut().zip(answering.filter(|key| key.verifies(alg))) {
            *slot = Some(key);
        }
        if found.iter().all(Option::is_none) {
            return Err(Rejection::new(Cause::AlgNotOfKey));
        }
        Ok(found.into_iter().flatten())
    }
}
