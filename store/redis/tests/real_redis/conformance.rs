//! The store on Redis passes the suite of the crate `store`, each case against a redis-server of its own, alone and as a
//! Cluster.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::sync::Arc;
use std::time::Duration;

use ::store::conformance::Fixture;
use ::store::{Stores, Unobserved};
use async_trait::async_trait;
use store_redis::{Allow, Config, Mode, RedisOptions, RedisStore, create_store};

use crate::redis::Redis;

const LIMIT: Duration = Duration::from_secs(2);
const TOLERANCE_SECONDS: u64 = 3;

pub struct Store(Redis, RedisOptions);

pub async fn created(redis: Redis, mode: Mode) -> Store {
    let options = RedisOptions { mode, ..RedisOptions::single(&redis.url()) };
    create_store(&options, LIMIT, Allow::default(), None).await.unwrap();
    Store(redis, options)
}

#[async_trait]
impl Fixture for Store {
    async fn open(&self) -> Stores {
        let config = Config {
            redis: self.1.clone(),
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
        self.0.ask(&["FLUSHALL"]);
    }

    fn future_iat_tolerance(&self) -> Duration {
        Duration::from_secs(TOLERANCE_SECONDS)
    }
}

mod single {
    ::store::conformance_tests!(crate::conformance::created(crate::redis::Redis::start(), store_redis::Mode::Single));
}

/// One primary, which is read as one of many is: bucket by bucket.
mod cluster {
    ::store::conformance_tests!(crate::conformance::created(
        crate::redis::Redis::start_cluster(),
        store_redis::Mode::Cluster
    ));
}
