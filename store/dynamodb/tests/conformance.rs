//! The store in DynamoDB passes the suite of the crate `store`, each case on a server and table of its own.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use store::conformance::Fixture;
use store::{Stores, Unobserved};
use store_dynamodb::{Config, DynamoStore, create_store};
use support::Server;

const TOLERANCE_SECONDS: u64 = 3;

struct OneTable(Server);

async fn one_table() -> OneTable {
    let server = Server::start().await;
    create_store(&server.table("")).await.unwrap();
    OneTable(server)
}

#[async_trait]
impl Fixture for OneTable {
    async fn open(&self) -> Stores {
        let config = Config {
            table: self.0.table(""),
            store_id: None,
            create: false,
            future_iat_tolerance_seconds: TOLERANCE_SECONDS,
        };
        Arc::new(DynamoStore::open(&config, Arc::new(Unobserved)).await.unwrap()).into()
    }

    async fn lose(&self) {
        self.0.drop_table().await;
        self.0.make_table().await;
    }

    fn future_iat_tolerance(&self) -> Duration {
        Duration::from_secs(TOLERANCE_SECONDS)
    }
}

store::conformance_tests!(one_table());
