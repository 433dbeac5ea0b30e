//! `portcullis store`: creates the store that services answer from, once.
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use service::{Allow, CreateError, Redis, StoreId, create_store};
use wire::parse_duration;

use crate::outcome::Outcome;

#[derive(Args)]
pub struct Store {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Create a new store in a Redis that holds none, and print its id, for `serve --store-id`. Do it once. If there
    /// was a store and it is gone, restore it: a new one has no revocations.
    Create {
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
}

impl Store {
    pub fn run(self) -> Result<Outcome> {
        let What::Create { redis, redis_timeout, dangerously_allow_eviction, dangerously_complete } = self.what;
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
