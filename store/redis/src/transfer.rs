//! Copies names from one store to another. A copy that is not confirmed is an error. A repeated or late copy does no harm
//! ([`crate::contents`]).
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::Value;

use crate::contents::{self, Name, State};
use crate::entry::Bucket;
use crate::reader::Reader;
use store::{AuditBounds, Durability, Ending, StoreError, WriteError};

use crate::writer::Writer;

/// In the audit log of a mirror. More than in ours, which is trimmed by age too: nothing is trimmed in the mirror first.
pub const MAX_MIRRORED_AUDIT_ENTRIES: usize = AuditBounds::MAX_ENTRIES + AuditBounds::MAX_ENTRIES / 10;

/// Entries of the audit stream in one command.
pub const AUDIT_PAGE: usize = 200;
/// The most entries of a range; there are fewer, since the service limits the rate of the requests that cause them.
const AUDIT_RANGE: usize = 20_000;

/// An entry of the audit stream: its id, and its content.
pub type AuditEntry = (String, Vec<u8>);

/// The source and the target.
#[derive(Debug)]
pub struct Transfer {
    pub from: Arc<Reader>,
    pub to: Writer,
    /// Reads from the store of `to`.
    pub there: Reader,
    /// About how many audit entries the target keeps.
    pub audit_entries: usize,
}

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

impl Transfer {
    /// Copies what the source has under `names` now. Absent names and the audit log are left out.
    ///
    /// `least` is what was just written under each of the first names. A weaker state was read from another server, such as an
    /// old primary, and is not acknowledged.
    ///
    /// # Errors
    /// See [`WriteError`]. Some may have been copied.
    pub async fn copy(&self, names: &[Name], least: &[Ending]) -> Result<Option<Durability>, WriteError> {
        let read = states(&self.from, names).await.map_err(WriteError::NotWritten)?;
        for (state, least) in read.iter().zip(least) {
            if !state.as_ref().is_some_and(|state| state.ends(*least)) {
                return Err(WriteError::NotWritten(StoreError::StoreUnsafe));
            }
        }
        let mut merges = Vec::with_capacity(names.len());
        for (name, state) in names.iter().zip(&read) {
            let state = state.as_ref().ok_or(WriteError::NotWritten(StoreError::StoreFailed))?;
            merges.extend(name.merge(state).map(|merge| (name.bucket, merge)));
        }
        self.run(merges).await.map(|done| done.map(|(_, confirmed)| confirmed))
    }

    /// Runs `commands` on the target. `None`: there were none.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn run(
        &self,
        commands: Vec<(Bucket, redis::Cmd)>,
    ) -> Result<Option<(Vec<Value>, Durability)>, WriteError> {
        if commands.is_empty() {
            return Ok(None);
        }
        let buckets: Vec<_> = commands.iter().map(|(bucket, _)| *bucket).collect();
        let written = self.to.run_all(commands).await?;
        if self.there.may_forget(&buckets) {
            return Err(WriteError::Unconfirmed("the store may lose it (store_unsafe)".into()));
        }
        Ok(Some((written.replies, written.durability)))
    }

    /// Copies the next entries of the audit log, in their order and under their ids, so that the target always has a prefix of
    /// it. How many there were; 0: the target has all.
    ///
    /// `own` is the id of an entry that must be in the target when this returns, if all entries before it are.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn copy_audit(&self, own: Option<&str>) -> Result<usize, WriteError> {
        let not = WriteError::NotWritten;
        let top = audit_page(&self.there, AuditRange::Last).await.map_err(not)?.pop();
        let after = top.as_ref().map_or("0", |(id, _)| id.as_str()).to_owned();
        let next = audit_page(&self.from, AuditRange::After(&after)).await.map_err(not)?;
        let bucket = Name::of_audit().bucket;
        let (mine, others): (Vec<_>, Vec<_>) = next.iter().cloned().partition(|(id, _)| Some(id.as_str()) == own);
        let mut merges = Vec::new();
        if !others.is_empty() {
            merges.push((bucket, contents::merge_audit(self.audit_entries, &others, false)));
        }
        // Another instance may have copied it already, or an instance with the stores the other way round may have appended
        // to the target. If it is not in the page because there are too many entries, a later page has it.
        let mine = match own {
            Some(own) if mine.is_empty() && next.len() < AUDIT_PAGE => {
                audit_page(&self.from, AuditRange::Only(own)).await.map_err(not)?
            }
            _ => mine,
        };
        if !mine.is_empty() {
            merges.push((bucket, contents::merge_audit(self.audit_entries, &mine, true)));
        }
        self.run(merges).await?;
        Ok(next.len())
    }
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
