//! What the log and the metrics report about a round.
use std::collections::BTreeMap;

use store::{Observer, StoreError};

use super::Role;
use super::probe::Probe;
use crate::connection::ConnectionError;
use crate::entry::{Bucket, Sentinel};
use crate::health::Allow;
use crate::options::Address;
use crate::routes::Routes;

/// The result of a round, reduced to what explains a failure.
pub struct Findings<'a> {
    pub servers: &'a BTreeMap<Address, Result<Probe, ConnectionError>>,
    pub allow: Allow,
    pub is_asked: &'a dyn Fn(&Address) -> bool,
    /// Why there is no primary.
    pub no_primary: Option<&'a str>,
    pub sentinels: &'a [Option<Sentinel>],
    pub has_leases: bool,
}

impl Findings<'_> {
    /// All that is wrong, for an operator.
    pub fn describe(&self, routes: &Routes) -> String {
        let mut parts = Vec::new();
        for (address, probed) in self.servers {
            match probed {
                Err(failure) => parts.push(format!("{}: {address}: {}", failure.error.name(), failure.reason)),
                Ok(probe) => {
                    if let Err(unhealthy) = probe.health.judge(self.allow)
                        && (self.is_asked)(address)
                    {
                        parts.push(format!("{}: {address}: {unhealthy}", StoreError::StoreUnsafe.name()));
                    }
                }
            }
        }
        parts.extend(self.no_primary.map(str::to_owned));
        if routes.whole.is_err() {
            parts.push(format!("{}: {}", StoreError::StoreChanged.name(), self.describe_sentinels()));
        }
        let lost = Bucket::all().filter(|bucket| routes.to(*bucket).is_err()).count();
        if lost > 0 && self.has_leases {
            parts.push(format!("{lost} of {} buckets have no confirmed primary", Bucket::all().count()));
        }
        parts.join("; ")
    }

    fn describe_sentinels(&self) -> String {
        let count = |wanted: fn(&Sentinel) -> bool| self.sentinels.iter().flatten().filter(|seen| wanted(seen)).count();
        let missing = count(|seen| matches!(seen, Sentinel::Missing));
        let new = count(|seen| matches!(seen, Sentinel::New(_)));
        let filling = count(|seen| matches!(seen, Sentinel::Filling(_)));
        let all = self.sentinels.len();
        match (missing, new) {
            _ if filling > 0 => {
                "the store is still being filled from another: `portcullis migrate` completes it once it \
                                 has verified it; until then only `--mirror-redis` may name it"
                    .to_owned()
            }
            (0, 0) => {
                "a sentinel is another store's. This service answers from the store that it found first, or that \
                       `--store-id` names, and from no other. If the store was made anew on purpose, restart every \
                       service"
                    .to_owned()
            }
            (missing, 0) if missing < all => format!(
                "{missing} of {all} sentinels are missing: a part of the store was lost, and revocations with it; \
                 restore it first"
            ),
            (_, 0) => {
                "no sentinel. If this store is meant to be new, make it with `portcullis store create`, and restart \
                       the services that answered from another one before; else revocations were lost, restore them \
                       first"
                    .to_owned()
            }
            _ => "the store was not completely created; complete it with `portcullis store create`".to_owned(),
        }
    }
}

/// The last logged state. Only changes are logged.
#[derive(Default)]
pub struct StatusLog(Option<String>);

impl StatusLog {
    pub fn update(&mut self, role: Role, routes: &Routes, is_ready: bool, evicted: u64, observer: &dyn Observer) {
        match role {
            Role::Primary => {
                observer.ready(is_ready);
                observer.evicted(evicted);
            }
            Role::Mirror => observer.mirror_ready(is_ready),
        }
        let state = routes.state.as_str();
        if self.0.as_deref() == Some(state) {
            return;
        }
        match (role, is_ready) {
            (Role::Primary, true) => tracing::info!(state, "store"),
            (Role::Primary, false) => tracing::warn!(state, "store"),
            (Role::Mirror, true) => tracing::info!(state, "mirror"),
            (Role::Mirror, false) => tracing::warn!(state, "mirror: writes are not acknowledged"),
        }
        self.0 = Some(state.to_owned());
    }
}
