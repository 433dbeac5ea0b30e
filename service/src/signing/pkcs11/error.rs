//! Why a token does not sign, or does not have a key that could: each names the attribute of the URI to look at.
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cryptoki::error::Error;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("`module-path` {path}: {why}")]
    Module { path: PathBuf, why: String },
    #[error("`token` (or `serial`, `model`, `manufacturer`, `slot-id`): none matches; there are: {0}")]
    NoToken(String),
    #[error("`token` matches {0} tokens: give `serial`, too")]
    Tokens(usize),
    #[error("`pin-source` {path}: {why}")]
    PinFile { path: PathBuf, why: String },
    #[error("`pin-source`: the token refused this PIN ({0}); it is not tried again until the file has another")]
    PinRefused(String),
    #[error("`pin-source`: the token refused this PIN before; it is not tried again until the file has another")]
    PinKnownWrong,
    #[error(
        "`pin-source`: the token allows one more try (CKF_USER_PIN_FINAL_TRY), which is left to you: log in to it with another \
         program, and it counts anew"
    )]
    PinFinalTry,
    #[error("`pin-source`: the token has locked the PIN (CKF_USER_PIN_LOCKED)")]
    PinLocked,
    #[error("`object` or `id`: the token has no such private key")]
    NoObject,
    #[error("`object` or `id` matches {0} private keys: give both")]
    Objects(usize),
    #[error("`object`: {0}")]
    Unfit(&'static str),
    #[error("`object`: its signature does not verify with the public key")]
    Mismatch,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("too many signatures wait for it already")]
    Busy,
    #[error("{}", Brief(.0))]
    Call(#[from] Error),
}

/// The word in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Failed,
    TimedOut,
    Busy,
}

impl TokenError {
    pub fn kind(&self) -> Failure {
        match self {
            TokenError::TimedOut(_) => Failure::TimedOut,
            TokenError::Busy => Failure::Busy,
            TokenError::Module { .. }
            | TokenError::NoToken(_)
            | TokenError::Tokens(_)
            | TokenError::PinFile { .. }
            | TokenError::PinRefused(_)
            | TokenError::PinKnownWrong
            | TokenError::PinFinalTry
            | TokenError::PinLocked
            | TokenError::NoObject
            | TokenError::Objects(_)
            | TokenError::Unfit(_)
            | TokenError::Mismatch
            | TokenError::Call(_) => Failure::Failed,
        }
    }

    /// Whether beginning anew with the module could help.
    pub fn may_be_lost(&self) -> bool {
        matches!(self, TokenError::NoToken(_) | TokenError::NoObject | TokenError::Call(_))
    }
}

/// `C_Sign: DeviceError`. The library's own texts are paragraphs of the standard.
struct Brief<'a>(&'a Error);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Pkcs11(code, function) => write!(f, "C_{function:?}: {code:?}"),
            other => write!(f, "{other}"),
        }
    }
}
