//! The store on Redis, as the options of the service describe it, and its events as metrics.
use std::time::Duration;

use store::{Observer, WriteError};
use store_redis::{Config, MirrorConfig};

use crate::Options;
use crate::app::metrics::Metrics;

pub fn config(options: &Options) -> Config {
    let mirror = options.mirror_redis.clone().map(|redis| MirrorConfig {
        redis,
        store_id: options.mirror_store_id,
        min_replicas: options.mirror_min_replicas.unwrap_or(options.min_replicas),
    });
    Config {
        redis: options.redis.clone(),
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

impl Observer for Metrics {
    fn read(&self, took: Duration) {
        self.redis_seconds.observe(took.as_secs_f64());
    }

    fn revocation_lag(&self, lag: Duration) {
        self.revocation_lag_seconds.observe(lag.as_secs_f64());
    }

    fn revocation_failed(&self, error: &WriteError) {
        self.revocation_failed(error);
    }

    fn ready(&self, ready: bool) {
        self.store_ready(ready);
    }

    fn evicted(&self, entries: u64) {
        self.evicted(entries);
    }

    fn mirror_ready(&self, ready: bool) {
        self.mirror_ready(ready);
    }

    fn mirror_written(&self, confirmed: bool) {
        self.mirror_written(confirmed);
    }

    fn mirror_behind(&self, names: usize) {
        self.mirror_behind(names);
    }
}
