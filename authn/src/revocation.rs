//! Revocation of one token: the keys to ask about, the answers, and how long they stay fresh.
mod key_cache;
mod query;
pub(crate) mod retention;
mod settings;

pub(crate) use key_cache::KeyCache;
pub use query::{RevocationQuery, Verdict};
pub(crate) use query::{Whose, keys};
pub use settings::Revocation;
