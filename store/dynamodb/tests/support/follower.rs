//! A reader that follows the log, as the service has one.
use std::collections::BTreeSet;
use std::sync::Arc;

use store::{Change, Place, RevocationLog, ShardNews, StoreError, Stores};
use wire::RevocationKey;

pub struct Follower {
    log: Arc<dyn RevocationLog>,
    places: Vec<Option<Place>>,
    pub keys: BTreeSet<RevocationKey>,
}

impl Follower {
    pub fn new(stores: &Stores) -> Self {
        let log = Arc::clone(&stores.log);
        let places = vec![None; log.shards()];
        Self { log, places, keys: BTreeSet::new() }
    }

    /// Whether the reader has everything now.
    pub async fn step(&mut self) -> Result<bool, StoreError> {
        let news = self.log.follow(&self.places).await?;
        let mut is_whole = true;
        for (shard, news) in news.into_iter().enumerate() {
            match news {
                ShardNews::Nothing => {}
                ShardNews::Gap => {
                    self.places[shard] = None;
                    is_whole = false;
                }
                ShardNews::Entries(entries) => {
                    for entry in entries {
                        match entry.change {
                            Change::Begun => {}
                            Change::Revoked { key, .. } => drop(self.keys.insert(key)),
                            Change::Lifted { key } => drop(self.keys.remove(&key)),
                        }
                        self.places[shard] = Some(entry.place);
                    }
                }
                ShardNews::Whole { revocations, place, .. } => {
                    self.keys.retain(|key| self.log.shard_of(key) != shard);
                    self.keys.extend(revocations.iter().map(|(key, _)| *key));
                    self.places[shard] = Some(place);
                }
            }
        }
        Ok(is_whole)
    }
}
