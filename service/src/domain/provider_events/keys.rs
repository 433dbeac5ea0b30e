//! A provider's key set: what of it is used, and the result of checking a signature with it.
use jose::jwks::{self, MAX_MEMBERS, Parsed};
use jose::{Algorithm, Key};

use crate::base::signature::AwsLcKey;

pub type KeySet = jose::KeySet<AwsLcKey>;

/// The result of checking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    Good,
    Bad,
    /// The key exists, but is not for this algorithm.
    OtherAlgorithm,
    /// No such key: a newer set may have it.
    UnknownKey,
}

/// Unusable keys are left out: a set may have keys for other uses too. A published key is never used as a secret.
///
/// # Errors
/// It is not a key set, or is too large; the last good one stays.
pub fn parse(text: &[u8]) -> Result<Parsed<AwsLcKey>, String> {
    let parsed = jwks::parse(text, &Algorithm::ALL, false).map_err(|error| error.to_string())?;
    match parsed.beyond {
        0 => Ok(parsed),
        // The key that signs could be one that was not read.
        _ => Err(format!("it has more than {MAX_MEMBERS} keys")),
    }
}

/// Without a key id, any key of the algorithm may have signed. A key without one matches any key id.
pub fn judge(keys: &KeySet, kid: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Judged {
    let Ok(mut candidates) = keys.candidates(kid, algorithm) else {
        let is_known = kid.is_some() && keys.keys().iter().any(|key| key.kid() == kid);
        return if is_known { Judged::OtherAlgorithm } else { Judged::UnknownKey };
    };
    match candidates.any(|key| key.verify(algorithm, message, signature).is_ok()) {
        true => Judged::Good,
        false => Judged::Bad,
    }
}

/// Whether both have the same keys in the same order.
pub fn are_same(keys: &KeySet, others: &KeySet) -> bool {
    let (keys, others): (&[Key<_>], &[Key<_>]) = (keys.keys(), others.keys());
    keys.len() == others.len() && keys.iter().zip(others).all(|(key, other)| key.is_same(other))
}

#[cfg(test)]
mod tests;
