//! The sentinels of a store: read, written once where there is none, and judged.
//!
//! It takes two steps, since a Cluster has no command for all of its servers. First every bucket gets `new:<id>`, bucket 00
//! before the others, so that of two concurrent creations one gives in. Only when all are there they become `<id>`, and only
//! then services answer. So a bucket without a sentinel, beside one that is whole, has lost it.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use store::{StoreError, StoreId};

use crate::connection::{Connection, ConnectionError, is_about_slots, pipeline};
use crate::entry::{Bucket, Sentinel};
use crate::health::HealthError;
use crate::options::RedisOptionsError;
use crate::routes::Routes;

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Options(#[from] RedisOptionsError),
    /// It is not known whether something was written.
    #[error("Redis cannot be used: {0}")]
    Redis(String),
    #[error("this Redis may not hold the store: {0}")]
    Unhealthy(#[from] HealthError),
    #[error("there is a store already, and it stays as it is: {0}")]
    Exists(String),
    #[error("the store {0} is being filled from another: `portcullis migrate` completes it")]
    Filling(StoreId),
    #[error("there is something else where sentinels should be, in bucket {0}")]
    Strange(Bucket),
    #[error("there are parts of two stores: {0} and {1}")]
    Two(StoreId, StoreId),
    #[error(
        "the store {id} lost {missing} of its sentinels, and revocations with them: restore what was lost; or write again \
         what must hold, and complete it in so many words"
    )]
    Lost { id: StoreId, missing: usize },
}

/// Declares a filled store whole: services may answer from it.
///
/// # Errors
/// See [`CreateError`]. Some buckets may be whole then, and it can be tried again.
pub async fn finish(routes: &Routes, id: StoreId, limit: Duration) -> Result<(), CreateError> {
    let all: Vec<_> = Bucket::all().collect();
    // XX: a sentinel that was lost meanwhile is not written again.
    write(routes, &all, &id.to_string(), "XX", limit).await?;
    match read_all(routes, limit).await?.values().all(|sentinel| *sentinel == Sentinel::Whole(id)) {
        true => Ok(()),
        false => Err(nowhere(StoreError::StoreChanged)),
    }
}

/// What may be done about the sentinels of a store that is to be filled.
pub fn filling(read: &BTreeMap<Bucket, Sentinel>) -> Result<Begun, CreateError> {
    let mut begun = Begun::NotYet;
    for (bucket, sentinel) in read {
        match (sentinel, &begun) {
            (Sentinel::Missing, _) => {}
            (Sentinel::Filling(id), Begun::NotYet) => begun = Begun::By(*id),
            (Sentinel::Filling(id), Begun::By(other)) if id == other => {}
            (Sentinel::Filling(id), Begun::By(other)) => return Err(CreateError::Two(*other, *id)),
            (Sentinel::New(id) | Sentinel::Whole(id), _) => return Err(CreateError::Exists(id.to_string())),
            (Sentinel::Strange, _) => return Err(CreateError::Strange(*bucket)),
        }
    }
    Ok(begun)
}

/// # Errors
/// See [`CreateError`].
pub async fn complete(routes: &Routes, after_loss: Option<StoreId>, limit: Duration) -> Result<StoreId, CreateError> {
    for (server, _) in routes.parts().map_err(nowhere)? {
        server.health.clone()?;
    }
    let id = match judge(&read_all(routes, limit).await?, after_loss)? {
        Begun::By(id) => id,
        Begun::NotYet => {
            let there = |sentinel: &Sentinel| match sentinel {
                Sentinel::New(id) => Some(*id),
                _ => None,
            };
            claim(routes, Sentinel::begun, there, limit).await?
        }
    };
    let all: Vec<_> = Bucket::all().collect();
    write(routes, &all, &Sentinel::begun(id), "NX", limit).await?;
    let read = read_all(routes, limit).await?;
    let is_there =
        |sentinel: &Sentinel| matches!(sentinel, Sentinel::New(there) | Sentinel::Whole(there) if *there == id);
    if read.len() < all.len() || !read.values().all(is_there) {
        return Err(nowhere(StoreError::StoreFailed));
    }
    write(routes, &all, &id.to_string(), "XX", limit).await?;
    Ok(id)
}

