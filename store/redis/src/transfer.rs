//! Copies names from one store to another. A copy that is not confirmed is an error. A repeated or late copy does no harm
//! ([`crate::contents`]).
use redis::Value;

use crate::contents::{self, Name};
use crate::entry::Bucket;
use crate::reader::Reader;
use crate::source::Source;
use crate::states::{AUDIT_PAGE, AuditRange, audit_page};
use store::{AuditBounds, Durability, Ending, StoreError, WriteError};

use crate::writer::Writer;

/// In the audit log of a mirror. More than in ours, which is trimmed by age too: nothing is trimmed in the mirror first.
pub const MAX_MIRRORED_AUDIT_ENTRIES: usize = AuditBounds::MAX_ENTRIES + AuditBounds::MAX_ENTRIES / 10;

/// The source and the target.
#[derive(Debug)]
pub struct Transfer {
    pub from: Source,
    pub to: Writer,
    /// Reads from the store of `to`.
    pub there: Reader,
    /// About how many audit entries the target keeps.
    pub audit_entries: usize,
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
        let read = self.from.states(names).await.map_err(WriteError::NotWritten)?;
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
        let next = self.from.audit_page(AuditRange::After(&after)).await.map_err(not)?;
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
                self.from.audit_page(AuditRange::Only(own)).await.map_err(not)?
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
