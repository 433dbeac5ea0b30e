//! The store that the options of the service name: on Redis, in a file, or in a table of DynamoDB.
use std::sync::Arc;
use std::time::Duration;

use store::{Observer, Stores};
use store_embedded::{EmbeddedStore, OpenError};
use store_redis::{MirrorConfig, RedisOptionsError, RedisStore};

#[cfg(feature = "dynamodb")]
use crate::NamedStore;
use crate::Options;

#[derive(Debug)]
pub enum OpenedStore {
    Redis(Arc<RedisStore>),
    File(Arc<EmbeddedStore>),
    #[cfg(feature = "dynamodb")]
    DynamoDb(Arc<store_dynamodb::DynamoStore>),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
    #[error(transparent)]
    File(#[from] OpenError),
    #[cfg(feature = "dynamodb")]
    #[error(transparent)]
    DynamoDb(#[from] store_dynamodb::CreateError),
    #[error("stopped while the store was opened")]
    Stopped,
}

impl OpenedStore {
    /// Redis is tried once, and need not be reachable yet. A file must be there and whole.
    ///
    /// # Errors
    /// See [`OpenStoreError`].
    pub async fn open(options: &Options, observer: Arc<dyn Observer>) -> Result<Self, OpenStoreError> {
        #[cfg(feature = "dynamodb")]
        if let Some(NamedStore::DynamoDb(table)) = &options.store {
            let config = store_dynamodb::Config {
                table: table.clone(),
                store_id: options.store_id,
                create: options.create_store,
                future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
            };
            return Ok(Self::DynamoDb(Arc::new(store_dynamodb::DynamoStore::open(&config, observer).await?)));
        }
        let Some(config) = file_config(options) else {
            let store = RedisStore::open(&redis_config(options), observer).await?;
            return Ok(Self::Redis(Arc::new(store)));
        };
        // All of the file is read.
        let opening = tokio::task::spawn_blocking(move || EmbeddedStore::open(&config, observer));
        let store = opening.await.map_err(|_| OpenStoreError::Stopped)??;
        tracing::info!(id = %store.id(), "opened the store");
        Ok(Self::File(Arc::new(store)))
    }

    pub fn stores(&self) -> Stores {
        match self {
            Self::Redis(store) => Arc::clone(store).into(),
            Self::File(store) => Arc::clone(store).into(),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(store) => Arc::clone(store).into(),
        }
    }

    /// Waits for at most `limit` for what the mirror lacks. Returns how many names it still lacks.
    pub async fn settle(&self, limit: Duration) -> usize {
        match self {
            Self::Redis(store) => store.settle(limit).await,
            Self::File(_) => 0,
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(_) => 0,
        }
    }
}

/// `None`: the store is not in a file.
fn file_config(options: &Options) -> Option<store_embedded::Config> {
    let file = options.store.as_ref()?.file()?;
    Some(store_embedded::Config {
        path: file.path(),
        create: options.create_store,
        store_id: options.store_id,
        max_bytes: options.store_max_size,
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
    })
}

fn redis_config(options: &Options) -> store_redis::Config {
    let mirror = options.mirror_redis().map(|redis| MirrorConfig {
        redis,
        store_id: options.mirror_redis_store_id,
        min_replicas: options.mirror_redis_min_replicas.unwrap_or(options.min_replicas),
    });
    store_redis::Config {
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
