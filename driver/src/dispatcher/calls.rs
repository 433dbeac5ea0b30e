//! The callouts in flight, each with its owner.
use std::collections::HashMap;
use std::time::Duration;

use authn::time::{Monotonic, Now};
use wire::check::Question;
use wire::feed::Poll;
use wire::sightings::Report;

use crate::checks::BatchId;
use crate::host::CallId;
use crate::introspections::QueryId;

/// What a callout is for.
pub enum Owner {
    Check {
        batch: BatchId,
        question: Question,
    },
    Introspection {
        issuer: usize,
        query: QueryId,
    },
    Keys {
        issuer: usize,
    },
    Feed {
        poll: Poll,
    },
    /// It has `count` sightings.
    Sightings {
        report: Report,
        count: usize,
    },
    /// It named `issuers` issuers.
    Announcement {
        question: Question,
        issuers: usize,
    },
}

#[derive(Default)]
pub struct Calls(HashMap<CallId, Call>);

struct Call {
    owner: Owner,
    sent: Monotonic,
    lost: Monotonic,
}

/// The host answers every callout, at the latest at its timeout. A callout that it loses is forgotten after this many.
const LOST_AFTER_TIMEOUTS: u32 = 4;
const LOST_AT_LEAST: Duration = Duration::from_secs(1);

impl Calls {
    pub fn insert(&mut self, id: CallId, owner: Owner, timeout: Duration, now: Now) {
        let lost = now.monotonic.plus(timeout.saturating_mul(LOST_AFTER_TIMEOUTS).max(LOST_AT_LEAST));
        self.0.insert(id, Call { owner, sent: now.monotonic, lost });
    }

    /// The owner of a callout whose reply came, and when the callout was sent. `None` for an abandoned one.
    pub fn take(&mut self, id: CallId) -> Option<(Owner, Monotonic)> {
        self.0.remove(&id).map(|call| (call.owner, call.sent))
    }

    /// Like [`Calls::take`], only for a check.
    pub fn take_check(&mut self, id: CallId) -> Option<Owner> {
        let is_check = matches!(self.0.get(&id)?.owner, Owner::Check { .. });
        is_check.then(|| self.0.remove(&id))?.map(|call| call.owner)
    }

    /// The owners of callouts whose replies will never come.
    pub fn overdue(&mut self, now: Monotonic) -> Vec<Owner> {
        let lost: Vec<CallId> = self.0.iter().filter(|(_, call)| call.lost <= now).map(|(id, _)| *id).collect();
        lost.into_iter().filter_map(|id| self.0.remove(&id)).map(|call| call.owner).collect()
    }
}