/// The id of a store that is begun now. Of concurrent creations, the first one in the first bucket counts.
pub async fn claim(
    routes: &Routes,
    sentinel: fn(StoreId) -> String,
    there: fn(&Sentinel) -> Option<StoreId>,
    limit: Duration,
) -> Result<StoreId, CreateError> {
    let id = random_id().ok_or(nowhere(StoreError::StoreFailed))?;
    write(routes, &[Bucket::FIRST], &sentinel(id), "NX", limit).await?;
    let read = read_all(routes, limit).await?;
    read.get(&Bucket::FIRST).and_then(there).ok_or(nowhere(StoreError::StoreFailed))
}

/// `None`: the system gave no randomness.
fn random_id() -> Option<StoreId> {
    let mut id = [0; 16];
    rand::fill(&mut id).ok()?;
    Some(StoreId::new(id))
}

pub enum Begun {
    By(StoreId),
    NotYet,
}

/// What may be done about the sentinels that are there.
fn judge(read: &BTreeMap<Bucket, Sentinel>, after_loss: Option<StoreId>) -> Result<Begun, CreateError> {
    let mut ids: Vec<StoreId> = Vec::new();
    let (mut missing, mut whole) = (0, 0);
    for (bucket, sentinel) in read {
        match sentinel {
            Sentinel::Missing => missing += 1,
            Sentinel::New(id) => ids.push(*id),
            Sentinel::Whole(id) => {
                whole += 1;
                ids.push(*id);
            }
            // Only the migration knows when it is complete.
            Sentinel::Filling(id) => return Err(CreateError::Filling(*id)),
            Sentinel::Strange => return Err(CreateError::Strange(*bucket)),
        }
    }
    ids.dedup();
    let id = match *ids {
        [] => return Ok(Begun::NotYet),
        [id] => id,
        [one, other, ..] => return Err(CreateError::Two(one, other)),
    };
    if whole == read.len() {
        return Err(CreateError::Exists(id.to_string()));
    }
    // One is whole, so all were there once.
    if whole > 0 && missing > 0 && after_loss != Some(id) {
        return Err(CreateError::Lost { id, missing });
    }
    Ok(Begun::By(id))
}

