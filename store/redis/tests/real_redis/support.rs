//! A store that a test opens, as one instance of the service would.
use std::sync::Arc;
use std::time::Duration;

use ::store::{
    Ending, Ends, InForce, Place, Revocation, RevocationLog as _, RevocationStore, ShardNews, StoreError,
    StoredRevocation, Unobserved, WriteError,
};
use store_redis::{Allow, Config, RedisOptions, RedisStore};
use tokio::runtime::Runtime;
use wire::{Answer, Kind, RevocationKey, Secret};

pub use crate::redis::{Redis, eventually};

const ISSUER: &str = "https://issuer.example";
const DAY: Duration = Duration::from_secs(86_400);

/// Creates the store if there is none.
pub fn config(redis: &Redis) -> Config {
    Config {
        redis: RedisOptions::single(&redis.url()),
        store_id: None,
        create: true,
        allow: Allow::default(),
        redis_timeout: Duration::from_millis(200),
        confirm_timeout: Duration::from_secs(2),
        min_replicas: 0,
        require_disk: true,
        future_iat_tolerance_seconds: 1,
        mirror: None,
    }
}

pub struct Instance {
    runtime: Runtime,
    store: Arc<RedisStore>,
}

pub fn started() -> (Redis, Instance) {
    let redis = Redis::start();
    let instance = Instance::start(&config(&redis));
    (redis, instance)
}

impl Instance {
    pub fn start(config: &Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = runtime.block_on(RedisStore::open(config, Arc::new(Unobserved))).unwrap();
        Self { runtime, store: Arc::new(store) }
    }

    pub fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        self.runtime.block_on(self.store.check(keys))
    }

    pub fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    pub fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        self.runtime.block_on(self.store.follow(places))
    }

    pub fn show(&self, key: RevocationKey) -> Option<StoredRevocation> {
        self.runtime.block_on(self.store.show(key)).unwrap()
    }

    pub fn try_revoke(&self, kind: Kind, id: &str) -> Result<InForce, WriteError> {
        let ends = if kind.is_simply_dead() { Ends::ForGood } else { Ends::IssuedUntilNow };
        let revocation = Revocation { key: key(kind, id), ends, sealed: b"note".to_vec(), ttl: Some(DAY) };
        Ok(self.runtime.block_on(self.store.revoke(vec![revocation]))?.in_force[0])
    }

    pub fn revoke(&self, kind: Kind, id: &str) {
        self.try_revoke(kind, id).unwrap();
    }

    /// The `before` of the revocation.
    pub fn revoke_until_now(&self, kind: Kind, id: &str) -> u64 {
        match self.try_revoke(kind, id).unwrap().ending {
            Ending::Before(before) => before,
            Ending::Dead => panic!("it is not for good"),
        }
    }
}

pub fn key(kind: Kind, id: &str) -> RevocationKey {
    Secret::new(&[1; 32]).unwrap().derive().revocation_key(kind, ISSUER, id.as_bytes())
}

/// The name of an entry in Redis.
pub fn entry(key: RevocationKey) -> String {
    format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])
}

pub fn now() -> u64 {
    ::store::clock::unix_seconds()
}
