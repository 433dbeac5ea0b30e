//! The store on Redis passes the suite of the crate `store`, each case against a redis-server of its own.
use std::sync::Arc;
use std::time::Duration;

use ::store::conformance::Fixture;
use ::store::{Stores, Unobserved};
use async_trait::async_trait;
use store_redis::{Allow, Config, RedisOptions, RedisStore, create_store};

use crate::redis::Redis;

const LIMIT: Duration = Duration::from_secs(2);
const TOLERANCE_SECONDS: u64 = 3;

fn options(redis: &Redis) -> RedisOptions {
    RedisOptions::single(&redis.url())
}

pub async fn redis() -> Redis {
    let redis = Redis::start();
    create_store(&options(&redis), LIMIT, Allow::default(), None).await.unwrap();
    redis
}

#[async_trait]
impl Fixture for Redis {
    async fn open(&self) -> Stores {
        let config = Config {
            redis: options(self),
            store_id: None,
            create: false,
            allow: Allow::default(),
            redis_timeout: LIMIT,
            confirm_timeout: LIMIT,
            min_replicas: 0,
            require_disk: true,
            future_iat_tolerance_seconds: TOLERANCE_SECONDS,
            mirror: None,
        };
        Arc::new(RedisStore::open(&config, Arc::new(Unobserved)).await.unwrap()).into()
    }

    async fn lose(&self) {
        self.ask(&["FLUSHALL"]);
    }

    fn future_iat_tolerance(&self) -> Duration {
        Duration::from_secs(TOLERANCE_SECONDS)
    }
}

::store::conformance_tests!(crate::conformance::redis());
