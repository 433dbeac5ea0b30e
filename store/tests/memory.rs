//! The memory store passes the suite.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use store::conformance::Fixture;
use store::memory::{Contents, MemoryStore};
use store::{StoreId, Stores};

const TOLERANCE: Duration = Duration::from_secs(3);

struct Memory(Contents);

async fn memory() -> Memory {
    let contents = Contents::default();
    contents.create(StoreId::new([1; 16]));
    Memory(contents)
}

#[async_trait]
impl Fixture for Memory {
    async fn open(&self) -> Stores {
        Arc::new(MemoryStore::open(&self.0, TOLERANCE)).into()
    }

    async fn lose(&self) {
        self.0.lose();
    }

    fn future_iat_tolerance(&self) -> Duration {
        TOLERANCE
    }
}

store::conformance_tests!(memory());
