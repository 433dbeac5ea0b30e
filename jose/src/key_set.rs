//! The keys of one issuer, and the choice of those that may have signed a token.
use std::fmt;

use crate::alg::Algorithm;
use crate::key::Key;
use crate::key::engine::VerifyingKey;
use crate::printable::printable;

/// The most signatures checked for one token.
pub const MAX_CANDIDATES: usize = 8;
/// The most keys of one algorithm without a key id. Together with one key that has the token's kid, all of them are
/// still tried.
pub const MAX_KEYS_WITHOUT_KID: usize = MAX_CANDIDATES - 1;

/// At most [`MAX_CANDIDATES`] keys: the one with the token's kid first.
pub type Candidates<'k, V> = std::iter::Flatten<std::array::IntoIter<Option<&'k Key<V>>, MAX_CANDIDATES>>;

#[derive(Clone)]
pub struct KeySet<V> {
    keys: Vec<Key<V>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("more than {0} keys are not supported")]
    TooMany(usize),
    #[error("this key is listed twice, with the same key id (`kid`), algorithms and `issuer`")]
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

/// Why no key of a set can have signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCandidate {
    #[error("no key has the token's kid")]
    UnknownKid,
    /// The token has no kid, and the set has no key.
    #[error("there is no key")]
    NoKey,
    /// There are keys for the kid, but none of them is for the token's algorithm.
    #[error("the key is not for the token's alg")]
    OtherAlgorithm,
}

impl<V: VerifyingKey> KeySet<V> {
    /// # Errors
    /// See [`KeySetError`]. An empty set is valid: an issuer may have no keys for a time.
    pub fn new(keys: Vec<Key<V>>) -> Result<Self, KeySetError> {
        let mut set = Self::default();
        keys.into_iter().try_for_each(|key| set.add(key))?;
        Ok(set)
    }

    /// Several keys may have the same key id: some providers publish them like this while they change keys. All keys
    /// for a token's key id are tried. A key that would exceed the limit is refused here, where the error can be
    /// reported.
    ///
    /// # Errors
    /// See [`KeySetError`]. The set does not change.
    pub fn add(&mut self, key: Key<V>) -> Result<(), KeySetError> {
        if self.keys.len() >= V::MAX_KEYS {
            return Err(KeySetError::TooMany(V::MAX_KEYS));
        }
        if self.keys.iter().any(|other| other.is_same(&key)) {
            return Err(KeySetError::DuplicateKey);
        }
        for &algorithm in key.algorithms() {
            let of = |kid: Option<&str>| {
                self.keys.iter().filter(|other| other.verifies(algorithm) && other.kid() == kid).count()
            };
            // A key without a key id matches every key id.
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
}

impl<V> KeySet<V> {
    pub fn keys(&self) -> &[Key<V>] {
        &self.keys
    }

    /// The keys to try for a token: those with its kid, then those without a kid. For a token without a kid, all keys.
    /// Always only keys for `alg`. If there are more than [`MAX_CANDIDATES`] (only for a token without a kid), the
    /// first ones are tried.
    ///
    /// # Errors
    /// See [`NoCandidate`]. An RSA public key never verifies HS256, and a secret never RS256.
    pub fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Result<Candidates<'_, V>, NoCandidate> {
        let named = self.keys.iter().filter(|key| key.kid().is_some() && (kid.is_none() || key.kid() == kid));
        let unnamed = self.keys.iter().filter(|key| key.kid().is_none());
        let mut answering = named.chain(unnamed).peekable();
        if answering.peek().is_none() {
            return Err(if kid.is_some() { NoCandidate::UnknownKid } else { NoCandidate::NoKey });
        }
        let mut found = [const { None }; MAX_CANDIDATES];
        for (slot, key) in found.iter_mut().zip(answering.filter(|key| key.verifies(alg))) {
            *slot = Some(key);
        }
        if found.iter().all(Option::is_none) {
            return Err(NoCandidate::OtherAlgorithm);
        }
        Ok(found.into_iter().flatten())
    }
}

impl<V> fmt::Debug for KeySet<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys).finish()
    }
}

impl<V> Default for KeySet<V> {
    fn default() -> Self {
        Self { keys: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
