//! Making a store: its sentinel, written once where there is none.
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use wire::check::Trouble;

use super::connect::{Target, within};
use super::entry::{SENTINEL, StoreId};
use super::standing::{Allow, Unfit};

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Without its source, which may show a password.
    #[error("the Redis URL cannot be used: write redis://[user:password@]host:port[/db]")]
    Url,
    #[error("Redis cannot be used: {}", .0.name())]
    Redis(Trouble),
    #[error("this Redis may not hold the store: {0}")]
    Unfit(#[from] Unfit),
    #[error("there is a store already, and it stays as it is: {0}")]
    Exists(String),
}

/// Makes a new store and returns its id. An id is never used again: services that know the lost store must not take
/// the new, empty one for it.
///
/// # Errors
/// See [`CreateError`]; nothing was written then, except if Redis did not answer in time.
pub async fn create_store(redis: &str, limit: Duration, allow: Allow) -> Result<StoreId, CreateError> {
    let target = Target::of(redis, limit).map_err(|_| CreateError::Url)?;
    let mut connected = target.connect().await.map_err(CreateError::Redis)?;
    connected.standing.judge(allow)?;
    let connection = &mut connected.connection;
    if let Some(id) = write_sentinel(connection, limit).await.map_err(CreateError::Redis)? {
        return Ok(id);
    }
    let get = redis::cmd("GET").arg(SENTINEL).to_owned();
    let found: Option<Vec<u8>> = within(limit, get.query_async(connection)).await.map_err(CreateError::Redis)?;
    Err(CreateError::Exists(String::from_utf8_lossy(&found.unwrap_or_default()).into_owned()))
}

/// `None`: there is one already.
pub async fn write_sentinel(
    connection: &mut MultiplexedConnection,
    limit: Duration,
) -> Result<Option<StoreId>, Trouble> {
    let id = StoreId::random().ok_or(Trouble::StoreFailed)?;
    let mut create = redis::cmd("SET");
    create.arg(SENTINEL).arg(id.to_string()).arg("NX");
    let made: Option<String> = within(limit, create.query_async(connection)).await?;
    Ok(made.map(|_| id))
}
