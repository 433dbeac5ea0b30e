//! A revocation as it is stored.
//!
//! ```text
//! expiry in Unix milliseconds (8 bytes; all ones: never) ‖ D ‖ sealed note                          dead
//!                                                          B ‖ Unix seconds (8 bytes) ‖ sealed note dead if issued before
//! ```
use std::time::Duration;

use store::{Ending, InForce, StoredRevocation};
use wire::RevocationKey;

use crate::codec::{Decoder, Encoder};

/// The expiry of what does not expire.
pub const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unix milliseconds, or [`NEVER`].
    pub expires: u64,
    pub ending: Ending,
    pub sealed: Vec<u8>,
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        let to = Encoder::default().number(self.expires);
        match self.ending {
            Ending::Dead => to.byte(b'D'),
            Ending::Before(before) => to.byte(b'B').number(before),
        }
        .rest(&self.sealed)
        .end()
    }

    /// `None`: not ours.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut from = Decoder(value);
        let expires = from.number()?;
        let ending = match from.byte()? {
            b'D' => Ending::Dead,
            b'B' => Ending::Before(from.number()?),
            _ => return None,
        };
        Some(Self { expires, ending, sealed: from.rest().to_vec() })
    }

    /// The stronger of the two, with the longer life. `other` is the newer one, and stays if both are the same.
    pub fn merge(self, other: Entry) -> Self {
        let expires = self.expires.max(other.expires);
        let strongest = if self.ending > other.ending { self } else { other };
        Self { expires, ..strongest }
    }

    /// Whether `other` is not stronger, and would live for at most `slack` longer.
    pub fn covers(&self, other: &Entry, slack: Duration) -> bool {
        let slack = u64::try_from(slack.as_millis()).unwrap_or(0);
        let lives =
            self.expires == NEVER || (other.expires != NEVER && self.expires.saturating_add(slack) >= other.expires);
        self.ending >= other.ending && lives
    }

    pub fn in_force(&self, now: u64) -> InForce {
        InForce { ending: self.ending, expires_in: left(self.expires, now) }
    }

    pub fn stored(self, key: RevocationKey, now: u64) -> StoredRevocation {
        let InForce { ending, expires_in } = self.in_force(now);
        StoredRevocation { key, answer: Some(ending.into()), sealed: self.sealed, expires_in }
    }
}

/// The time that is left. `None`: it does not expire.
pub fn left(expires: u64, now: u64) -> Option<Duration> {
    (expires != NEVER).then(|| Duration::from_millis(expires.saturating_sub(now)))
}

/// The expiry of what lives for `ttl` from `now`. `None`: it does not expire.
pub fn expiry(now: u64, ttl: Option<Duration>) -> u64 {
    let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(NEVER);
    ttl.map_or(NEVER, |ttl| now.saturating_add(millis(ttl)).min(NEVER - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written_or_refused() {
        for (expires, ending) in [(5, Ending::Dead), (NEVER, Ending::Before(7))] {
            let entry = Entry { expires, ending, sealed: b"note".to_vec() };
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
        for strange in [&b""[..], b"12345678", b"12345678X", b"12345678B1234567"] {
            assert_eq!(Entry::decode(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn of_two_the_stronger_stays_and_lives_as_long_as_the_longer() {
        let entry = |expires, ending, note: &[u8]| Entry { expires, ending, sealed: note.to_vec() };
        let dead = entry(5, Ending::Dead, b"old");
        assert_eq!(dead.clone().merge(entry(9, Ending::Before(3), b"new")), entry(9, Ending::Dead, b"old"));
        assert_eq!(dead.merge(entry(NEVER, Ending::Dead, b"new")), entry(NEVER, Ending::Dead, b"new"));
        let before = entry(7, Ending::Before(3), b"old");
        assert_eq!(before.merge(entry(2, Ending::Before(4), b"new")), entry(7, Ending::Before(4), b"new"));
    }

    #[test]
    fn a_time_to_live_never_becomes_endless_by_its_length() {
        assert_eq!(expiry(5, None), NEVER);
        assert_eq!(expiry(5, Some(Duration::MAX)), NEVER - 1);
        assert_eq!((left(NEVER, 5), left(4, 5)), (None, Some(Duration::ZERO)));
    }
}
