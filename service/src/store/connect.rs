//! One connection to Redis, and what its failures mean.
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::time::timeout;
use wire::check::Trouble;

use super::standing::Standing;
use crate::Options;

/// Where to connect, and how long that may take.
#[derive(Debug, Clone)]
pub struct Target {
    client: Client,
    limit: Duration,
}

/// A connection, and what its server said of itself when it was made.
#[derive(Debug, Clone)]
pub struct Connected {
    pub connection: MultiplexedConnection,
    pub standing: Standing,
}

impl Target {
    /// # Errors
    /// The URL cannot be used.
    pub fn new(options: &Options) -> Result<Self, RedisError> {
        Self::of(&options.redis, options.redis_timeout)
    }

    /// # Errors
    /// The URL cannot be used.
    pub fn of(redis: &str, limit: Duration) -> Result<Self, RedisError> {
        Ok(Self { client: Client::open(redis)?, limit })
    }

    /// Connects and asks for INFO, all of it within the limit: a stopped Redis still lets the kernel accept.
    pub async fn connect(&self) -> Result<Connected, Trouble> {
        // Our own limits are the only ones: the client's defaults are too long for a check, too short for WAITAOF.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        within(self.limit, async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
            Ok(Connected { connection, standing: Standing::parse(&info) })
        })
        .await
    }
}

/// What the server says of itself now.
pub async fn ask_info(connection: &mut MultiplexedConnection, limit: Duration) -> Result<Standing, Trouble> {
    let info: String = within(limit, redis::cmd("INFO").query_async(connection)).await?;
    Ok(Standing::parse(&info))
}

/// Runs `asking` for no longer than `limit`.
///
/// A reply that comes after that is dropped: the client pairs replies with requests by order, also with those that
/// nobody waits for any more. The caller should still leave such a connection.
pub async fn within<T>(limit: Duration, asking: impl Future<Output = Result<T, RedisError>>) -> Result<T, Trouble> {
    match timeout(limit, asking).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let trouble = trouble_of(&error);
            tracing::debug!(trouble = trouble.name(), %error, "Redis answered with an error");
            Err(trouble)
        }
        Err(_) => Err(Trouble::StoreSlow),
    }
}

fn trouble_of(error: &RedisError) -> Trouble {
    if error.is_timeout() {
        Trouble::StoreSlow
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
        Trouble::StoreRefused
    } else {
        Trouble::StoreFailed
    }
}
