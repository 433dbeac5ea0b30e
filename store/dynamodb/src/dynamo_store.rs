//! The parts of the store share this: the table, the writer, and what is reported.
use std::sync::Arc;
use std::time::Duration;

use store::{Observer, StoreError, StoreId};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::config::Config;
use crate::create::{self, CreateError};
use crate::import::Seen;
use crate::lag::Lag;
use crate::table::Table;
use crate::writer::Writer;

/// How often the table is asked whether it answers.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct DynamoStore {
    pub(crate) table: Arc<Table>,
    pub(crate) writer: Writer,
    pub(crate) lag: Lag,
    pub(crate) seen: Seen,
    /// Entries of the audit log that this instance has appended. Held while one is.
    pub(crate) appended: Mutex<u64>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl DynamoStore {
    /// The table is tried once, and need not be reachable yet.
    ///
    /// # Errors
    /// `config.create`, and no store can be created; or the table was created for another mode or for further regions.
    pub async fn open(config: &Config, observer: Arc<dyn Observer>) -> Result<Self, CreateError> {
        let table = Arc::new(Table::connect(&config.table, config.store_id, Arc::clone(&observer)).await);
        if config.create {
            match create::create(&table).await {
                Ok(id) => {
                    tracing::warn!(table = %config.table, %id, "created a new store, in which nothing is revoked")
                }
                Err(CreateError::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Its result is in the table's health.
        if table.read(Vec::new()).await == Err(StoreError::StoreChanged)
            && let Some(error) = create::foreign_mode(&table).await
        {
            return Err(error);
        }
        let probed = Arc::downgrade(&table);
        tokio::spawn(async move {
            loop {
                sleep(PROBE).await;
                let Some(table) = probed.upgrade() else { break };
                let _ = table.read(Vec::new()).await;
            }
        });
        let writer = Writer::start(Arc::clone(&table), config.future_iat_tolerance_seconds);
        Ok(Self { table, writer, lag: Lag::default(), seen: Seen::default(), appended: Mutex::default(), observer })
    }

    pub fn id(&self) -> Option<StoreId> {
        self.table.id()
    }
}
