//! Which server each bucket is read from, and until when that may be believed. Published by the monitor.
use std::sync::Arc;
use std::time::Instant;

use crate::connection::Connection;
use crate::entry::Bucket;
use crate::health::HealthError;
use crate::options::Address;
use store::StoreError;

#[derive(Debug, Clone)]
pub struct Routes {
    /// Grows with each publication.
    pub number: u64,
    /// Grows when a bucket has no server any more, or has one that was no primary before.
    pub epoch: u64,
    pub servers: Vec<Server>,
    /// One for each bucket.
    pub buckets: Vec<Route>,
    /// Whether all sentinels that were read are ours.
    pub whole: Result<(), StoreError>,
    /// One server has all names, so one sentinel proves them all and one command reads them all.
    pub one_keyspace: bool,
    /// For the log: that everything works, or what does not.
    pub state: String,
}

/// A server that is connected.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: Address,
    pub connection: Arc<Connection>,
    pub health: Result<(), HealthError>,
    /// In a Cluster: it is a primary at least until then, with slots or without.
    pub sound_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
pub enum Route {
    To {
        server: usize,
        /// `None`: a single server, which has no lease.
        until: Option<Instant>,
    },
    Nowhere(StoreError),
}

impl Routes {
    /// Before anything is known.
    pub fn none(error: StoreError) -> Self {
        Self {
            number: 0,
            epoch: 0,
            servers: Vec::new(),
            buckets: Bucket::all().map(|_| Route::Nowhere(error)).collect(),
            whole: Ok(()),
            one_keyspace: false,
            state: error.name().to_owned(),
        }
    }

    /// The index of the server that has `bucket` now, healthy or not.
    ///
    /// # Errors
    /// No server is known to have it.
    pub fn to(&self, bucket: Bucket) -> Result<usize, StoreError> {
        match self.buckets.get(bucket.index()) {
            Some(Route::To { server, until }) => {
                if until.is_some_and(|until| Instant::now() > until) {
                    return Err(StoreError::StoreSlow);
                }
                match self.servers.get(*server).and_then(|server| server.connection.closed()) {
                    Some(error) => Err(error),
                    None => Ok(*server),
                }
            }
            Some(Route::Nowhere(error)) => Err(*error),
            None => Err(StoreError::StoreFailed),
        }
    }

    /// The index of the server whose answers about `bucket` count.
    ///
    /// # Errors
    /// Why not.
    pub fn usable(&self, bucket: Bucket) -> Result<usize, StoreError> {
        let to = self.to(bucket)?;
        match self.servers.get(to) {
            Some(Server { health: Ok(()), .. }) => self.whole.map(|()| to),
            Some(Server { health: Err(_), .. }) => Err(StoreError::StoreUnsafe),
            None => Err(StoreError::StoreFailed),
        }
    }

    /// Whether answers about every bucket count.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn health(&self) -> Result<(), StoreError> {
        Bucket::all().try_for_each(|bucket| self.usable(bucket).map(|_| ()))
    }

    /// Whether what was acknowledged before `self` may be missing now, after `last`: see [`Routes::epoch`]. A bucket that
    /// migrates to another primary of a Cluster loses nothing.
    pub fn may_lack(&self, last: &Self) -> bool {
        let was_primary = |server: &Server| {
            let is_it = |was: &Server| Arc::ptr_eq(&was.connection, &server.connection);
            let Some(at) = last.servers.iter().position(is_it) else { return false };
            let is_sound = last.servers.get(at).is_some_and(|was| was.sound_until.is_some());
            is_sound || last.buckets.iter().any(|route| matches!(route, Route::To { server, .. } if *server == at))
        };
        let mut new = vec![None; self.servers.len()];
        self.buckets.iter().zip(&last.buckets).any(|(now, was)| match now {
            Route::Nowhere(_) => matches!(was, Route::To { .. }),
            Route::To { server, .. } => match (self.servers.get(*server), new.get_mut(*server)) {
                (Some(found), Some(is_new)) => *is_new.get_or_insert_with(|| !was_primary(found)),
                _ => true,
            },
        })
    }

    /// The buckets of each server that has some, as [`Routes::to`] says.
    ///
    /// # Errors
    /// No server is known for some bucket.
    pub fn parts(&self) -> Result<Vec<(&Server, Vec<Bucket>)>, StoreError> {
        let mut parts: Vec<_> = self.servers.iter().map(|server| (server, Vec::new())).collect();
        for bucket in Bucket::all() {
            let to = self.to(bucket)?;
            if let Some((_, buckets)) = parts.get_mut(to) {
                buckets.push(bucket);
            }
        }
        parts.retain(|(_, buckets)| !buckets.is_empty());
        // In the order of their buckets, so that a shard keeps its position when its primary changes.
        parts.sort_by_key(|(_, buckets)| buckets.first().copied());
        Ok(parts)
    }

    /// The server of a Cluster to which a bucket migrates, if its answers count.
    pub fn importing(&self, host: &str, port: u16) -> Option<&Server> {
        self.servers.iter().find(|server| {
            let is_it = server.address.port == port && server.address.host == host;
            is_it && server.health.is_ok() && server.sound_until.is_some_and(|until| Instant::now() <= until)
        })
    }

    /// Whether `connection` is still the one for `bucket`, so that its answer counts.
    pub fn is_still(&self, bucket: Bucket, connection: &Arc<Connection>) -> bool {
        let server = self.to(bucket).ok().and_then(|to| self.servers.get(to));
        server.is_some_and(|server| Arc::ptr_eq(&server.connection, connection))
    }
}
