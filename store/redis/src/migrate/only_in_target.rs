//! Revocations that only the target has: they were lifted in the source while they were copied.
use std::time::Duration;

use super::run::{MAX_ONLY_IN_TARGET, Run, shown};
use super::scan::{scan, servers_of};
use super::{MigrateError, TO};
use crate::contents::{Found, Name, State};
use crate::entry;

/// A revocation that is being lifted is gone from both stores after this time.
const LIFTED: Duration = Duration::from_secs(1);
/// An entry that is about to expire need not be on both sides.
const ABOUT_TO_EXPIRE_MILLIS: i64 = 5000;

impl Run<'_> {
    /// Counts them. Nothing is removed from the target: a revocation too many does no harm.
    pub async fn find_only_in_target(&mut self) -> Result<(), MigrateError> {
        let mut suspects = Vec::new();
        for server in servers_of(TO, &self.transfer.there)? {
            let mut cursor = 0;
            loop {
                let pattern = entry::PATTERN;
                let (next, names) = scan(TO, &server, cursor, pattern, self.plan.redis_timeout).await?;
                cursor = next;
                let names = names.iter().filter_map(|name| match Found::parse(name) {
                    Found::Ours(name) => Some(name),
                    Found::Sentinel
                    | Found::Log
                    | Found::Timing
                    | Found::Sightings
                    | Found::Issuers
                    | Found::Strange => None,
                });
                let only_in_target = self.only_in_target(names.collect()).await?;
                let room = MAX_ONLY_IN_TARGET.saturating_sub(suspects.len());
                self.only_in_target += only_in_target.len().saturating_sub(room) as u64;
                suspects.extend(only_in_target.into_iter().take(room));
                if cursor == 0 {
                    break;
                }
            }
        }
        // A revocation that was being lifted is gone in the target too by now.
        if !suspects.is_empty() {
            tokio::time::sleep(LIFTED).await;
        }
        for name in self.only_in_target(suspects).await? {
            self.only_in_target += 1;
            self.note(format!("only in `to`: {}", shown(&name.text)));
        }
        Ok(())
    }

    async fn only_in_target(&mut self, names: Vec<Name>) -> Result<Vec<Name>, MigrateError> {
        let stays = |state: &State| match state {
            State::Text { ttl, .. } => *ttl < 0 || *ttl > ABOUT_TO_EXPIRE_MILLIS,
            _ => false,
        };
        let compared = self.compare(names).await?.into_iter();
        Ok(compared.filter(|(_, here, there)| here.is_absent() && stays(there)).map(|(name, ..)| name).collect())
    }
}
