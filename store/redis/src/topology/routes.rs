//! Where each bucket is asked for, and until when that may be believed. Made by the keeper, used by everybody.
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::Wire;
use super::entry::Bucket;
use super::redis_options::Address;
use super::standing::Unfit;
use store::StoreError;

/// How long after a question the answers of a primary count that a majority confirmed in reply to it. It must be shorter
/// than the silence after which a primary is replaced: then no answer that comes within it can be older than what the
/// next primary was told.
pub const LEASE: Duration = Duration::from_millis(1500);
/// The shortest such silence that we work with (`cluster-node-timeout`, `down-after-milliseconds`).
pub const LEAST_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Routes {
    /// Goes up with each that is made.
    pub number: u64,
    pub members: Vec<Member>,
    /// One for each bucket.
    pub buckets: Vec<Route>,
    /// Whether all of our sentinels are where they were looked for.
    pub whole: Result<(), StoreError>,
    /// One server has all of the names, so one sentinel proves them all and one command asks for them all.
    pub one_keyspace: bool,
    /// For the log: that all is well, or what is not.
    pub state: String,
}

/// A server that is asked.
#[derive(Debug, Clone)]
pub struct Member {
    pub address: Address,
    pub wire: Arc<Wire>,
    pub fit: Result<(), Unfit>,
    /// In a Cluster: it is a primary until then at least, whatever it owns.
    pub sound_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
pub enum Route {
    To {
        member: usize,
        /// `None`: nobody else can become the primary without our being told.
        until: Option<Instant>,
    },
    Nowhere(StoreError),
}

impl Routes {
    /// Before anything is known.
    pub fn none(trouble: StoreError) -> Self {
        Self {
            number: 0,
            members: Vec::new(),
            buckets: Bucket::all().map(|_| Route::Nowhere(trouble)).collect(),
            whole: Ok(()),
            one_keyspace: false,
            state: trouble.name().to_owned(),
        }
    }

    /// Where `bucket` is now, whatever may be thought of it.
    ///
    /// # Errors
    /// Nobody is known to have it.
    pub fn to(&self, bucket: Bucket) -> Result<usize, StoreError> {
        match self.buckets.get(bucket.place()) {
            Some(Route::To { member, until }) => {
                if until.is_some_and(|until| Instant::now() > until) {
                    return Err(StoreError::StoreSlow);
                }
                match self.members.get(*member).and_then(|member| member.wire.left()) {
                    Some(trouble) => Err(trouble),
                    None => Ok(*member),
                }
            }
            Some(Route::Nowhere(trouble)) => Err(*trouble),
            None => Err(StoreError::StoreFailed),
        }
    }

    /// Where `bucket` can be asked for with an answer that counts.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, bucket: Bucket) -> Result<usize, StoreError> {
        let to = self.to(bucket)?;
        match self.members.get(to) {
            Some(Member { fit: Ok(()), .. }) => self.whole.map(|()| to),
            Some(Member { fit: Err(_), .. }) => Err(StoreError::StoreUnsafe),
            None => Err(StoreError::StoreFailed),
        }
    }

    /// Whether everything can be asked for.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn standing(&self) -> Result<(), StoreError> {
        Bucket::all().try_for_each(|bucket| self.fit(bucket).map(|_| ()))
    }

    /// The buckets of each server that has some, as [`Routes::to`] says.
    ///
    /// # Errors
    /// Some bucket is nowhere.
    pub fn parts(&self) -> Result<Vec<(&Member, Vec<Bucket>)>, StoreError> {
        let mut parts: Vec<_> = self.members.iter().map(|member| (member, Vec::new())).collect();
        for bucket in Bucket::all() {
            let to = self.to(bucket)?;
            if let Some((_, buckets)) = parts.get_mut(to) {
                buckets.push(bucket);
            }
        }
        parts.retain(|(_, buckets)| !buckets.is_empty());
        // In the order of their buckets, so that a shard keeps its place when its primary changes.
        parts.sort_by_key(|(_, buckets)| buckets.first().copied());
        Ok(parts)
    }

    /// The server of a Cluster to which a bucket is on its way, if what it answers counts.
    pub fn importing(&self, host: &str, port: u16) -> Option<&Member> {
        self.members.iter().find(|member| {
            let is_it = member.address.port == port && member.address.host == host;
            is_it && member.fit.is_ok() && member.sound_until.is_some_and(|until| Instant::now() <= until)
        })
    }

    /// Whether `wire` is still where `bucket` is asked for: what it answered counts.
    pub fn is_still(&self, bucket: Bucket, wire: &Arc<Wire>) -> bool {
        let member = self.to(bucket).ok().and_then(|to| self.members.get(to));
        member.is_some_and(|member| Arc::ptr_eq(&member.wire, wire))
    }
}
