//! The identity of a store. It tells an empty store from a store in which nothing is revoked.
use std::fmt;
use std::str::FromStr;

/// 128 random bits. Prints as 32 hexadecimal digits.
///
/// An id is written once, when a store is created, and is never used again. A store without its id has lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a store id is 32 lower-case hexadecimal digits")]
pub struct StoreIdError;

impl StoreId {
    /// `bytes` must be random.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for StoreId {
    type Err = StoreIdError;

    fn from_str(text: &str) -> Result<Self, StoreIdError> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(StoreIdError);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| StoreIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_ids_print_and_parse_back() {
        let id = StoreId::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "xyz", "000102030405060708090A0B0C0D0EFF", "+00102030405060708090a0b0c0d0eff"] {
            assert_eq!(bad.parse::<StoreId>(), Err(StoreIdError), "{bad}");
        }
    }
}
