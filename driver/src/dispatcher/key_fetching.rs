//! Fetches published keys: one worker of a process fetches for all, and the others read the result from shared data.
//! `authn::key_source` decides what to fetch and when.
use std::collections::HashMap;
use std::time::Duration;

use authn::keys::answer::Answer;
use authn::keys::rings::Keyrings;
use authn::keys::source::{Fetch, KeySource, Occasion, Progress, Unknown};
use authn::policy::Policy;
use authn::time::{Monotonic, Now};

use super::{Calls, Owner};
use crate::host::{Callout, CalloutReply, Host, Level};
use crate::shared::{Lease, SharedKeys};
use crate::state::Core;

pub struct KeyFetching {
    pub rings: Keyrings,
    /// By issuer. Without a secret, shared entries could be forged unnoticed, so each worker fetches for itself.
    shared: HashMap<usize, SharedKeys>,
    jitter: u64,
}

/// The effect on one issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A newer set is installed.
    Renewed,
    Failed,
}

impl KeyFetching {
    pub fn new(policy: &Policy, jitter: u64) -> Self {
        let rings = policy.keyrings();
        let shared = match policy.revocation() {
            None => HashMap::new(),
            Some(revocation) => {
                let shared = |issuer| {
                    let source: &KeySource = rings.source(issuer)?;
                    Some((issuer, SharedKeys::new(&revocation.derived, &source.settings().identity)))
                };
                rings.fetched().filter_map(shared).collect()
            }
        };
        Self { rings, shared, jitter }
    }

    /// Runs before the first request: takes over the key sets that other workers hold. So a new configuration, or a
    /// worker that replaces another, does not refuse tokens that were accepted a moment ago.
    pub fn on_configured(&mut self, host: &mut impl Host, now: Monotonic) {
        for issuer in self.rings.fetched() {
            self.adopt(host, issuer, now);
            // A compare-and-set needs an existing entry. The host configures one worker before it makes the others.
            if let Some(shared) = self.shared.get(&issuer)
                && let Ok(None) = host.shared_get(&shared.lease_key())
            {
                let _ = host.shared_put(&shared.lease_key(), &shared.write_lease(Lease::default()), 0);
            }
        }
    }

    /// True while these keys are being fetched, by this worker or another one.
    pub fn is_under_way(&self, host: &mut impl Host, issuer: usize, now: Monotonic) -> bool {
        let Some(source) = self.rings.source(issuer) else { return false };
        let is_taken = |lease: Lease| is_taken(lease, source.longest_fetch(), now);
        !source.is_idle() || self.lease(host, issuer).is_some_and(|(lease, _)| is_taken(lease))
    }

    /// When each issuer's set was fetched, if it has one.
    pub fn fetched(&self) -> Vec<(usize, Monotonic)> {
        self.rings.fetched().filter_map(|issuer| Some((issuer, self.rings.source(issuer)?.fetched()?))).collect()
    }

    /// Takes over sets that another worker fetched, and fetches those that are due. Returns the issuers with new key
    /// metrics.
    pub fn on_tick(&mut self, host: &mut impl Host, calls: &mut Calls, core: &Core, now: Now) -> Vec<(usize, Outcome)> {
        let mut news = Vec::new();
        for issuer in self.rings.fetched() {
            if self.adopt(host, issuer, now.monotonic) {
                news.push((issuer, Outcome::Renewed));
            }
            let Some(source) = self.rings.source(issuer) else { continue };
            let (is_due, is_wanted) = (source.is_due(now.monotonic), source.is_wanted(now.monotonic));
            let occasion = match is_due {
                true => Occasion::Schedule,
                false if is_wanted && self.is_wanted_by_all(host, issuer, now.monotonic) => Occasion::Wanted,
                false => continue,
            };
            if !self.fetch_if_free(host, calls, core, issuer, occasion, now) {
                news.push((issuer, Outcome::Failed));
            }
        }
        news
    }

