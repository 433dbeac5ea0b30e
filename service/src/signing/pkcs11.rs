//! Keys that sign in a token (PKCS#11), such as an HSM: their private half is never in our memory.
mod error;
mod module;
mod object;
mod token_key;
mod uri;

pub use error::{Failure, TokenError};
pub use token_key::{Limits, TokenKey, tend};
pub use uri::{Pkcs11Uri, UriError};
