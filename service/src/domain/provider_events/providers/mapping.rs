//! How subjects that do not name a user as tokens do are mapped to one, as the providers file says it.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ProvidersError, present};

/// The formats with one member (RFC 9493 section 3.2), which can name a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappedFormat {
    Account,
    Did,
    Email,
    PhoneNumber,
    Uri,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The tokens' `sub` is the value itself.
    #[serde(default)]
    pub is_sub: bool,
    /// A file, JSON or YAML: an object with the `sub` of each value. It is read again when it changes.
    #[serde(default, deserialize_with = "present")]
    pub file: Option<PathBuf>,
}

impl MappedFormat {
    pub const ALL: [MappedFormat; 5] =
        [MappedFormat::Account, MappedFormat::Did, MappedFormat::Email, MappedFormat::PhoneNumber, MappedFormat::Uri];

    pub fn name(self) -> &'static str {
        match self {
            MappedFormat::Account => "account",
            MappedFormat::Did => "did",
            MappedFormat::Email => "email",
            MappedFormat::PhoneNumber => "phone_number",
            MappedFormat::Uri => "uri",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl Mapping {
    pub(super) fn check(&self, format: MappedFormat) -> Result<(), ProvidersError> {
        match (self.is_sub, &self.file) {
            (true, None) | (false, Some(_)) => Ok(()),
            (true, Some(_)) | (false, None) => {
                Err(ProvidersError::new(format!("subjects.{}", format.name()), "must have `is_sub: true` or a `file`"))
            }
        }
    }
}
