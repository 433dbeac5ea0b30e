//! A set of revocation keys that may also contain others, at about one in 65,000: a binary fuse filter with 16 bits.
//!
//! ```text
//! seed u64 | segment length u32 | segment count × segment length u32 | fingerprint u16 × n     an empty set has no bytes
//! ```
//! Fingerprints are little-endian, other integers big-endian.
use xorf::{BinaryFuse16, Filter as _};

use crate::RevocationKey;

use super::MAX_MEMBERSHIP_BYTES;

const HEAD: usize = 16;

/// Never misses a key that it was made of.
#[derive(Debug, Clone, Default)]
pub struct Membership(Option<BinaryFuse16>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("there are too many keys for one piece")]
    TooLarge,
    #[error("the bytes are not a membership")]
    Malformed,
    #[error("the filter could not be built")]
    NotBuilt,
}

impl Membership {
    /// # Errors
    /// [`MembershipError::TooLarge`] if its bytes would exceed [`MAX_MEMBERSHIP_BYTES`].
    pub fn of(keys: impl IntoIterator<Item = RevocationKey>) -> Result<Self, MembershipError> {
        let mut hashes: Vec<u64> = keys.into_iter().map(|key| hash(&key)).collect();
        // Equal hashes would make the construction fail.
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.is_empty() {
            return Ok(Self(None));
        }
        let filter = BinaryFuse16::try_from(&hashes).map_err(|_| MembershipError::NotBuilt)?;
        let membership = Self(Some(filter));
        if membership.len_bytes() > MAX_MEMBERSHIP_BYTES {
            return Err(MembershipError::TooLarge);
        }
        Ok(membership)
    }

    /// False proves that the key is not in the set.
    pub fn may_contain(&self, key: &RevocationKey) -> bool {
        self.0.as_ref().is_some_and(|filter| filter.contains(&hash(key)))
    }

    /// The length of its bytes, which is about its size in memory.
    pub fn len_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |filter| filter.fingerprints.len().saturating_mul(2).saturating_add(HEAD))
    }

    pub fn write(&self, bytes: &mut Vec<u8>) {
        let Some(filter) = &self.0 else { return };
        bytes.extend_from_slice(&filter.descriptor.seed.to_be_bytes());
        bytes.extend_from_slice(&filter.descriptor.segment_length.to_be_bytes());
        bytes.extend_from_slice(&filter.descriptor.segment_count_length.to_be_bytes());
        for fingerprint in &filter.fingerprints {
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }

    /// # Errors
    /// The bytes were not made by [`Membership::write`]. What is accepted can be searched without reading out of bounds.
    pub fn read(bytes: &[u8]) -> Result<Self, MembershipError> {
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        if bytes.len() > MAX_MEMBERSHIP_BYTES {
            return Err(MembershipError::TooLarge);
        }
        Self::parse(bytes).map(|filter| Self(Some(filter))).ok_or(MembershipError::Malformed)
    }

    fn parse(bytes: &[u8]) -> Option<BinaryFuse16> {
        let (seed, bytes) = bytes.split_first_chunk::<8>()?;
        let (segment_length, bytes) = bytes.split_first_chunk::<4>()?;
        let (segment_count_length, bytes) = bytes.split_first_chunk::<4>()?;
        let segment_length = u32::from_be_bytes(*segment_length);
        let segment_count_length = u32::from_be_bytes(*segment_count_length);
        let (fingerprints, rest) = bytes.as_chunks::<2>();
        // A key's three places are in three successive segments, of which the first begins below
        // `segment_count_length`. Within a segment, a place is chosen by the mask.
        let segments = segment_count_length.checked_rem(segment_length)? == 0 && segment_length.is_power_of_two();
        let most = segment_length.checked_mul(2)?.checked_add(segment_count_length)?;
        if !segments || segment_count_length == 0 || !rest.is_empty() || usize::try_from(most) != Ok(fingerprints.len())
        {
            return None;
        }
        // The crate keeps the type of the descriptor to itself, but not its fields.
        let mut filter = BinaryFuse16::try_from(&[0u64][..]).ok()?;
        filter.descriptor.seed = u64::from_be_bytes(*seed);
        filter.descriptor.segment_length = segment_length;
        filter.descriptor.segment_length_mask = segment_length.checked_sub(1)?;
        filter.descriptor.segment_count_length = segment_count_length;
        filter.fingerprints = fingerprints.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
        Some(filter)
    }
}

impl PartialEq for Membership {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                one.descriptor.seed == other.descriptor.seed
                    && one.descriptor.segment_count_length == other.descriptor.segment_count_length
                    && one.fingerprints == other.fingerprints
            }
            _ => false,
        }
    }
}

impl Eq for Membership {}

/// The last half: the first bytes choose the piece. A key is an HMAC, so its bits need no mixing.
fn hash(key: &RevocationKey) -> u64 {
    let [_, _, _, _, _, _, _, _, rest @ ..] = key.0;
    u64::from_be_bytes(rest)
}
