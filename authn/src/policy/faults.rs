//! The status of each reject reason.
use std::collections::HashMap;

use crate::config;
use crate::config::Invalid;
use crate::reject::RejectReason;

#[derive(Debug)]
pub(crate) struct Faults {
    statuses: HashMap<RejectReason, u16>,
    pub(crate) realm: Option<String>,
    pub(crate) log: config::RefusalLog,
}

impl Faults {
    pub(crate) fn status(&self, reason: RejectReason) -> u16 {
        // Every reason has an entry. 500 would mean that this file is wrong, and it still refuses.
        self.statuses.get(&reason).copied().unwrap_or(500)
    }
}

pub(super) fn compile_faults(document: &config::Faults) -> Result<Faults, Invalid> {
    let mut statuses: HashMap<RejectReason, u16> = RejectReason::ALL
        .iter()
        .map(|&reason| match document.statuses {
            config::Statuses::Distinct => (reason, reason.distinct_status()),
            config::Statuses::Rfc6750 => (reason, reason.rfc6750_status()),
        })
        .collect();
    for (code, &status) in &document.overrides {
        let at = format!("faults.overrides.{code}");
        let reason = RejectReason::ALL
            .iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| Invalid::new(&at, format!("`{code}` is not a fault code")))?;
        if !(400..=599).contains(&status) {
            return Err(Invalid::new(at, format!("{status} is not a status for refusals: use 400 to 599")));
        }
        statuses.insert(*reason, status);
    }
    if let Some(realm) = &document.realm
        && !realm.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    {
        return Err(Invalid::new("faults.realm", "must be printable ASCII without quotes and backslashes"));
    }
    Ok(Faults { statuses, realm: document.realm.clone(), log: document.log })
}
