//! Requests with unknown keys: which of them wait for a fetch, and when they are resumed.
use authn::time::Now;

use super::Dispatcher;
use crate::dispatcher::key_fetching::{Outcome, Waiting};
use crate::host::{CalloutReply, Host, StreamId};
use crate::key_waits::KeyWait;
use crate::metrics::Metric;
use crate::wake::Wake;

/// A token that does not verify with its issuer's keys as the worker knows them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeysWanted {
    pub issuer: usize,
    /// The number of the issuer's key set that it was verified with.
    pub generation: u32,
    /// Its signature matches no key.
    pub is_mismatch: bool,
}

impl Dispatcher {
    /// `None`: the request waits. Otherwise it is verified with the present keys.
    pub(crate) fn await_keys(
        &mut self,
        host: &mut impl Host,
        stream: StreamId,
        wanted: KeysWanted,
        now: Now,
    ) -> Option<Wake> {
        let KeysWanted { issuer, generation, is_mismatch } = wanted;
        let held = self.keys.rings.source(issuer).map(|source| (source.generation(), source.longest_fetch()));
        let Some((current, longest_fetch)) = held else { return Some(Wake::Keys { is_judged_anew: false }) };
        if current != generation {
            return Some(Wake::Keys { is_judged_anew: true });
        }
        match self.keys.is_worth_waiting(host, &mut self.calls, &self.core, issuer, now) {
            Waiting::Yes => {
                let deadline = now.monotonic.plus(longest_fetch);
                let wait = KeyWait { issuer, deadline, generation, is_mismatch };
                let joined = self.key_waits.join(stream, wait);
                joined.is_err().then_some(Wake::Keys { is_judged_anew: false })
            }
            Waiting::LookAgain => {
                self.core.keys.publish(&self.keys.rings);
                self.wake_all_of(issuer);
                Some(Wake::Keys { is_judged_anew: true })
            }
            Waiting::No => Some(Wake::Keys { is_judged_anew: false }),
        }
    }

    pub(super) fn tick_keys(&mut self, host: &mut impl Host, now: Now) {
        for (issuer, outcome) in self.keys.on_tick(host, &mut self.calls, &self.core, now) {
            self.on_key_news(host, issuer, outcome);
        }
        for stream in self.key_waits.overdue(now.monotonic) {
            self.wake_one(stream);
        }
        // Another worker's fetch may have failed; then no set will come. The order matters: that worker shares its
        // result before it marks the fetch as done.
        for issuer in self.key_waits.issuers() {
            if !self.keys.is_under_way(host, issuer, now.monotonic) {
                if self.keys.adopt(host, issuer, now.monotonic) {
                    self.core.keys.publish(&self.keys.rings);
                }
                self.wake_all_of(issuer);
            }
        }
    }

    pub(super) fn on_keys_answered(
        &mut self,
        host: &mut impl Host,
        issuer: usize,
        reply: &impl CalloutReply,
        now: Now,
    ) {
        if let Some(outcome) = self.keys.on_answered(host, &mut self.calls, &self.core, issuer, reply, now) {
            self.on_key_news(host, issuer, outcome);
        }
    }

    pub(super) fn on_keys_lost(&mut self, host: &mut impl Host, issuer: usize, now: Now) {
        self.keys.fail(host, &self.core, issuer, "no answer came", now.monotonic);
        self.on_key_news(host, issuer, Outcome::Failed);
    }

    fn on_key_news(&mut self, host: &mut impl Host, issuer: usize, outcome: Outcome) {
        let result = match outcome {
            Outcome::Renewed => "ok",
            Outcome::Failed => "failed",
        };
        host.add(Metric::KeyFetches, &[self.core.issuer_name(issuer), result], 1);
        self.core.keys.publish(&self.keys.rings);
        self.wake_all_of(issuer);
    }

    fn wake_all_of(&mut self, issuer: usize) {
        for stream in self.key_waits.of(issuer) {
            self.wake_one(stream);
        }
    }

    fn wake_one(&mut self, stream: StreamId) {
        let Some(wait) = self.key_waits.leave(stream) else { return };
        // The same keys would give the same result, at the price of as many signature checks.
        let is_judged_anew = wait.is_judged_anew(self.keys.rings.source(wait.issuer));
        self.wakes.wake(stream, Wake::Keys { is_judged_anew });
    }
}