/// The sentinels of `buckets`. A bucket that migrates to another server is left out.
///
/// # Errors
/// The server does not answer, or answers with an error.
pub async fn read(
    connection: &Connection,
    buckets: &[Bucket],
    limit: Duration,
) -> Result<Vec<(Bucket, Sentinel)>, ConnectionError> {
    let mut asks = pipeline();
    for bucket in buckets {
        asks.cmd("GET").arg(bucket.sentinel());
    }
    let mut read = Vec::with_capacity(buckets.len());
    for (bucket, reply) in buckets.iter().zip(connection.ask(&asks, limit).await?) {
        match reply {
            Ok(value) => {
                let value: Option<Vec<u8>> = redis::from_redis_value(value).unwrap_or_default();
                read.push((*bucket, Sentinel::parse(value.as_deref())));
            }
            Err(error) if error.code() == Some("WRONGTYPE") => read.push((*bucket, Sentinel::Strange)),
            Err(error) if is_about_slots(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

pub async fn read_all(routes: &Routes, limit: Duration) -> Result<BTreeMap<Bucket, Sentinel>, CreateError> {
    let mut all = BTreeMap::new();
    for (server, buckets) in routes.parts().map_err(nowhere)? {
        all.extend(read(&server.connection, &buckets, limit).await.map_err(because)?);
    }
    match all.len() == Bucket::all().count() {
        true => Ok(all),
        false => Err(CreateError::Redis("slots are being moved between its servers".into())),
    }
}

pub async fn write(
    routes: &Routes,
    buckets: &[Bucket],
    value: &str,
    condition: &str,
    limit: Duration,
) -> Result<(), CreateError> {
    for (server, there) in routes.parts().map_err(nowhere)? {
        let mut asks = pipeline();
        for bucket in there.iter().filter(|bucket| buckets.contains(bucket)) {
            asks.cmd("SET").arg(bucket.sentinel()).arg(value).arg(condition);
        }
        if asks.is_empty() {
            continue;
        }
        for reply in Arc::clone(&server.connection).ask(&asks, limit).await.map_err(because)? {
            reply.map_err(|error| because(error.into()))?;
        }
    }
    Ok(())
}

pub fn nowhere(trouble: StoreError) -> CreateError {
    CreateError::Redis(trouble.name().to_owned())
}

fn because(failure: ConnectionError) -> CreateError {
    CreateError::Redis(format!("{}: {}", failure.error.name(), failure.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sentinels: &[Sentinel], after_loss: Option<StoreId>) -> String {
        let read = Bucket::all().zip(sentinels.iter().copied()).collect();
        match judge(&read, after_loss) {
            Ok(Begun::NotYet) => "new".to_owned(),
            Ok(Begun::By(id)) => format!("go on with {}", &id.to_string()[..2]),
            Err(error) => format!("{error:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_was_begun_is_completed_and_what_was_lost_is_not() {
        let id = |byte: &str| byte.repeat(16).parse::<StoreId>().unwrap();
        let (one, other) = (id("11"), id("22"));
        let (new, whole) = (Sentinel::New(one), Sentinel::Whole(one));
        assert_eq!(judged(&[Sentinel::Missing; 3], None), "new");
        assert_eq!(judged(&[new, new, Sentinel::Missing], None), "go on with 11");
        assert_eq!(judged(&[Sentinel::Missing, new, new], None), "go on with 11");
        assert_eq!(judged(&[whole, whole, new], None), "go on with 11");
        assert_eq!(judged(&[whole; 3], None), "Exists");
        assert_eq!(judged(&[whole; 3], Some(one)), "Exists");
        assert_eq!(judged(&[whole, whole, Sentinel::Missing], None), "Lost");
        assert_eq!(judged(&[whole, new, Sentinel::Missing], None), "Lost");
        assert_eq!(judged(&[whole, whole, Sentinel::Missing], Some(other)), "Lost");
        assert_eq!(judged(&[whole, whole, Sentinel::Missing], Some(one)), "go on with 11");
        assert_eq!(judged(&[whole, Sentinel::Whole(other), Sentinel::Missing], Some(one)), "Two");
        assert_eq!(judged(&[Sentinel::Strange, whole, whole], Some(one)), "Strange");
        assert_eq!(judged(&[Sentinel::Missing, Sentinel::Filling(one)], Some(one)), "Filling");
    }

    #[test]
    fn only_an_empty_redis_is_prepared_to_be_filled() {
        let id = |byte: &str| byte.repeat(16).parse::<StoreId>().unwrap();
        let (one, other) = (id("11"), id("22"));
        let judged = |sentinels: &[Sentinel]| match filling(&Bucket::all().zip(sentinels.iter().copied()).collect()) {
            Ok(Begun::NotYet) => "new".to_owned(),
            Ok(Begun::By(id)) => format!("go on with {}", &id.to_string()[..2]),
            Err(error) => format!("{error:?}").split(['(']).next().unwrap_or_default().to_owned(),
        };
        assert_eq!(judged(&[Sentinel::Missing; 3]), "new");
        assert_eq!(judged(&[Sentinel::Missing, Sentinel::Filling(one)]), "go on with 11");
        assert_eq!(judged(&[Sentinel::Filling(other), Sentinel::Filling(one)]), "Two");
        assert_eq!(judged(&[Sentinel::Filling(one), Sentinel::Whole(one)]), "Exists");
        assert_eq!(judged(&[Sentinel::Missing, Sentinel::New(one)]), "Exists");
        assert_eq!(judged(&[Sentinel::Strange]), "Strange");
    }
}
