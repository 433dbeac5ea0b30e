//! Fetching published keys through the host: one virtual machine of a process fetches for all, and the others take over
//! what it has found. What to fetch and when is `authn::keys::source`'s.
use std::collections::HashMap;
use std::time::Duration;

use authn::keys::answer::Answer;
use authn::keys::rings::Keyrings;
use authn::keys::source::{Fetch, KeySource, Occasion, Progress, Unknown};
use authn::policy::Policy;
use authn::shared::{Lease, SharedKeys};
use authn::time::Monotonic;

use crate::host::{self, LogLevel, MapType};

pub struct KeyFetching {
    pub rings: Keyrings,
    root: u32,
    /// By issuer. Without a secret nothing that is shared could be told from a forgery: then each virtual machine
    /// fetches for itself.
    shared: HashMap<usize, SharedKeys>,
    calls: HashMap<u32, Call>,
    jitter: u64,
}

struct Call {
    issuer: usize,
    sent: Monotonic,
}

/// What became of one issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A newer set is held.
    Renewed,
    Failed,
}

impl KeyFetching {
    pub fn new(policy: &Policy, root: u32, jitter: u64) -> Self {
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
        Self { rings, root, shared, calls: HashMap::new(), jitter }
    }

    /// Before the first request: what others of this process hold already is taken over at once, so that neither an
    /// update of the configuration nor a virtual machine that replaces another refuses what was good a moment ago.
    pub fn on_configured(&mut self, now: Monotonic) {
        for issuer in self.rings.fetched() {
            self.adopt(issuer, now);
            // A compare-and-set needs an entry. The host configures one virtual machine before it makes the others.
            if let Some(shared) = self.shared.get(&issuer)
                && let Ok(None) = host::shared(&shared.lease_key())
            {
                let _ = host::set_shared(&shared.lease_key(), &shared.write_lease(Lease::default()), 0);
            }
        }
    }

    /// Is a fetch of these keys under way, here or in another virtual machine?
    pub fn is_under_way(&self, issuer: usize, now: Monotonic) -> bool {
        let Some(source) = self.rings.source(issuer) else { return false };
        let is_taken = |lease: Lease| is_taken(lease, source.longest_fetch(), now);
        !source.is_idle() || self.lease(issuer).is_some_and(|(lease, _)| is_taken(lease))
    }

