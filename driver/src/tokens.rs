//! The verified tokens of a configuration, shared by all threads: several token caches, each with its own lock.
use std::sync::{Arc, Mutex, PoisonError};

use authn::decide::Verified;

use crate::token_cache::{TokenCache, tail_hash};

/// A token that is larger than this part of the whole is not kept: it would displace a large part of all others.
const LARGEST_SHARE: usize = 64;
/// With this many parts, the largest token takes a quarter of its part.
const MAX_SHARDS: usize = LARGEST_SHARE / 4;

/// A token's hash selects its cache, so that threads rarely contend for one lock.
#[derive(Debug)]
pub struct Tokens {
    shards: Box<[Mutex<TokenCache>]>,
    seed: u64,
}

impl Tokens {
    /// Room for `tokens` of `most_bytes` together, in at most `shards` parts. No part is so small that a token which
    /// would fit into one cache does not fit into its part.
    pub fn new(tokens: usize, most_bytes: usize, seed: u64, shards: usize) -> Self {
        let largest = most_bytes.checked_div(LARGEST_SHARE).unwrap_or(0);
        let shards = shards.clamp(1, MAX_SHARDS);
        let part = |whole: usize| whole.div_ceil(shards);
        let cache = || Mutex::new(TokenCache::new(part(tokens), part(most_bytes), largest));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_do_not_make_the_largest_token_smaller() {
        for shards in [1, 16, 64, 1024] {
            let tokens = Tokens::new(16_384, 16 << 20, 7, shards);
            assert!(tokens.shards.len() <= MAX_SHARDS && !tokens.shards.is_empty());
            for shard in &tokens.shards {
                let shard = shard.lock().unwrap();
                assert_eq!(shard.largest(), (16 << 20) / LARGEST_SHARE);
                assert!(shard.most_bytes() >= 4 * shard.largest());
            }
        }
    }
}
