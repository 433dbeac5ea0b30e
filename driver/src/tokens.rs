//! The verified tokens of a configuration, shared by all threads: token caches side by side, each behind its own lock.
use std::sync::{Arc, Mutex, PoisonError};

use authn::decide::Verified;

use crate::token_cache::{TokenCache, tail_hash};

/// A token's cache is chosen by its hash, so that threads seldom meet at one lock.
#[derive(Debug)]
pub struct Tokens {
    shards: Box<[Mutex<TokenCache>]>,
    seed: u64,
}

impl Tokens {
    /// Room for `tokens` of `most_bytes` together, in `shards` parts.
    pub fn new(tokens: usize, most_bytes: usize, seed: u64, shards: usize) -> Self {
        let shards = shards.max(1);
        let part = |whole: usize| whole.div_ceil(shards);
        let cache = || Mutex::new(TokenCache::new(part(tokens), part(most_bytes)));
        Self { shards: std::iter::repeat_with(cache).take(shards).collect(), seed }
    }

    pub fn find(&self, token: &[u8]) -> Option<Arc<Verified>> {
        let hash = tail_hash(self.seed, token);
        self.shard(hash)?.lock().unwrap_or_else(PoisonError::into_inner).find(hash, token).map(Arc::clone)
    }

    pub fn insert(&self, verified: Arc<Verified>) {
        let hash = tail_hash(self.seed, verified.token());
        if let Some(shard) = self.shard(hash) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, verified);
        }
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<TokenCache>> {
        // The low bits choose the set within a shard.
        let shards = u64::try_from(self.shards.len()).unwrap_or(1);
        self.shards.get(usize::try_from((hash >> 32).checked_rem(shards)?).ok()?)
    }
}
