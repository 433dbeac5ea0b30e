//! The audit log: encrypted entries in the order in which they were appended, bounded by age and number.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{StoreError, WriteError};

#[async_trait]
pub trait AuditLog: fmt::Debug + Send + Sync {
    /// Adds an entry and removes what is over `bounds`.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn append(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError>;

    /// At most `limit` entries, oldest first, none of them older than `max_age`.
    ///
    /// # Errors
    /// The log cannot be read.
    async fn page(&self, from: AuditFrom, limit: usize, max_age: Duration) -> Result<Vec<AuditEntry>, StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditBounds {
    /// Older entries are not listed any more. The store removes them some time later.
    pub max_age: Duration,
    /// The store may keep some hundreds more.
    pub max_entries: usize,
}

impl AuditBounds {
    /// The most that the service asks a store to keep. More would fill a store in memory, in which no revocation could be
    /// written any more.
    pub const MAX_ENTRIES: usize = 1_000_000;
}

/// Which entries a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFrom {
    /// The first ones after this id, which need not exist.
    After(AuditId),
    /// The newest ones.
    Last,
}

/// Ids grow with each entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditId {
    /// When it was appended, in Unix milliseconds by the store's clock.
    pub millis: u64,
    pub number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: AuditId,
    pub sealed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is <Unix milliseconds>[-<number>]")]
pub struct AuditIdError;

/// `<Unix milliseconds>-<number>`.
impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// The number may be left out, and is 0 then.
impl FromStr for AuditId {
    type Err = AuditIdError;

    fn from_str(text: &str) -> Result<Self, AuditIdError> {
        let (millis, number) = text.split_once('-').unwrap_or((text, "0"));
        let parse = |part: &str| match !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()) {
            true => part.parse().map_err(|_| AuditIdError),
            false => Err(AuditIdError),
        };
        Ok(Self { millis: parse(millis)?, number: parse(number)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_back() {
        let id = AuditId { millis: 1_700_000_000_000, number: 3 };
        assert_eq!(id.to_string(), "1700000000000-3");
        assert_eq!("1700000000000-3".parse(), Ok(id));
        assert_eq!("1700000000000".parse(), Ok(AuditId { number: 0, ..id }));
        for bad in ["", "-", "1-", "-1", "1-2-3", "+", "$", "(1", "1 ", "99999999999999999999"] {
            assert_eq!(bad.parse::<AuditId>(), Err(AuditIdError), "{bad}");
        }
    }
}
