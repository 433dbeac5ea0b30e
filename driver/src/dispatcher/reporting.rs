//! Reports sightings of sessions to the service. No request waits for a report, and none that is lost is repeated.
use authn::time::Now;
use wire::sightings::{CONTENT_TYPE, MAX_REPLY_BYTES, PATH, Report, Sighting};

use super::checking::call_service;
use super::{Dispatcher, Owner};
use crate::counts::{Counter, SightingResult};
use crate::host::{CalloutReply, Host};

impl Dispatcher {
    /// A request was admitted.
    pub(crate) fn sighted(&mut self, sighting: Sighting, now: Now) {
        if self.sightings.add(sighting, now.monotonic).is_err() {
            self.counts.count(Counter::Sighting(SightingResult::Dropped));
        }
    }

    pub(super) fn report_sightings(&mut self, host: &mut impl Host, now: Now) {
        let core = std::sync::Arc::clone(&self.core);
        let Some(revocation) = core.policy.revocation() else { return };
        let Some(sightings) = self.sightings.take(revocation.timeout, now.monotonic) else { return };
        let Some((nonce, needs)) = self.next_message(now) else { return };
        let (report, count) = (Report::new(&revocation.derived, nonce, needs, &sightings), sightings.len());
        match call_service(host, revocation, (PATH, CONTENT_TYPE), report.bytes()) {
            Some(call) => self.calls.insert(call, Owner::Sightings { report, count }, revocation.timeout, now),
            None => self.not_reported(count),
        }
    }

    pub(super) fn on_reported(&mut self, report: &Report, count: usize, reply: &impl CalloutReply) {
        let is_taken = || {
            let (revocation, status) = (self.core.policy.revocation()?, reply.status()?);
            let body = reply.body(MAX_REPLY_BYTES.saturating_add(1)).ok()?;
            report.is_taken(&revocation.derived, status, &body).ok()
        };
        match is_taken() {
            Some(true) => self.counts.add(Counter::Sighting(SightingResult::Sent), count),
            Some(false) | None => self.not_reported(count),
        }
    }

    pub(super) fn not_reported(&mut self, count: usize) {
        self.counts.add(Counter::Sighting(SightingResult::Lost), count);
    }
}