    /// True when no other worker has used up the cool-down, or was told by the provider to wait.
    fn is_wanted_by_all(&mut self, host: &mut impl Host, issuer: usize, now: Monotonic) -> bool {
        let lease = self.lease(host, issuer).map(|(lease, _)| lease).unwrap_or_default();
        let Some(source) = self.rings.source_mut(issuer) else { return false };
        if lease.unknown > Monotonic(0) {
            source.note_unknown_fetch(lease.unknown);
        }
        source.note_failures(lease.failures, lease.not_before, now);
        source.is_wanted(now)
    }

    /// Whether a token with an unknown key should wait: a fetch is in flight, by any worker, or was started now.
    pub fn is_worth_waiting(
        &mut self,
        host: &mut impl Host,
        calls: &mut Calls,
        core: &Core,
        issuer: usize,
        now: Now,
    ) -> Waiting {
        if self.adopt(host, issuer, now.monotonic) {
            return Waiting::LookAgain;
        }
        let lease = self.lease(host, issuer).map(|(lease, _)| lease).unwrap_or_default();
        let Some(source) = self.rings.source_mut(issuer) else { return Waiting::No };
        if lease.unknown > Monotonic(0) {
            source.note_unknown_fetch(lease.unknown);
        }
        let others_fetch = is_taken(lease, source.longest_fetch(), now.monotonic);
        match source.on_unknown_kid(now.monotonic) {
            Unknown::Absent if others_fetch && source.fetched().is_some_and(|fetched| fetched < lease.started) => {
                Waiting::Yes
            }
            Unknown::Absent => Waiting::No,
            Unknown::Worthwhile if others_fetch || !source.is_idle() => Waiting::Yes,
            Unknown::Worthwhile => match self.fetch_if_free(host, calls, core, issuer, Occasion::UnknownKid, now) {
                true => Waiting::Yes,
                false => Waiting::No,
            },
        }
    }

    /// The reply to a fetch. `None`: nothing is new, and another stage of the fetch is in flight.
    pub fn on_answered(
        &mut self,
        host: &mut impl Host,
        calls: &mut Calls,
        core: &Core,
        issuer: usize,
        reply: &impl CalloutReply,
        now: Now,
    ) -> Option<Outcome> {
        let header = |name: &[u8]| String::from_utf8(reply.header(name)?).ok();
        let status = reply.status();
        let (cache_control, etag) = (header(b"cache-control"), header(b"etag"));
        let (retry_after, date) = (header(b"retry-after"), header(b"date"));
        let (content_encoding, location) = (header(b"content-encoding"), header(b"location"));
        let body = reply.body(jose::jwks::MAX_BYTES.saturating_add(1));
        let reply = match (status, &body) {
            (Some(status), Ok(body)) => Ok(Answer {
                status,
                body,
                cache_control: cache_control.as_deref(),
                etag: etag.as_deref(),
                retry_after: retry_after.as_deref(),
                date: date.as_deref(),
                content_encoding: content_encoding.as_deref(),
                location: location.as_deref(),
            }),
            (None, _) => Err("the answer broke off"),
            (_, Err(_)) => Err("the answer's body cannot be read"),
        };
        let jitter = self.next_jitter();
        let progress = self.rings.source_mut(issuer)?.on_reply(reply, now.monotonic, jitter);
        let name = core.issuer_name(issuer);
        match progress {
            Progress::Continue { fetch, warning } => {
                if let Some(warning) = warning {
                    host.log(Level::Warn, format_args!("portcullis: issuer={name} {warning}"));
                }
                if self.send(host, calls, issuer, &fetch, now) {
                    return None;
                }
                self.fail(host, core, issuer, "the host would not send the request", now.monotonic);
                Some(Outcome::Failed)
            }
            Progress::Installed { left_out } => {
                if let Some(why) = left_out {
                    host.log(Level::Warn, format_args!("portcullis: issuer={name} {why}"));
                }
                if let Ok(body) = &body {
                    self.publish(host, issuer, body);
                }
                Some(Outcome::Renewed)
            }
            Progress::Unchanged { since } => {
                self.publish_again(host, issuer, since);
                Some(Outcome::Renewed)
            }
            Progress::Overtaken => {
                self.release(host, issuer, Monotonic(0));
                Some(Outcome::Renewed)
            }
            Progress::Failed(why) => {
                host.log(Level::Warn, format_args!("portcullis: issuer={name} keys not fetched: {why}"));
                self.rest(host, issuer);
                Some(Outcome::Failed)
            }
        }
    }

