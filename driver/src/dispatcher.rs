//! Everything that requests wait for, for all threads of a configuration: batches of checks, introspection, key sets,
//! the feed of revocations, the ends of open streams, and reports of sightings.
//! It sends callouts, reads their replies, enforces deadlines, and says which requests are to be resumed and with what.
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use authn::decide::Unavailable;
use authn::reject::Cause;
use authn::time::Now;

use crate::counts::{Counts, PartOfGauge};
use crate::host::{CallId, CalloutReply, Host, StreamId};
use crate::key_waits::KeyWaits;
use crate::metrics::{Metric, WaitsFor};
use crate::sightings::Sightings;
use crate::state::Core;
use crate::streams::OpenStreams;
use crate::wake::Wake;

mod announcing;
mod calls;
mod checking;
mod following;
mod introspecting;
mod key_fetching;
mod regions;
mod reporting;
mod streaming;
mod waiting_for_keys;

use announcing::Announcing;
use calls::{Calls, Owner};
use checking::Checking;
use following::Feed;
pub(crate) use introspecting::Introspect;
use introspecting::Introspecting;
use key_fetching::KeyFetching;
pub(crate) use waiting_for_keys::KeysWanted;

/// How often [`Dispatcher::tick`] is called. A request's own deadline is exact to within this.
pub const TICK: Duration = Duration::from_millis(100);

/// One for each configuration of a VM or process.
pub struct Dispatcher {
    core: Arc<Core>,
    calls: Calls,
    checking: Option<Checking>,
    announcing: Announcing,
    feed: Option<Feed>,
    /// Whether the last reply was of a service that lags too much behind another region.
    regions_exceeded: bool,
    introspecting: Introspecting,
    keys: KeyFetching,
    /// Requests that wait for a fetch in flight, which may bring the key for their tokens.
    key_waits: KeyWaits,
    streams: OpenStreams,
    sightings: Sightings,
    wakes: Wakes,
    counts: Counts,
    waiting: [PartOfGauge; WaitsFor::ALL.len()],
    open_streams: PartOfGauge,
    /// The last reported ages of key sets in seconds, by issuer.
    key_ages: HashMap<usize, u64>,
}

/// How a worker reaches the dispatcher: directly if both run in one thread, otherwise through a lock.
pub trait Dispatch {
    fn with<T>(&mut self, work: impl FnOnce(&mut Dispatcher) -> T) -> T;
}

/// Requests that no longer have to wait.
#[derive(Default)]
struct Wakes {
    ready: HashMap<StreamId, Wake>,
    /// In order. May name requests that were already taken or are gone.
    order: VecDeque<StreamId>,
}

