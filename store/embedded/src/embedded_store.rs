//! The parts of the store share this: the open file, the writer, and what is reported.
use std::sync::Arc;

use store::{Observer, StoreId};

use crate::config::Config;
use crate::engine::Engine;
use crate::file::{self, OpenError, Opened};
use crate::lag::Lag;
use crate::writer::Writer;

#[derive(Debug)]
pub struct EmbeddedStore {
    pub(crate) engine: Arc<Engine>,
    pub(crate) writer: Writer,
    pub(crate) lag: Lag,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) future_iat_tolerance_seconds: u64,
}

impl EmbeddedStore {
    /// Opens the file for this process alone, and reads and verifies all of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Config, observer: Arc<dyn Observer>) -> Result<Self, OpenError> {
        let path = &config.path;
        let opened = match file::open_to_serve(path) {
            Err(OpenError::Missing(_)) if config.create => {
                let id = file::create_store(path)?;
                tracing::warn!(file = %path.display(), %id, "created a new store, in which nothing is revoked");
                file::open_to_serve(path)
            }
            opened => opened,
        }?;
        let Opened { database, id, place } = opened;
        if config.store_id.is_some_and(|given| given != id) {
            return Err(OpenError::Another { path: path.clone(), found: id });
        }
        let engine = Arc::new(Engine::new(path.clone(), id, place, database));
        let io = |source| OpenError::Io { path: path.clone(), source };
        let writer = Writer::start(Arc::clone(&engine), config.max_bytes, Arc::clone(&observer)).map_err(io)?;
        let lag = Lag::default();
        let future_iat_tolerance_seconds = config.future_iat_tolerance_seconds;
        Ok(Self { engine, writer, lag, observer, future_iat_tolerance_seconds })
    }

    pub fn id(&self) -> StoreId {
        self.engine.id
    }
}
