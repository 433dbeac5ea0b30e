//! Why a token is no JWS that can be read here. Each variant is a different text in logs.
use std::fmt;

use crate::json::{JsonError, MAX_DEPTH, MAX_MEMBERS};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("the token is empty")]
    Empty,
    #[error("the token is longer than its bound")]
    TooLong,
    #[error("the token is not ASCII")]
    NotAscii,
    #[error("the token has fewer than three segments")]
    TooFewSegments,
    #[error("the token has more than three segments")]
    TooManySegments,
    #[error("the token is encrypted (five segments)")]
    Encrypted,
    #[error("the {0} is empty")]
    EmptySegment(Segment),
    #[error("the {0} is not canonical base64url")]
    NotBase64Url(Segment),
    #[error("the header {0}")]
    Header(ObjectError),
    #[error("the payload {0}")]
    Payload(ObjectError),
    #[error("the header has no alg")]
    AlgMissing,
    #[error("the header's alg is none")]
    AlgNone,
    #[error("the header's alg is unknown")]
    AlgUnknown,
    #[error("the header's {0} is not a string")]
    NotString(Member),
    #[error("the header's kid is too long")]
    KidTooLong,
    #[error("the token holds a nested token (cty)")]
    Nested,
    #[error("the header has {0}")]
    Extension(Extension),
}

/// Why a segment holds no JSON object that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("is not JSON")]
    NotJson,
    #[error("has a member twice in one object")]
    Duplicate,
    #[error("is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("has an object of more than {MAX_MEMBERS} members")]
    TooManyMembers,
    #[error("is not a JSON object")]
    NotObject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    Header,
    Payload,
    Signature,
}

/// A member of the header that must be a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    Alg,
    Kid,
    Typ,
    Cty,
}

/// A member of the header that makes the token something else than a plain JWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// RFC 7515 section 4.1.11: a critical extension that is not understood makes the token invalid. An empty list is
    /// invalid anyway.
    Crit,
    /// RFC 7797: with `b64: false` the payload is signed as it stands, and other verifiers read other claims.
    B64,
    /// RFC 7516: of JWE only. A compressed payload would also be cheap to send and expensive to read.
    Zip,
    Enc,
}

impl Member {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alg => "alg",
            Self::Kid => "kid",
            Self::Typ => "typ",
            Self::Cty => "cty",
        }
    }
}

impl Extension {
    pub const ALL: [Self; 4] = [Self::Crit, Self::B64, Self::Zip, Self::Enc];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Crit => "crit",
            Self::B64 => "b64",
            Self::Zip => "zip",
            Self::Enc => "enc",
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<JsonError> for ObjectError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax => Self::NotJson,
            JsonError::Duplicate => Self::Duplicate,
            JsonError::TooDeep => Self::TooDeep,
            JsonError::TooManyMembers => Self::TooManyMembers,
        }
    }
}