    /// Takes over what another virtual machine has fetched, and fetches what is due. Returns the issuers whose keys have
    /// something new to say.
    pub fn on_tick(&mut self, policy: &Policy, now: Monotonic) -> Vec<(usize, Outcome)> {
        let mut news = Vec::new();
        for issuer in self.rings.fetched() {
            if self.adopt(issuer, now) {
                news.push((issuer, Outcome::Renewed));
            }
            let Some(source) = self.rings.source(issuer) else { continue };
            let (is_due, is_wanted) = (source.is_due(now), source.is_wanted(now));
            let occasion = match is_due {
                true => Occasion::Schedule,
                false if is_wanted && self.is_wanted_by_all(issuer, now) => Occasion::Wanted,
                false => continue,
            };
            if !self.fetch_if_free(policy, issuer, occasion, now) {
                news.push((issuer, Outcome::Failed));
            }
        }
        // The host answers every call, at the latest by its timeout. Were one ever lost, the issuer must not be.
        let lost: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| now.since(call.sent) > Duration::from_secs(65))
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            if let Some(call) = self.calls.remove(&number) {
                self.fail(policy, call.issuer, "no answer came", now);
                news.push((call.issuer, Outcome::Failed));
            }
        }
        news
    }

    /// Has no other virtual machine used up the cool-down, nor been told to wait?
    fn is_wanted_by_all(&mut self, issuer: usize, now: Monotonic) -> bool {
        let lease = self.lease(issuer).map(|(lease, _)| lease).unwrap_or_default();
        let Some(source) = self.rings.source_mut(issuer) else { return false };
        if lease.unknown > Monotonic(0) {
            source.note_unknown_fetch(lease.unknown);
        }
        source.note_failures(lease.failures, lease.not_before, now);
        source.is_wanted(now)
    }

    /// Whether a token whose key is not held should wait: a fetch is under way, here or in another virtual machine, or
    /// was started now.
    pub fn is_worth_waiting(&mut self, policy: &Policy, issuer: usize, now: Monotonic) -> Waiting {
        if self.adopt(issuer, now) {
            return Waiting::LookAgain;
        }
        let lease = self.lease(issuer).map(|(lease, _)| lease).unwrap_or_default();
        let Some(source) = self.rings.source_mut(issuer) else { return Waiting::No };
        if lease.unknown > Monotonic(0) {
            source.note_unknown_fetch(lease.unknown);
        }
        let others_fetch = is_taken(lease, source.longest_fetch(), now);
        match source.on_unknown_kid(now) {
            Unknown::Absent if others_fetch && source.fetched().is_some_and(|fetched| fetched < lease.started) => {
                Waiting::Yes
            }
            Unknown::Absent => Waiting::No,
            Unknown::Worthwhile if others_fetch || !source.is_idle() => Waiting::Yes,
            Unknown::Worthwhile => match self.fetch_if_free(policy, issuer, Occasion::UnknownKid, now) {
                true => Waiting::Yes,
                false => Waiting::No,
            },
        }
    }

    /// Is the call one of ours? Then its answer is read, and this is what came of it.
    pub fn on_call_answered(&mut self, policy: &Policy, call: u32, now: Monotonic) -> Option<Option<(usize, Outcome)>> {
        let Call { issuer, .. } = self.calls.remove(&call)?;
        let header = |name: &[u8]| {
            let value = host::header(MapType::HttpCallResponseHeaders, name).ok().flatten()?;
            String::from_utf8(value).ok()
        };
        let status = header(b":status").and_then(|status| status.parse::<u16>().ok());
        let (cache_control, etag) = (header(b"cache-control"), header(b"etag"));
        let (retry_after, date) = (header(b"retry-after"), header(b"date"));
        let (content_encoding, location) = (header(b"content-encoding"), header(b"location"));
        let body = host::call_body(jose::jwks::MAX_BYTES.saturating_add(1));
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
        let progress = self.rings.source_mut(issuer)?.on_reply(reply, now, jitter);
        let name = policy.issuer_name(issuer).unwrap_or("none");
        match progress {
            Progress::Continue { fetch, warning } => {
                if let Some(warning) = warning {
                    host::log(LogLevel::Warn, &format!("portcullis: issuer={name} {warning}"));
                }
                if self.send(issuer, &fetch, now) {
                    return Some(None);
                }
                self.fail(policy, issuer, "the host would not send the request", now);
                Some(Some((issuer, Outcome::Failed)))
            }
            Progress::Installed { left_out } => {
                if let Some(why) = left_out {
                    host::log(LogLevel::Warn, &format!("portcullis: issuer={name} {why}"));
                }
                if let Ok(body) = &body {
                    self.publish(issuer, body);
                }
                Some(Some((issuer, Outcome::Renewed)))
            }
            Progress::Unchanged { since } => {
                self.publish_again(issuer, since);
                Some(Some((issuer, Outcome::Renewed)))
            }
            Progress::Overtaken => {
                self.release(issuer, Monotonic(0));
                Some(Some((issuer, Outcome::Renewed)))
            }
            Progress::Failed(why) => {
                host::log(LogLevel::Warn, &format!("portcullis: issuer={name} keys not fetched: {why}"));
                self.rest(issuer);
                Some(Some((issuer, Outcome::Failed)))
            }
        }
    }

    /// Starts a fetch unless another virtual machine is at it. Returns false when it could not even be sent.
    fn fetch_if_free(&mut self, policy: &Policy, issuer: usize, occasion: Occasion, now: Monotonic) -> bool {
        // Of these there is one in a cool-down, counted for all virtual machines; they do not wait for the next attempt.
        let unknown = (occasion != Occasion::Schedule).then_some(now);
        let Some(source) = self.rings.source(issuer) else { return false };
        let longest = source.longest_fetch();
        if let Some(shared) = self.shared.get(&issuer) {
            let (lease, cas) = self.lease(issuer).unwrap_or_default();
            let is_taken = is_taken(lease, longest, now);
            // A later time was not written by us, or not on this clock.
            let latest = now.plus(source.longest_pause());
            let rests = unknown.is_none() && lease.resting > now && lease.resting <= latest;
            let ours =
                Lease { started: now, unknown: unknown.unwrap_or(lease.unknown), resting: Monotonic(0), ..lease };
            // The compare-and-set elects one of those who see the lease free at the same moment.
            let won =
                !is_taken && !rests && host::set_shared(&shared.lease_key(), &shared.write_lease(ours), cas).is_ok();
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
        if self.send(issuer, &fetch, now) {
            return true;
        }
        self.fail(policy, issuer, "the host would not send the request", now);
        false
    }

    fn send(&mut self, issuer: usize, fetch: &Fetch, now: Monotonic) -> bool {
        let Some(source) = self.rings.source(issuer) else { return false };
        let mut headers: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":path", fetch.url.path.as_bytes()),
            (b":authority", fetch.url.authority.as_bytes()),
            (b":scheme", b"https"),
            (b"accept", b"application/json"),
            // What is compressed all the same cannot be read.
            (b"accept-encoding", b"identity"),
        ];
        if let Some(etag) = &fetch.if_none_match {
            headers.push((b"if-none-match", etag.as_bytes()));
        }
        if host::make_effective(self.root).is_err() {
            return false;
        }
        match host::call(&source.settings().cluster, &headers, b"", source.settings().timeout) {
            Ok(call) => {
                self.calls.insert(call, Call { issuer, sent: now });
                true
            }
            Err(_) => false,
        }
    }

    fn fail(&mut self, policy: &Policy, issuer: usize, why: &str, now: Monotonic) {
        let jitter = self.next_jitter();
        let Some(source) = self.rings.source_mut(issuer) else { return };
        if let Progress::Failed(why) = source.on_reply(Err(why), now, jitter) {
            let name = policy.issuer_name(issuer).unwrap_or("none");
            host::log(LogLevel::Warn, &format!("portcullis: issuer={name} keys not fetched: {why}"));
        }
        self.rest(issuer);
    }

    /// Takes over a newer set that another virtual machine has shared.
    pub fn adopt(&mut self, issuer: usize, now: Monotonic) -> bool {
        let Some(shared) = self.shared.get(&issuer) else { return false };
        let Some(source) = self.rings.source(issuer) else { return false };
        let read = |key: String| host::shared(&key).ok().flatten().map(|(bytes, _)| bytes);
        let stamp = read(shared.stamp_key()).and_then(|bytes| shared.read_stamp(&bytes));
        if stamp.is_none_or(|stamp| stamp > now || source.fetched().is_some_and(|fetched| fetched >= stamp)) {
            return false;
        }
        let Some(bytes) = read(shared.set_key()) else { return false };
        let Some((fetched, due, text)) = shared.read_set(&bytes) else { return false };
        let jitter = self.next_jitter();
        self.rings.source_mut(issuer).is_some_and(|source| source.adopt(text, fetched, due, now, jitter))
    }

    fn publish(&self, issuer: usize, text: &[u8]) {
        let (Some(shared), Some(source)) = (self.shared.get(&issuer), self.rings.source(issuer)) else { return };
        if let Some(fetched) = source.fetched() {
            let _ = host::set_shared(&shared.set_key(), &shared.write_set(fetched, source.due(), text), 0);
            let _ = host::set_shared(&shared.stamp_key(), &shared.write_stamp(fetched), 0);
        }
        self.release(issuer, Monotonic(0));
    }

    /// The set that was fetched at `since` is as good as fetched now: for the others too, if they have it from here.
    fn publish_again(&self, issuer: usize, since: Monotonic) {
        let read = || {
            let shared = self.shared.get(&issuer)?;
            let (bytes, _) = host::shared(&shared.set_key()).ok()??;
            let (fetched, _, text) = shared.read_set(&bytes)?;
            (fetched == since).then(|| text.to_vec())
        };
        match read() {
            Some(text) => self.publish(issuer, &text),
            None => self.release(issuer, Monotonic(0)),
        }
    }

    /// The fetch failed: the others leave the provider alone for as long as this one does.
    fn rest(&self, issuer: usize) {
        self.release(issuer, self.rings.source(issuer).map_or(Monotonic(0), KeySource::due));
    }

    /// The fetch is over: whoever is due next need not wait for the lease to end by itself.
    fn release(&self, issuer: usize, resting: Monotonic) {
        if let (Some(shared), Some((lease, cas))) = (self.shared.get(&issuer), self.lease(issuer)) {
            let source = self.rings.source(issuer);
            let over = Lease {
                started: Monotonic(0),
                resting,
                not_before: source.map_or(Monotonic(0), KeySource::not_before),
                failures: source.map(KeySource::failures).unwrap_or_default(),
                ..lease
            };
            let _ = host::set_shared(&shared.lease_key(), &shared.write_lease(over), cas);
        }
    }

    fn lease(&self, issuer: usize) -> Option<(Lease, u32)> {
        let shared = self.shared.get(&issuer)?;
        let (bytes, cas) = host::shared(&shared.lease_key()).ok()??;
        Some((shared.read_lease(&bytes).unwrap_or_default(), cas))
    }

    fn next_jitter(&mut self) -> u64 {
        // xorshift: spreads retries, and keeps no secret.
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