impl Dispatcher {
    pub(crate) fn new(core: Arc<Core>, host: &mut impl Host, random: [u8; 24], shares_feed: bool, now: Now) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, nonce @ ..] = random;
        let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let jitter = u64::from_le_bytes([i, j, k, l, m, n, o, p]) | 1;
        let policy = &core.policy;
        let mut keys = KeyFetching::new(policy, jitter);
        keys.on_configured(host, now.monotonic);
        core.keys.publish(&keys.rings);
        let feed = policy.revocation().and_then(|revocation| Feed::new(revocation, shares_feed, seed ^ jitter));
        if let Some(feed) = &feed {
            feed.on_configured(host);
        }
        Self {
            calls: Calls::default(),
            checking: policy.revocation().map(|revocation| Checking::new(policy, revocation, nonce)),
            feed,
            regions_exceeded: false,
            announcing: Announcing::new(policy.issuers_asked_about(), now.monotonic),
            introspecting: Introspecting::new(policy, seed),
            keys,
            key_waits: KeyWaits::new(policy.limits().waiting_requests),
            streams: OpenStreams::new(policy.limits().open_streams),
            sightings: Sightings::default(),
            wakes: Wakes::default(),
            counts: Counts::default(),
            waiting: Default::default(),
            open_streams: PartOfGauge::default(),
            key_ages: HashMap::new(),
            core,
        }
    }

    /// The reply to a callout, or the notice that none will come. Replies to abandoned callouts are ignored.
    pub fn answered(&mut self, host: &mut impl Host, call: CallId, reply: &impl CalloutReply) {
        let Ok(now) = host.now() else {
            // Without the time no reply can be used. Keys and introspection are retried, or given up, by their
            // deadlines.
            if let Some(Owner::Check { batch, .. }) = self.calls.take_check(call) {
                self.checks_failed(batch, Unavailable::NotToBeTrusted, Cause::NoTime);
            }
            return;
        };
        let Some((owner, sent)) = self.calls.take(call) else { return };
        match owner {
            Owner::Check { batch, question } => {
                self.on_check_answered(host, (batch, &question, sent), reply, now);
                self.send_checks(host, crate::checks::Trigger::Waiters, now);
            }
            Owner::Announcement { question, issuers } => self.on_announced(host, &question, issuers, reply, now),
            Owner::Introspection { issuer, query } => {
                self.on_introspection_answered(host, issuer, query, sent, reply, now)
            }
            Owner::Keys { issuer } => self.on_keys_answered(host, issuer, reply, now),
            Owner::Feed { poll } => self.on_feed_answered(host, &poll, sent, reply, now),
            Owner::Sightings { report, count } => self.on_reported(&report, count, reply),
        }
    }

    /// Call this every [`TICK`]. It enforces deadlines, fetches keys that are due and reports metrics.
    pub fn tick(&mut self, host: &mut impl Host) {
        self.flush(host);
        let Ok(now) = host.now() else { return };
        self.tick_keys(host, now);
        self.tick_feed(host, now);
        self.tick_introspections(host, now);
        self.judge_streams(host, now);
        self.tick_checks(host, now);
        self.report_sightings(host, now);
        for call in self.calls.overdue(now.monotonic) {
            match call {
                Owner::Keys { issuer } => self.on_keys_lost(host, issuer, now),
                Owner::Announcement { .. } => self.announcing.not_told(now.monotonic),
                Owner::Feed { .. } => self.on_feed_lost(now.monotonic),
                Owner::Sightings { count, .. } => self.not_reported(count),
                // They have deadlines of their own.
                Owner::Check { .. } | Owner::Introspection { .. } => {}
            }
        }
        self.report_levels(host, now);
    }

    /// The next request to resume, if there is one.
    pub fn poll_wake(&mut self) -> Option<StreamId> {
        self.wakes.poll()
    }

    /// The event for this request, if it has come.
    pub fn take(&mut self, stream: StreamId) -> Option<Wake> {
        self.wakes.ready.remove(&stream)
    }

    /// The request is gone, or no longer waits.
    pub fn leave(&mut self, stream: StreamId) {
        self.streams.leave(stream);
        self.wakes.ready.remove(&stream);
        self.key_waits.leave(stream);
        self.introspecting.leave(stream);
        if let Some(checking) = &mut self.checking {
            checking.leave(stream);
        }
    }

    /// This configuration ends. Its share of every gauge is removed.
    pub fn end(&mut self, host: &mut impl Host) {
        self.flush(host);
        self.end_feed(host);
        for (what, gauge) in WaitsFor::ALL.iter().zip(&mut self.waiting) {
            gauge.set(host, Metric::WaitingRequests, &[what.name()], 0);
        }
        self.open_streams.set(host, Metric::StreamsOpen, &[], 0);
        for issuer in self.key_ages.drain().map(|(issuer, _)| issuer) {
            host.record(Metric::KeysAgeSeconds, &[self.core.issuer_name(issuer)], 0);
        }
    }

    /// Reports what was counted since the last tick.
    pub fn flush(&mut self, host: &mut impl Host) {
        self.counts.flush(host, |rule| self.core.rule_name(rule));
    }

    fn report_levels(&mut self, host: &mut impl Host, now: Now) {
        let checks = self.checking.as_ref().map_or(0, Checking::waiting);
        let waiting = [checks, self.introspecting.waiting(), self.key_waits.len()];
        for ((what, gauge), count) in WaitsFor::ALL.iter().zip(&mut self.waiting).zip(waiting) {
            gauge.set(host, Metric::WaitingRequests, &[what.name()], count);
        }
        self.open_streams.set(host, Metric::StreamsOpen, &[], self.streams.len());
        for (issuer, fetched) in self.keys.fetched() {
            let age = now.monotonic.since(fetched).as_secs();
            if self.key_ages.insert(issuer, age) != Some(age) {
                host.record(Metric::KeysAgeSeconds, &[self.core.issuer_name(issuer)], age);
            }
        }
    }
}

impl Wakes {
    fn wake(&mut self, stream: StreamId, wake: Wake) {
        self.ready.insert(stream, wake);
        self.order.push_back(stream);
    }

    fn poll(&mut self) -> Option<StreamId> {
        while let Some(stream) = self.order.pop_front() {
            if self.ready.contains_key(&stream) {
                return Some(stream);
            }
        }
        None
    }
}

impl Dispatch for Dispatcher {
    fn with<T>(&mut self, work: impl FnOnce(&mut Dispatcher) -> T) -> T {
        work(self)
    }
}

impl Dispatch for &Mutex<Dispatcher> {
    fn with<T>(&mut self, work: impl FnOnce(&mut Dispatcher) -> T) -> T {
        work(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
