//! Reads of a bucket whose slot is moving between two servers of a Cluster, or has moved.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use redis::{Cmd, RedisError, Value};
use store::StoreError;

use super::Reader;
use crate::connection::{Connection, is_about_slots, pipeline};
use crate::entry::Bucket;

/// Why an attempt to read had no result.
pub enum ReadError {
    Error(StoreError),
    /// The bucket is migrating to another server, or has arrived there.
    Moved(Bucket),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Error(error)
    }
}

impl Reader {
    /// Runs each of `asks` again after a command with several names was refused with `error`. One value for each.
    ///
    /// While a slot migrates, some of its names are on this server and some on the other, and no command with several
    /// names is answered. Then each name is read on its own, first from this server.
    pub async fn read_moving(
        &self,
        connection: &Arc<Connection>,
        bucket: Bucket,
        asks: &[Cmd],
        error: &RedisError,
        deadline: Instant,
    ) -> Result<Vec<Value>, ReadError> {
        if !is_about_slots(error) {
            tracing::warn!(code = error.code(), "Redis refused a read");
            return Err(StoreError::StoreFailed.into());
        }
        if !matches!(error.code(), Some("ASK" | "TRYAGAIN")) {
            return Err(ReadError::Moved(bucket));
        }
        let mut all = pipeline();
        for ask in asks {
            all.add_command(ask.clone());
        }
        let mut values = vec![Value::Nil; asks.len()];
        let mut there: BTreeMap<(String, u16), Vec<usize>> = BTreeMap::new();
        for (at, reply) in self.ask(connection, &all, deadline).await?.into_iter().enumerate() {
            match (reply, values.get_mut(at)) {
                (Ok(value), Some(place)) => *place = value,
                (Err(error), _) if error.code() == Some("ASK") => {
                    let address = error.redirect_node().and_then(|(address, _slot)| address.rsplit_once(':'));
                    let address = address.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
                    there.entry(address.ok_or(StoreError::StoreFailed)?).or_default().push(at);
                }
                _ => return Err(ReadError::Moved(bucket)),
            }
        }
        for ((host, port), indexes) in there {
            let routes = self.topology.routes();
            let Some(other) = routes.importing(&host, port) else { return Err(ReadError::Moved(bucket)) };
            let mut all = pipeline();
            for ask in indexes.iter().filter_map(|at| asks.get(*at)) {
                all.cmd("ASKING");
                all.add_command(ask.clone());
            }
            let replies = self.ask(&other.connection, &all, deadline).await?;
            let now = self.topology.routes();
            if now.importing(&host, port).is_none_or(|now| !Arc::ptr_eq(&now.connection, &other.connection)) {
                return Err(ReadError::Moved(bucket));
            }
            for (at, reply) in indexes.iter().zip(replies.into_iter().skip(1).step_by(2)) {
                let value = reply.map_err(|_| ReadError::Moved(bucket))?;
                if let Some(place) = values.get_mut(*at) {
                    *place = value;
                }
            }
        }
        Ok(values)
    }
}
