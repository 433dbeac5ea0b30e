//! Revocation of one token: the keys that are asked about, the answers, and how long they count.
mod key_cache;
mod query;
pub(crate) mod retention;
mod settings;

pub(crate) use key_cache::KeyCache;
pub use query::{RevocationQuery, Verdict};
pub(crate) use query::{Whose, keys};
pub use settings::Revocation;
