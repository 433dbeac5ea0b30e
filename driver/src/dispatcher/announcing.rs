//! Reports this filter's issuers to the service, so that the service can refuse a revocation for an unknown issuer.
//! Also compares the service's retention with what their tokens need, before a request depends on it.
use std::time::Duration;

use authn::time::{Monotonic, Now};
use wire::check::{NamedIssuer, Question, StoreError, pieces};
use wire::{DerivedKeys, Retention};

use super::{Dispatcher, Owner};
use crate::counts::{CheckFailure, Counter};
use crate::host::{CalloutReply, Host, Level};

/// Repeated, so that a restarted service, or a new store, soon knows the issuers again.
const EVERY: Duration = Duration::from_secs(600);
/// After the service did not answer.
const RETRY: Duration = Duration::from_secs(1);

pub struct Announcing {
    issuers: Vec<NamedIssuer>,
    /// How many of them were reported in this round.
    told: usize,
    due: Monotonic,
    in_flight_since: Option<Monotonic>,
}

impl Announcing {
    pub fn new(issuers: Vec<NamedIssuer>, now: Monotonic) -> Self {
        Self { issuers, told: 0, due: now, in_flight_since: None }
    }

    /// The issuers to report now, if it is time. A callout whose reply never comes is forgotten.
    fn due(&mut self, now: Monotonic) -> Option<Vec<NamedIssuer>> {
        if self.in_flight_since.is_some_and(|sent| now.since(sent) < EVERY) || now < self.due {
            return None;
        }
        pieces(self.issuers.get(self.told..)?).first().map(|piece| piece.to_vec())
    }

    pub(super) fn not_told(&mut self, now: Monotonic) {
        self.in_flight_since = None;
        self.told = 0;
        self.due = now.plus(RETRY);
    }

    /// The service now knows `count` more of them. Returns those whose revocations it does not keep for long enough.
    fn told(&mut self, count: usize, keeps: Retention, now: Monotonic) -> Vec<NamedIssuer> {
        self.in_flight_since = None;
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

impl Dispatcher {
    pub(super) fn announce(&mut self, host: &mut impl Host, now: Now) {
        let Some(issuers) = self.announcing.due(now.monotonic) else { return };
        let asking = |derived: &DerivedKeys, nonce, needs| Question::about_issuers(derived, nonce, needs, &issuers);
        let owner = |question| Owner::Announcement { question, issuers: issuers.len() };
        if self.ask_service(host, asking, owner, now) {
            self.announcing.in_flight_since = Some(now.monotonic);
        } else {
            self.announcing.not_told(now.monotonic);
        }
    }

    pub(super) fn on_announced(
        &mut self,
        host: &mut impl Host,
        question: &Question,
        issuers: usize,
        reply: &impl CalloutReply,
        now: Now,
    ) {
        let Ok(reply) = self.read_reply(question, reply) else { return self.announcing.not_told(now.monotonic) };
        for issuer in self.announcing.told(issuers, reply.keeps, now.monotonic) {
            self.counts.count(Counter::CheckFailed(CheckFailure::Service(StoreError::RetentionTooShort)));
            host.log(Level::Error, format_args!("{}", too_short(&issuer, reply.keeps)));
        }
    }
}

/// Once for each issuer and report: until it is fixed, none of its tokens passes where revocation is checked.
fn too_short(issuer: &NamedIssuer, keeps: Retention) -> String {
    let NamedIssuer { issuer, needs, .. } = issuer;
    format!(
        "portcullis: the service's retention is shorter than the tokens' lifetime, so tokens of issuer={issuer} are \
         refused cause=\"retention_too_short\": kept are {}s for a token and {}s for a login, needed are {}s and {}s; raise \
         --max-lifetime and --max-session of the service, or lower max_lifetime and max_session here",
        keeps.token, keeps.login, needs.token, needs.login
    )
}
