//! [`RevocationLog`] on Redis: the reader follows the logs of all buckets.
use async_trait::async_trait;
use store::{Place, RevocationLog, ShardNews, StoreError};
use wire::RevocationKey;

use crate::RedisStore;
use crate::entry::Bucket;

/// A shard is a bucket.
#[async_trait]
impl RevocationLog for RedisStore {
    fn shards(&self) -> usize {
        Bucket::all().count()
    }

    fn shard_of(&self, key: &RevocationKey) -> usize {
        Bucket::of(key.0).index()
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        self.reader.follow(places, &self.quick_writer).await
    }
}
