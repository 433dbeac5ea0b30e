//! The audit log: its entries keep their ids and their order.
use std::collections::HashSet;
use std::time::Instant;

use super::run::{POLL, Run};
use super::{FROM, MigrateError, TO};
use crate::contents::Kind;
use crate::states::{AUDIT_PAGE, AuditRange, audit_page};

/// How far from its time in the source an audit entry is looked for.
const AUDIT_LATE_MILLIS: u64 = 10_000;

impl Run<'_> {
    pub async fn copy_audit(&mut self) -> Result<(), MigrateError> {
        loop {
            let brought = self.transfer.copy_audit(None).await.map_err(MigrateError::Write)?;
            self.tallies.entry(Kind::Audit).or_default().copied += brought as u64;
            if brought < AUDIT_PAGE {
                return Ok(());
            }
        }
    }

    pub async fn verify_audit(&mut self) -> Result<(), MigrateError> {
        let from = |error| MigrateError::Store(FROM, error);
        let mut after = "0".to_owned();
        loop {
            let page = self.transfer.from.audit_page(AuditRange::After(&after)).await.map_err(from)?;
            let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else { return Ok(()) };
            let range = AuditRange::Between(first, last);
            // A concurrent entry may have got a later id in either store.
            let millis = |id: &str| id.split('-').next().and_then(|id| id.parse().ok()).unwrap_or(0_u64);
            let begin = millis(first).saturating_sub(AUDIT_LATE_MILLIS).to_string();
            let end = millis(last).saturating_add(AUDIT_LATE_MILLIS).to_string();
            let began = Instant::now();
            let mut missing;
            loop {
                // An entry that was trimmed here meanwhile may be missing there.
                let here = self.transfer.from.audit_page(range).await.map_err(from)?;
                let there = audit_page(&self.transfer.there, AuditRange::Between(&begin, &end)).await;
                let there = there.map_err(|error| MigrateError::Store(TO, error))?;
                // Each entry is encrypted under a nonce of its own, so no two are equal.
                let there: HashSet<_> = there.into_iter().map(|(_, value)| value).collect();
                missing =
                    here.into_iter().filter(|(_, value)| !there.contains(value)).map(|(id, _)| id).collect::<Vec<_>>();
                if missing.is_empty() || began.elapsed() >= self.settle() {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
            if !missing.is_empty() {
                self.settle_budget = self.settle_budget.saturating_sub(1);
            }
            let tally = self.tallies.entry(Kind::Audit).or_default();
            tally.found += page.len() as u64;
            tally.differing += missing.len() as u64;
            for id in missing {
                self.note(format!("differs: audit entry {id}"));
            }
            // Services mirror the entries that come after.
            if page.len() < AUDIT_PAGE {
                return Ok(());
            }
            after = last.clone();
        }
    }
}
