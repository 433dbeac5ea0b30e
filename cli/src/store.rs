//! `portcullis store`: creates the store that services answer from, once; and compacts one in a file.
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use service::{Allow, CreateError, FileStore, NamedStore, OpenError, Redis, StoreId, create_file_store, create_store};
use wire::parse_duration;

use crate::outcome::Outcome;

#[derive(Args)]
pub struct Store {
    #[command(subcommand)]
    what: What,
}

#[expect(clippy::large_enum_variant, reason = "it is made once, from the command line")]
#[derive(Subcommand)]
enum What {
    /// Create a new store in a Redis that holds none, or in a new file, and print its id, for `serve --store-id`. Do it
    /// once. If there was a store and it is gone, restore it: a new one has no revocations.
    Create {
        /// Create a file in place of a store in Redis: file:PATH. An existing file is never replaced.
        #[arg(long, env = "PORTCULLIS_STORE", value_name = "file:PATH", conflicts_with_all = service::only_redis_to_create())]
        store: Option<NamedStore>,
        #[command(flatten)]
        redis: Redis,
        /// The longest time for connecting or one round trip.
        #[arg(long, env = "PORTCULLIS_REDIS_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
        redis_timeout: Duration,
        /// Accept a Redis that may evict revocations.
        #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_EVICTION")]
        dangerously_allow_eviction: bool,
        /// The id of a store that lost a part of its data. Give it once all revocations that must hold were written
        /// again: this writes the missing sentinels.
        #[arg(long, value_name = "ID")]
        dangerously_complete: Option<StoreId>,
    },
    /// Compact the file of a store: move what is used to its front, and cut off the rest. The service must be stopped. It
    /// does the same at its start if most of the file is unused.
    Compact {
        #[arg(long, env = "PORTCULLIS_STORE", value_name = "file:PATH")]
        store: FileStore,
    },
}

impl Store {
    pub fn run(self) -> Result<Outcome> {
        let (redis, redis_timeout, dangerously_allow_eviction, dangerously_complete) = match self.what {
            What::Create { store: Some(NamedStore::File(file)), .. } => {
                return told(create_file_store(&file.path()).map(|id| id.to_string()));
            }
            #[cfg(feature = "dynamodb")]
            What::Create { store: Some(NamedStore::DynamoDb(table)), .. } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                println!("{}", runtime.block_on(service::create_dynamodb_store(&table))?);
                return Ok(Outcome::Done);
            }
            What::Compact { store } => {
                let sizes = |done: service::Compacted| format!("{} bytes, before {}", done.after, done.before);
                return told(service::compact(&store.path()).map(sizes));
            }
            What::Create { redis, redis_timeout, dangerously_allow_eviction, dangerously_complete, store: None } => {
                (redis, redis_timeout, dangerously_allow_eviction, dangerously_complete)
            }
        };
        let allow = Allow { eviction: dangerously_allow_eviction, replica: false };
        let made = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(create_store(
            &redis.into(),
            redis_timeout,
            allow,
            dangerously_complete,
        ));
        match made {
            Ok(id) => {
                println!("{id}");
                Ok(Outcome::Done)
            }
            Err(error) => {
                eprintln!("portcullis: {error}");
                Ok(match error {
                    CreateError::Redis(_) => Outcome::Unconfirmed,
                    CreateError::Options(_)
                    | CreateError::Unhealthy(_)
                    | CreateError::Exists(_)
                    | CreateError::Filling(_)
                    | CreateError::Strange(_)
                    | CreateError::Two(..)
                    | CreateError::Lost { .. } => Outcome::Refused,
                })
            }
        }
    }
}

/// Prints what was done to a file, or why nothing was.
fn told(done: Result<String, OpenError>) -> Result<Outcome> {
    match done {
        Ok(text) => {
            println!("{text}");
            Ok(Outcome::Done)
        }
        Err(error) => Err(error.into()),
    }
}
