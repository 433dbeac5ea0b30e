//! The store in a file passes the suite of the crate `store`, each case with a file of its own.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use store::conformance::Fixture;
use store::{Stores, Unobserved};
use store_embedded::{Config, EmbeddedStore, OpenError, create_store};
use tempfile::TempDir;

const TOLERANCE_SECONDS: u64 = 3;

struct OneFile {
    config: Config,
    /// A second instance cannot open the file. What the suite calls another instance is another user of this one.
    store: Mutex<Option<Arc<EmbeddedStore>>>,
    _folder: TempDir,
}

async fn one_file() -> OneFile {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("store");
    create_store(&path).unwrap();
    let config = Config {
        path,
        create: false,
        store_id: None,
        max_bytes: 64 << 20,
        future_iat_tolerance_seconds: TOLERANCE_SECONDS,
    };
    OneFile { config, store: Mutex::default(), _folder: folder }
}

#[async_trait]
impl Fixture for OneFile {
    async fn open(&self) -> Stores {
        let mut store = self.store.lock().unwrap();
        let open = || EmbeddedStore::open(&self.config, Arc::new(Unobserved));
        if !self.config.path.exists() {
            assert!(matches!(open(), Err(OpenError::Missing(_))), "a new instance does not start");
        }
        let store = store.get_or_insert_with(|| Arc::new(open().unwrap()));
        Arc::clone(store).into()
    }

    async fn lose(&self) {
        std::fs::remove_file(&self.config.path).unwrap();
    }

    fn future_iat_tolerance(&self) -> Duration {
        Duration::from_secs(TOLERANCE_SECONDS)
    }
}

store::conformance_tests!(one_file());
