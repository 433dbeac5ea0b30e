//! The counts that wait for the next flush, by outcome, code and rule, and the shares of gauges.
use std::time::Duration;

use authn::reject::RejectReason;
use authn::request::proxy_settings::Setting;
use wire::check::StoreError;
use wire::feed::Trouble;

use crate::host::Host;
use crate::metrics::Metric;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was checked: a public rule, an optional one without a token, or a CORS preflight.
    Open,
    Admitted,
    /// Admitted although its session could not be checked, because its rule says so.
    AdmittedUnchecked,
    /// A probe rule: the filter itself replied.
    Answered,
    Rejected(RejectReason),
    /// It would be refused, but its rule is not enforced.
    Reported(RejectReason),
}

/// A counter whose labels are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    TokenHit,
    TokenMiss,
    SharedHit,
    SharedMiss,
    CheckSent,
    /// Refreshed while the verdict was still fresh, so that no request waits.
    RefreshedAhead,
    CheckFailed(CheckFailure),
    BindingReported,
    SpoofedHeader,
    /// A request shows that the proxy lacks this setting.
    MissingProxySetting(Setting),
    FeedPoll(FeedResult),
    FeedAnswer(FeedAnswer),
    /// A Set-Cookie of the upstream was repaired.
    CookieRepaired,
    CookieRemoved,
    StreamEnded(EndCause),
    Sighting(SightingResult),
    /// The service lags more behind another region than allowed, or cannot tell.
    RegionsExceeded,
}

/// What became of a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SightingResult {
    /// The service has taken it.
    Sent,
    /// There was no room for it in the next report.
    Dropped,
    /// The service did not take the report.
    Lost,
}

/// Why an open stream is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    Revoked,
    Expired,
    /// Nobody could tell for too long whether it was revoked.
    CannotTell,
}

/// The result of a poll of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedResult {
    /// Nothing new, and a newer proof.
    Proof,
    /// Keys, or the end of a snapshot.
    News,
    /// A piece of a snapshot.
    Piece,
    /// It is more than `limits.feed_bytes` allows.
    TooLarge,
    NotSent,
    NoAnswer,
    NoProof,
    /// The service has nothing for this follower.
    Trouble(Trouble),
}

/// What the feed was worth for one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedAnswer {
    /// Admitted without a check.
    Clear,
    /// It may be revoked, and the service is asked.
    Asked,
    /// There is no proof that is new enough, and the service is asked.
    Silent,
}

/// Why a check gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFailure {
    /// The host refused to send it.
    NotSent,
    /// Timeout, refused connection, or a reply that was cut off.
    NoAnswer,
    /// A reply that is not from the service: another server, a forged or replayed reply.
    NoProof,
    /// The service says that it cannot tell.
    Service(StoreError),
}

/// Counts since the last flush. One host call for each request and counter would cost more than the counting.
#[derive(Debug)]
pub struct Counts {
    /// By rule, with those without a rule first, and then by outcome.
    requests: Vec<u32>,
    /// What was only reported, by rule and then by reason.
    reported: Vec<u32>,
    counters: [u32; Counter::COUNT],
    changed: Vec<Changed>,
}

#[derive(Debug, Clone, Copy)]
enum Changed {
    Request(Outcome, Option<usize>),
    Counter(Counter),
    Reported(RejectReason, usize),
}

impl Default for Counts {
    fn default() -> Self {
        Self { requests: Vec::new(), reported: Vec::new(), counters: [0; Counter::COUNT], changed: Vec::new() }
    }
}

impl Counts {
    pub fn request(&mut self, outcome: Outcome, rule: Option<usize>) {
        let index = request_index(outcome, rule);
        if index >= self.requests.len() {
            self.requests.resize(index.saturating_add(1), 0);
        }
        if self.requests.get_mut(index).is_some_and(is_first) {
            self.changed.push(Changed::Request(outcome, rule));
        }
    }

    /// The rule does not enforce this.
    pub fn reported(&mut self, reason: RejectReason, rule: usize) {
        let index = reported_index(reason, rule);
        if index >= self.reported.len() {
            self.reported.resize(index.saturating_add(1), 0);
        }
        if self.reported.get_mut(index).is_some_and(is_first) {
            self.changed.push(Changed::Reported(reason, rule));
        }
    }

    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several, at least one.
    pub fn add(&mut self, counter: Counter, by: usize) {
        let Some(count) = self.counters.get_mut(counter.index()) else { return };
        if is_first(count) {
            self.changed.push(Changed::Counter(counter));
        }
        *count = count.saturating_add(u32::try_from(by.saturating_sub(1)).unwrap_or(u32::MAX));
    }