    /// Starts a fetch, unless another worker is fetching. Returns false if it could not be sent.
    fn fetch_if_free(
        &mut self,
        host: &mut impl Host,
        calls: &mut Calls,
        core: &Core,
        issuer: usize,
        occasion: Occasion,
        at: Now,
    ) -> bool {
        let now = at.monotonic;
        // There is one such fetch in a cool-down, counted over all workers. It does not wait for the next attempt.
        let unknown = (occasion != Occasion::Schedule).then_some(now);
        let Some(source) = self.rings.source(issuer) else { return false };
        let longest = source.longest_fetch();
        if let Some(shared) = self.shared.get(&issuer) {
            let (lease, cas) = self.lease(host, issuer).unwrap_or_default();
            let is_taken = is_taken(lease, longest, now);
            // A later time was not written by us, or not on this clock.
            let latest = now.plus(source.longest_pause());
            let rests = unknown.is_none() && lease.resting > now && lease.resting <= latest;
            let ours =
                Lease { started: now, unknown: unknown.unwrap_or(lease.unknown), resting: Monotonic(0), ..lease };
            // The compare-and-set elects one of the VMs that see the lease free at the same moment.
            let won =
                !is_taken && !rests && host.shared_put(&shared.lease_key(), &shared.write_lease(ours), cas).is_ok();
            if !won {
                let until = if rests { lease.resting } else { now.plus(longest) };
                if let (Some(source), None) = (self.rings.source_mut(issuer), unknown) {
                    source.leave_to_another(until, now);
                }
                return true;
            }
            if let Some(source) = self.rings.source_mut(issuer) {
                source.note_failures(lease.failures, lease.not_before, now);
            }
        }
        let Some(source) = self.rings.source_mut(issuer) else { return false };
        if let Some(at) = unknown {
            source.note_unknown_fetch(at);
        }
        let fetch = source.start(occasion, now);
        if self.send(host, calls, issuer, &fetch, at) {
            return true;
        }
        self.fail(host, core, issuer, "the host would not send the request", now);
        false
    }

