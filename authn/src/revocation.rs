//! Revocation of one token: the keys to ask about, the answers, how long they stay fresh, and the
//! picture of all revocations that a feed gives.
mod feed;
mod key_cache;
mod query;
pub(crate) mod retention;
mod settings;

pub(crate) use feed::FeedWord;
pub use feed::{CHUNK, FeedSettings, Known, Picture};
pub(crate) use key_cache::KeyCache;
pub use query::{KeyPosition, RevocationQuery, Verdict};
pub(crate) use query::{Whose, keys};
pub use settings::{RegionSettings, Revocation};