    /// Reports to the host. `rule_name` gives the name of the rule with this index.
    pub fn flush<'r>(&mut self, host: &mut impl Host, rule_name: impl Fn(usize) -> &'r str) {
        for changed in self.changed.drain(..) {
            match changed {
                Changed::Counter(counter) => {
                    let count = self.counters.get_mut(counter.index()).map(std::mem::take).unwrap_or_default();
                    let (metric, label) = counter.describe();
                    host.add(metric, label.as_slice(), i64::from(count));
                }
                Changed::Reported(reason, rule) => {
                    let count = self.reported.get_mut(reported_index(reason, rule)).map(std::mem::take);
                    let count = i64::from(count.unwrap_or_default());
                    host.add(Metric::Reported, &[reason.code(), rule_name(rule)], count);
                }
                Changed::Request(outcome, rule) => {
                    let index = request_index(outcome, rule);
                    let count = self.requests.get_mut(index).map(std::mem::take).unwrap_or_default();
                    let reason = match outcome {
                        Outcome::Rejected(reason) | Outcome::Reported(reason) => reason.code(),
                        Outcome::Open | Outcome::Admitted | Outcome::AdmittedUnchecked | Outcome::Answered => "none",
                    };
                    let rule = rule.map_or("none", &rule_name);
                    host.add(Metric::Requests, &[outcome.name(), reason, rule], i64::from(count));
                }
            }
        }
    }
}

/// Counts one more, and says whether it is the first since the last flush.
fn is_first(count: &mut u32) -> bool {
    let is_first = *count == 0;
    *count = count.saturating_add(1);
    is_first
}

fn request_index(outcome: Outcome, rule: Option<usize>) -> usize {
    let row = rule.map_or(0, |rule| rule.saturating_add(1));
    row.saturating_mul(Outcome::COUNT).saturating_add(outcome.index())
}

fn reported_index(reason: RejectReason, rule: usize) -> usize {
    rule.saturating_mul(RejectReason::ALL.len()).saturating_add(reason.index())
}

/// A gauge that is a sum over all threads and VMs. Each reports the change of its own share.
#[derive(Debug, Default)]
pub struct PartOfGauge {
    told: i64,
}

impl PartOfGauge {
    pub fn set(&mut self, host: &mut impl Host, metric: Metric, labels: &[&str], value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let by = value.saturating_sub(self.told);
        if by != 0 {
            host.add(metric, labels, by);
            self.told = value;
        }
    }
}

pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Outcome {
    const COUNT: usize = RejectReason::ALL.len().saturating_mul(2).saturating_add(4);

    fn index(self) -> usize {
        match self {
            Outcome::Admitted => 0,
            Outcome::AdmittedUnchecked => 1,
            Outcome::Open => 2,
            Outcome::Answered => 3,
            Outcome::Rejected(reason) => reason.index().saturating_add(4),
            Outcome::Reported(reason) => RejectReason::ALL.len().saturating_add(reason.index()).saturating_add(4),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Admitted => "admitted",
            Outcome::AdmittedUnchecked => "admitted_unchecked",
            Outcome::Answered => "answered",
            Outcome::Reported(_) => "reported",
            Outcome::Rejected(reason) if reason.is_cannot_tell() => "cannot_tell",
            Outcome::Rejected(_) => "refused",
        }
    }
}

impl Counter {
    const SETTINGS: usize = StoreError::ALL.len().saturating_add(13);
    const FEED: usize = Self::SETTINGS.saturating_add(Setting::ALL.len());
    const STREAMS: usize = Self::FEED.saturating_add(Trouble::ALL.len()).saturating_add(10);
    const SIGHTINGS: usize = Self::STREAMS.saturating_add(3);
    const COUNT: usize = Self::SIGHTINGS.saturating_add(4);

