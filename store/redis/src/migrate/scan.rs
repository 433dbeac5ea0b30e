//! The servers of a store and their names.
use std::time::Duration;

use super::{FROM, MigrateError};
use crate::options::{Address, Mode};
use crate::reader::Reader;
use crate::routes::Server;

/// Names that SCAN is asked for at once. It may return some more.
pub const PAGE: usize = 1000;

/// The servers that have buckets.
pub fn servers_of(side: &'static str, reader: &Reader) -> Result<Vec<Server>, MigrateError> {
    let routes = reader.topology.routes();
    let parts = routes.parts().map_err(|error| MigrateError::Store(side, error))?;
    Ok(parts.into_iter().map(|(server, _)| server.clone()).collect())
}

pub async fn scan(
    side: &'static str,
    server: &Server,
    cursor: u64,
    pattern: &str,
    limit: Duration,
) -> Result<(u64, Vec<Vec<u8>>), MigrateError> {
    let mut ask = redis::cmd("SCAN");
    ask.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
    // Always over the same connection: a restarted server would not understand the cursor.
    let scanned = server.connection.ask_one(ask, limit).await;
    scanned.map_err(|failure| MigrateError::Store(side, failure.error))
}

/// About how many names a server has.
pub async fn keys(server: &Server, limit: Duration) -> Option<u64> {
    let mut ask = redis::cmd("INFO");
    ask.arg("keyspace");
    let text: String = server.connection.ask_one(ask, limit).await.ok()?;
    let keys = |line: &str| line.split_once(":keys=")?.1.split(',').next()?.parse::<u64>().ok();
    Some(text.lines().filter_map(keys).sum())
}

/// Which server of the source has which slots, by its own word. An error if a slot migrates.
pub async fn layout(mode: Mode, servers: &[Server], limit: Duration) -> Result<Vec<(Address, String)>, MigrateError> {
    let mut layout = Vec::with_capacity(servers.len());
    for server in servers {
        let mut slots = String::new();
        if mode == Mode::Cluster {
            let mut ask = redis::cmd("CLUSTER");
            ask.arg("NODES");
            let told = server.connection.ask_one::<String>(ask, limit).await;
            let told = told.map_err(|failure| MigrateError::Store(FROM, failure.error))?;
            // `<id> <address> myself,<flags> <primary> <ping> <pong> <epoch> <link> <slot>…`; in brackets what is on
            // its way.
            let own = told.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")));
            slots = own.unwrap_or_default().split(' ').skip(8).collect::<Vec<_>>().join(" ");
            if slots.contains('[') {
                return Err(MigrateError::Moved(FROM));
            }
        }
        layout.push((server.address.clone(), slots));
    }
    Ok(layout)
}
