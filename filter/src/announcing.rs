//! Tells the service which issuers it is asked about, so that it can refuse a revocation for one that nobody has, and
//! compares what it keeps with what their tokens need, before a request depends on it.
use std::time::Duration;

use authn::time::Monotonic;
use wire::Retention;
use wire::check::{NamedIssuer, Question, pieces};

/// So that a service without memory, or a new store, knows the issuers again soon.
const EVERY: Duration = Duration::from_secs(600);
/// After the service did not answer.
const RETRY: Duration = Duration::from_secs(1);

pub struct Announcing {
    issuers: Vec<NamedIssuer>,
    /// How many of them were told in this round.
    told: usize,
    due: Monotonic,
    call: Option<Call>,
}

struct Call {
    id: u32,
    question: Question,
    sent: Monotonic,
    issuers: usize,
}

impl Announcing {
    pub fn new(issuers: Vec<NamedIssuer>, now: Monotonic) -> Self {
        Self { issuers, told: 0, due: now, call: None }
    }

    /// The issuers to tell now, if it is time. A call whose answer never comes is forgotten.
    pub fn due(&mut self, now: Monotonic) -> Option<Vec<NamedIssuer>> {
        if self.call.as_ref().is_some_and(|call| now.since(call.sent) < EVERY) || now < self.due {
            return None;
        }
        pieces(self.issuers.get(self.told..)?).first().map(|piece| piece.to_vec())
    }

    pub fn sent(&mut self, id: u32, question: Question, issuers: usize, now: Monotonic) {
        self.call = Some(Call { id, question, sent: now, issuers });
    }

    pub fn not_told(&mut self, now: Monotonic) {
        self.call = None;
        self.told = 0;
        self.due = now.plus(RETRY);
    }

    /// The question that this call asked, if it is ours.
    pub fn question(&self, call: u32) -> Option<&Question> {
        self.call.as_ref().filter(|own| own.id == call).map(|own| &own.question)
    }

    /// The service knows these now. Those whose revocations it does not keep for long enough are returned.
    pub fn told(&mut self, keeps: Retention, now: Monotonic) -> Vec<NamedIssuer> {
        let count = self.call.take().map_or(0, |call| call.issuers);
        let from = self.told;
        self.told = from.saturating_add(count);
        let told = self.issuers.get(from..self.told).unwrap_or(&[]);
        let short = told.iter().filter(|issuer| !keeps.covers(issuer.needs)).cloned().collect();
        if self.told >= self.issuers.len() {
            self.told = 0;
            self.due = now.plus(EVERY);
        }
        short
    }
}
