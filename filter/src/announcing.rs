//! Reports the filter's issuers to the service, so that it can refuse a revocation for any other issuer, and compares
//! its retention with what their tokens need, before a request depends on it.
use std::time::Duration;

use authn::time::Monotonic;
use wire::Retention;
use wire::check::{NamedIssuer, Question, pieces};

/// So that a service without memory, or a new store, soon knows the issuers again.
const EVERY: Duration = Duration::from_secs(600);
/// After the service did not answer.
const RETRY: Duration = Duration::from_secs(1);

pub struct Announcing {
    issuers: Vec<NamedIssuer>,
    /// How many of them were reported in this round.
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

    /// The issuers to report now, if it is time. A call without an answer is abandoned.
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

    /// The message of this call, if it is one of ours.
    pub fn question(&self, call: u32) -> Option<&Question> {
        self.call.as_ref().filter(|own| own.id == call).map(|own| &own.question)
    }

    /// The service knows these now. Returns those for which its retention is too short.
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