    fn index(self) -> usize {
        match self {
            Counter::TokenHit => 0,
            Counter::TokenMiss => 1,
            Counter::SharedHit => 2,
            Counter::SharedMiss => 3,
            Counter::CheckSent => 4,
            Counter::BindingReported => 5,
            Counter::SpoofedHeader => 6,
            Counter::CheckFailed(CheckFailure::NotSent) => 7,
            Counter::CheckFailed(CheckFailure::NoAnswer) => 8,
            Counter::CheckFailed(CheckFailure::NoProof) => 9,
            Counter::RefreshedAhead => 10,
            Counter::CheckFailed(CheckFailure::Service(error)) => error.index().saturating_add(13),
            Counter::CookieRepaired => 11,
            Counter::CookieRemoved => 12,
            Counter::MissingProxySetting(setting) => setting.index().saturating_add(Self::SETTINGS),
            Counter::FeedAnswer(answer) => Self::FEED.saturating_add(match answer {
                FeedAnswer::Clear => 0,
                FeedAnswer::Asked => 1,
                FeedAnswer::Silent => 2,
            }),
            Counter::StreamEnded(cause) => Self::STREAMS.saturating_add(match cause {
                EndCause::Revoked => 0,
                EndCause::Expired => 1,
                EndCause::CannotTell => 2,
            }),
            Counter::Sighting(result) => Self::SIGHTINGS.saturating_add(match result {
                SightingResult::Sent => 0,
                SightingResult::Dropped => 1,
                SightingResult::Lost => 2,
            }),
            Counter::RegionsExceeded => Self::SIGHTINGS.saturating_add(3),
            Counter::FeedPoll(result) => Self::FEED.saturating_add(match result {
                FeedResult::Proof => 3,
                FeedResult::News => 4,
                FeedResult::Piece => 5,
                FeedResult::TooLarge => 6,
                FeedResult::NotSent => 7,
                FeedResult::NoAnswer => 8,
                FeedResult::NoProof => 9,
                FeedResult::Trouble(trouble) => {
                    Trouble::ALL.iter().position(|other| *other == trouble).unwrap_or(0).saturating_add(10)
                }
            }),
        }
    }

    /// Its family, and the value of its label, if it has one.
    fn describe(self) -> (Metric, Option<&'static str>) {
        match self {
            Counter::TokenHit => (Metric::TokenCache, Some("hit")),
            Counter::TokenMiss => (Metric::TokenCache, Some("miss")),
            Counter::SharedHit => (Metric::SharedVerdicts, Some("hit")),
            Counter::SharedMiss => (Metric::SharedVerdicts, Some("miss")),
            Counter::CheckSent => (Metric::ChecksSent, None),
            Counter::RefreshedAhead => (Metric::RefreshedAhead, None),
            Counter::CheckFailed(failure) => (Metric::ChecksFailed, Some(failure.name())),
            Counter::BindingReported => (Metric::BindingMismatchesReported, None),
            Counter::CookieRepaired => (Metric::SetCookies, Some("repaired")),
            Counter::CookieRemoved => (Metric::SetCookies, Some("removed")),
            Counter::SpoofedHeader => (Metric::SpoofedHeadersRemoved, None),
            Counter::MissingProxySetting(setting) => (Metric::MissingProxySettings, Some(setting.name())),
            Counter::FeedPoll(result) => (Metric::FeedPolls, Some(result.name())),
            Counter::FeedAnswer(answer) => (Metric::FeedAnswers, Some(answer.name())),
            Counter::StreamEnded(cause) => (Metric::StreamsEnded, Some(cause.name())),
            Counter::Sighting(result) => (Metric::Sightings, Some(result.name())),
            Counter::RegionsExceeded => (Metric::RegionsExceeded, None),
        }
    }
}

impl EndCause {
    pub fn name(self) -> &'static str {
        match self {
            EndCause::Revoked => "revoked",
            EndCause::Expired => "expired",
            EndCause::CannotTell => "cannot_tell",
        }
    }

    /// What a client is told that has no response yet.
    pub fn reason(self) -> RejectReason {
        match self {
            EndCause::Revoked => RejectReason::SessionRevoked,
            EndCause::Expired => RejectReason::JwtExpired,
            EndCause::CannotTell => RejectReason::StoreUnavailable,
        }
    }
}

impl SightingResult {
    fn name(self) -> &'static str {
        match self {
            SightingResult::Sent => "sent",
            SightingResult::Dropped => "dropped",
            SightingResult::Lost => "lost",
        }
    }
}

impl FeedResult {
    fn name(self) -> &'static str {
        match self {
            FeedResult::Proof => "proof",
            FeedResult::News => "news",
            FeedResult::Piece => "piece",
            FeedResult::TooLarge => "too_large",
            FeedResult::NotSent => "not_sent",
            FeedResult::NoAnswer => "no_answer",
            FeedResult::NoProof => "no_proof",
            FeedResult::Trouble(trouble) => trouble.name(),
        }
    }
}

impl FeedAnswer {
    fn name(self) -> &'static str {
        match self {
            FeedAnswer::Clear => "clear",
            FeedAnswer::Asked => "asked",
            FeedAnswer::Silent => "silent",
        }
    }
}

impl CheckFailure {
    fn name(self) -> &'static str {
        match self {
            CheckFailure::NotSent => "not_sent",
            CheckFailure::NoAnswer => "no_answer",
            CheckFailure::NoProof => "no_proof",
            CheckFailure::Service(error) => error.name(),
        }
    }
}

#[cfg(test)]
mod tests;