    fn send(&self, host: &mut impl Host, calls: &mut Calls, issuer: usize, fetch: &Fetch, now: Now) -> bool {
        let Some(source) = self.rings.source(issuer) else { return false };
        let mut headers: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":path", fetch.url.path.as_bytes()),
            (b":authority", fetch.url.authority.as_bytes()),
            (b":scheme", b"https"),
            (b"accept", b"application/json"),
            // Compressed answers cannot be read.
            (b"accept-encoding", b"identity"),
        ];
        if let Some(etag) = &fetch.if_none_match {
            headers.push((b"if-none-match", etag.as_bytes()));
        }
        let (cluster, timeout) = (source.settings().cluster.as_str(), source.settings().timeout);
        let Ok(call) = host.call(&Callout { cluster, headers: &headers, body: b"", timeout }) else { return false };
        calls.insert(call, Owner::Keys { issuer }, timeout, now);
        true
    }

    pub fn fail(&mut self, host: &mut impl Host, core: &Core, issuer: usize, why: &str, now: Monotonic) {
        let jitter = self.next_jitter();
        let Some(source) = self.rings.source_mut(issuer) else { return };
        if let Progress::Failed(why) = source.on_reply(Err(why), now, jitter) {
            let name = core.issuer_name(issuer);
            host.log(Level::Warn, format_args!("portcullis: issuer={name} keys not fetched: {why}"));
        }
        self.rest(host, issuer);
    }

    /// Takes over a newer set of another worker.
    pub fn adopt(&mut self, host: &mut impl Host, issuer: usize, now: Monotonic) -> bool {
        let Some(shared) = self.shared.get(&issuer) else { return false };
        let Some(source) = self.rings.source(issuer) else { return false };
        let mut read = |key: String| host.shared_get(&key).ok().flatten().map(|(bytes, _)| bytes);
        let stamp = read(shared.stamp_key()).and_then(|bytes| shared.read_stamp(&bytes));
        if stamp.is_none_or(|stamp| stamp > now || source.fetched().is_some_and(|fetched| fetched >= stamp)) {
            return false;
        }
        let Some(bytes) = read(shared.set_key()) else { return false };
        let Some((fetched, due, text)) = shared.read_set(&bytes) else { return false };
        let jitter = self.next_jitter();
        self.rings.source_mut(issuer).is_some_and(|source| source.adopt(text, fetched, due, now, jitter))
    }

    fn publish(&self, host: &mut impl Host, issuer: usize, text: &[u8]) {
        let (Some(shared), Some(source)) = (self.shared.get(&issuer), self.rings.source(issuer)) else { return };
        if let Some(fetched) = source.fetched() {
            let _ = host.shared_put(&shared.set_key(), &shared.write_set(fetched, source.due(), text), 0);
            let _ = host.shared_put(&shared.stamp_key(), &shared.write_stamp(fetched), 0);
        }
        self.release(host, issuer, Monotonic(0));
    }

    /// The set fetched at `since` counts as fetched now: also for the others, if they have it from here.
    fn publish_again(&self, host: &mut impl Host, issuer: usize, since: Monotonic) {
        let text = self.shared.get(&issuer).and_then(|shared| {
            let (bytes, _) = host.shared_get(&shared.set_key()).ok()??;
            let (fetched, _, text) = shared.read_set(&bytes)?;
            (fetched == since).then(|| text.to_vec())
        });
        match text {
            Some(text) => self.publish(host, issuer, &text),
            None => self.release(host, issuer, Monotonic(0)),
        }
    }

    /// The fetch failed: the others leave the provider alone for as long as this one does.
    fn rest(&self, host: &mut impl Host, issuer: usize) {
        self.release(host, issuer, self.rings.source(issuer).map_or(Monotonic(0), KeySource::due));
    }

    /// The fetch is over: the next one need not wait for the lease to expire.
    fn release(&self, host: &mut impl Host, issuer: usize, resting: Monotonic) {
        if let (Some(shared), Some((lease, cas))) = (self.shared.get(&issuer), self.lease(host, issuer)) {
            let source = self.rings.source(issuer);
            let over = Lease {
                started: Monotonic(0),
                resting,
                not_before: source.map_or(Monotonic(0), KeySource::not_before),
                failures: source.map(KeySource::failures).unwrap_or_default(),
                ..lease
            };
            let _ = host.shared_put(&shared.lease_key(), &shared.write_lease(over), cas);
        }
    }

    fn lease(&self, host: &mut impl Host, issuer: usize) -> Option<(Lease, u32)> {
        let shared = self.shared.get(&issuer)?;
        let (bytes, cas) = host.shared_get(&shared.lease_key()).ok()??;
        Some((shared.read_lease(&bytes).unwrap_or_default(), cas))
    }

    fn next_jitter(&mut self) -> u64 {
        // xorshift: spreads retries; not secret.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter
    }
}

fn is_taken(lease: Lease, longest: Duration, now: Monotonic) -> bool {
    lease.started > Monotonic(0) && now.since(lease.started) < longest
}

/// What a request with an unknown key should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    No,
    Yes,
    /// A newer set is already here.
    LookAgain,
}
