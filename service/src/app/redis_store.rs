//! The store on Redis, as the options of the service describe it.
use store_redis::{Config, MirrorConfig};

use crate::Options;

pub fn config(options: &Options) -> Config {
    let mirror = options.mirror_redis().map(|redis| MirrorConfig {
        redis,
        store_id: options.mirror_redis_store_id,
        min_replicas: options.mirror_redis_min_replicas.unwrap_or(options.min_replicas),
    });
    Config {
        redis: options.redis.clone().into(),
        store_id: options.store_id,
        create: options.create_store,
        allow: options.allow(),
        redis_timeout: options.redis_timeout,
        confirm_timeout: options.confirm_timeout,
        min_replicas: options.min_replicas,
        require_disk: options.require_disk,
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
        mirror,
    }
}
