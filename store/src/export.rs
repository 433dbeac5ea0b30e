//! The whole contents of a store that does not change meanwhile, for another store that they are copied to.
use std::fmt::Debug;

use wire::RevocationKey;

use crate::{AuditEntry, AuditId, Claim, Ending, SessionName, StoreError, StoreId, SubjectName};

/// A store that no service uses. Its methods block.
pub trait Export: Debug + Send + Sync {
    fn id(&self) -> StoreId;

    /// About how many names there are.
    ///
    /// # Errors
    /// The store cannot be read.
    fn count(&self) -> Result<u64, StoreError>;

    /// About `limit` names in the store's own order, and what the next page begins after. A name may be given twice.
    ///
    /// # Errors
    /// The store cannot be read.
    fn names(&self, after: Option<&[u8]>, limit: usize) -> Result<(Vec<ExportName>, Option<Vec<u8>>), StoreError>;

    /// `None`: it is absent, or has expired.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, name: &ExportName) -> Result<Option<Exported>, StoreError>;

    /// At most `limit` entries of the audit log after this id, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn audit(&self, after: AuditId, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportName {
    Revocation(RevocationKey),
    Session(SessionName),
    Subject(SubjectName),
    /// Its digest.
    Mark(String),
}

/// Expiries and other times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// An expiry of `None`: never.
    Revocation {
        ending: Ending,
        sealed: Vec<u8>,
        expires: Option<u64>,
    },
    Session(Box<ExportedSession>),
    /// The sids of a subject, with their expiries.
    Subject(Vec<(String, u64)>),
    Mark {
        claim: Claim,
        expires: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedSession {
    pub sealed: Vec<u8>,
    pub access: Vec<u8>,
    pub refresh: Option<[u8; 32]>,
    pub previous: Option<[u8; 32]>,
    /// When the refresh token was replaced last, and how often it was.
    pub replaced: u64,
    pub refreshes: u64,
    pub used: u64,
    pub ends: u64,
    pub expires: u64,
    /// In milliseconds. 0: none.
    pub idle: u64,
    pub ended: Option<String>,
}
