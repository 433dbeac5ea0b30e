//! What Redis has under names that are to be copied, and in its audit log.
use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use store::StoreError;

use crate::contents::{Name, State};
use crate::entry::Bucket;
use crate::reader::Reader;

/// Entries of the audit stream in one command.
pub const AUDIT_PAGE: usize = 200;
/// The most entries of a range; there are fewer, since the service limits the rate of the requests that cause them.
pub const AUDIT_RANGE: usize = 20_000;

/// An entry of the audit stream: its id, and its content.
pub type AuditEntry = (String, Vec<u8>);

/// The states of `names` in order, those of one bucket in one round trip that proves the store. A state that cannot be read
/// is [`None`].
///
/// # Errors
/// As for [`Reader::read`].
pub async fn states(reader: &Reader, names: &[Name]) -> Result<Vec<Option<State>>, StoreError> {
    let mut of: BTreeMap<Bucket, Vec<usize>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        of.entry(name.bucket).or_default().push(at);
    }
    let reading = of.into_iter().map(async |(bucket, places)| {
        let some: Vec<_> = places.iter().filter_map(|at| names.get(*at)).collect();
        let states = match states_in(reader, bucket, &some).await {
            // A name of an unexpected type makes the whole read fail.
            Err(StoreError::StoreFailed) => {
                let mut states = Vec::with_capacity(some.len());
                for name in some {
                    match states_in(reader, bucket, &[name]).await {
                        Ok(mut state) => states.push(state.pop().flatten()),
                        Err(StoreError::StoreFailed) => states.push(None),
                        Err(trouble) => return Err(trouble),
                    }
                }
                states
            }
            states => states?,
        };
        Ok(places.into_iter().zip(states).collect::<Vec<_>>())
    });
    let mut all = vec![None; names.len()];
    for (at, state) in try_join_all(reading).await?.into_iter().flatten() {
        if let Some(place) = all.get_mut(at) {
            *place = state;
        }
    }
    Ok(all)
}

async fn states_in(reader: &Reader, bucket: Bucket, names: &[&Name]) -> Result<Vec<Option<State>>, StoreError> {
    let asks: Vec<_> = names.iter().flat_map(|name| name.asks()).collect();
    let mut values = reader.read(bucket, &asks).await?.into_iter();
    let mut states = Vec::with_capacity(names.len());
    for name in names {
        let (Some(value), Some(ttl)) = (values.next(), values.next()) else { return Err(StoreError::StoreFailed) };
        states.push(State::read(name.kind, value, ttl));
    }
    Ok(states)
}

#[derive(Debug, Clone, Copy)]
pub enum AuditRange<'a> {
    After(&'a str),
    Only(&'a str),
    /// Both included.
    Between(&'a str, &'a str),
    Last,
}

/// # Errors
/// As for [`Reader::read`].
pub async fn audit_page(reader: &Reader, range: AuditRange<'_>) -> Result<Vec<AuditEntry>, StoreError> {
    let name = Name::of_audit();
    let mut ask = match range {
        AuditRange::Last => redis::cmd("XREVRANGE"),
        AuditRange::After(_) | AuditRange::Only(_) | AuditRange::Between(..) => redis::cmd("XRANGE"),
    };
    ask.arg(&name.text);
    match range {
        AuditRange::After(id) => ask.arg(format!("({id}")).arg("+").arg("COUNT").arg(AUDIT_PAGE),
        AuditRange::Only(id) => ask.arg(id).arg(id),
        AuditRange::Between(first, last) => ask.arg(first).arg(last).arg("COUNT").arg(AUDIT_RANGE),
        AuditRange::Last => ask.arg("+").arg("-").arg("COUNT").arg(1),
    };
    let reply = reader.read(name.bucket, &[ask]).await?.pop().ok_or(StoreError::StoreFailed)?;
    let found: Vec<(String, Vec<Vec<u8>>)> = redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)?;
    let entry = |(id, fields): (String, Vec<Vec<u8>>)| Some((id, fields.into_iter().nth(1)?));
    found.into_iter().map(entry).collect::<Option<Vec<_>>>().ok_or(StoreError::StoreFailed)
}
