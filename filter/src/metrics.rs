//! The filter's metrics: their names, and the host's numbers for them. A metric that the host will not define is not
//! counted, and nothing else suffers.
use std::collections::HashMap;

use authn::engine::Kind;
use authn::reject::RejectReason;
use authn::request::proxy_settings::Setting;
use wire::check::StoreError;

use crate::host::{self, MetricType};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No token was looked at: public, optional without one, CORS preflight.
    Open,
    Admitted,
    /// Admitted though its session could not be checked, since its rule says so.
    AdmittedUnchecked,
    /// A probe rule: the filter itself gave the answer.
    Answered,
    Refused(RejectReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A verified token was at hand in this virtual machine.
    TokenHit,
    TokenMiss,
    /// Another worker had asked already.
    SharedHit,
    SharedMiss,
    CheckSent,
    /// Asked anew while the verdict was still fresh, so that nobody waits.
    RefreshedAhead,
    CheckFailed(CheckFailure),
    BindingReported,
    SpoofedHeader,
    /// A request showed that the proxy lacks this setting.
    MissingProxySetting(Setting),
}

/// Why a check gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckFailure {
    /// The host refused to send it.
    NotSent,
    /// Timeout, refused connection, an answer that broke off.
    NoAnswer,
    /// An answer, and not the service's: another server, a forged or replayed reply.
    NoProof,
    /// The service's own word that it cannot tell.
    Service(StoreError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Histogram {
    CheckMicroseconds,
    CheckTokens,
    IntrospectionMicroseconds,
}

/// For what a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    Check,
    Introspection,
    Keys,
}

/// What was counted since the last [`Metrics::flush`], and the host's numbers of what was ever counted: at most outcomes ×
/// faults × rules. A host call for every request and counter would cost more than the counting.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By rule, with those of no rule first, and then by outcome.
    requests: Vec<Count>,
    counters: [Count; Counter::PLACES],
    changed: Vec<Changed>,
    histograms: HashMap<Histogram, Option<u32>>,
    key_fetches: HashMap<(usize, bool), Option<u32>>,
    introspections: HashMap<(usize, &'static str), Option<u32>>,
    /// By issuer.
    key_ages: HashMap<usize, Level>,
    waiting: [Level; WaitsFor::ALL.len()],
}

/// A gauge, and what it was told last.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    metric: Metric,
    told: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    metric: Metric,
    pending: u32,
}

#[derive(Debug, Clone, Copy, Default)]
enum Metric {
    #[default]
    Undefined,
    Defined(u32),
    /// The host will not define it.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Changed {
    Request(Outcome, Option<usize>),
    Counter(Counter),
}

impl Metrics {
    pub fn request(&mut self, outcome: Outcome, rule: Option<usize>) {
        let place = request_place(outcome, rule);
        if place >= self.requests.len() {
            self.requests.resize(place.saturating_add(1), Count::default());
        }
        if self.requests.get_mut(place).is_some_and(Count::add) {
            self.changed.push(Changed::Request(outcome, rule));
        }
    }

    pub fn count(&mut self, counter: Counter) {
        if self.counters.get_mut(counter.place()).is_some_and(Count::add) {
            self.changed.push(Changed::Counter(counter));
        }
    }

    /// Tells the host what was counted.
    pub fn flush<'r>(&mut self, rule_name: impl Fn(usize) -> &'r str) {
        for changed in std::mem::take(&mut self.changed) {
            match changed {
                Changed::Counter(counter) => {
                    let Some(count) = self.counters.get_mut(counter.place()) else { continue };
                    count.flush(|| counter.name());
                }
                Changed::Request(outcome, rule) => {
                    let Some(count) = self.requests.get_mut(request_place(outcome, rule)) else { continue };
                    count.flush(|| {
                        let rule = rule.map_or("none", &rule_name);
                        let reason = match outcome {
                            Outcome::Refused(reason) => reason.code(),
                            Outcome::Open | Outcome::Admitted | Outcome::AdmittedUnchecked | Outcome::Answered => {
                                "none"
                            }
                        };
                        format!("portcullis.requests.outcome.{}.fault.{reason}.rule.{rule}", outcome.name())
                    });
                }
            }
        }
    }

    pub fn key_fetch(&mut self, issuer: usize, name: &str, is_good: bool) {
        let define = || {
            let result = if is_good { "ok" } else { "failed" };
            let name = format!("portcullis.key_fetches.issuer.{name}.result.{result}");
            host::define_metric(MetricType::Counter, &name).ok()
        };
        if let Some(metric) = *self.key_fetches.entry((issuer, is_good)).or_insert_with(define) {
            let _ = host::add_to_metric(metric, 1);
        }
    }

    pub fn introspection(&mut self, issuer: usize, name: &str, result: &'static str) {
        let define = || {
            let name = format!("portcullis.introspections.issuer.{name}.result.{result}");
            host::define_metric(MetricType::Counter, &name).ok()
        };
        if let Some(metric) = *self.introspections.entry((issuer, result)).or_insert_with(define) {
            let _ = host::add_to_metric(metric, 1);
        }
    }

    /// Seconds since the held set was fetched. All virtual machines of a process write to one gauge; the last one counts.
    pub fn key_age(&mut self, issuer: usize, name: &str, seconds: u64) {
        let level = self.key_ages.entry(issuer).or_default();
        if let Some(metric) = level.change(seconds, || format!("portcullis.keys_age_seconds.issuer.{name}")) {
            let _ = host::record_metric(metric, seconds);
        }
    }

    /// How many wait here now. Told as a difference, so that the gauge is the sum over all virtual machines.
    pub fn waiting(&mut self, what: WaitsFor, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let Some(level) = self.waiting.get_mut(what as usize) else { return };
        let before = level.told;
        if let Some(metric) = level.change(count, || format!("portcullis.waiting_requests.reason.{}", what.name())) {
            let by = i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(i64::try_from(before).unwrap_or(i64::MAX));
            if by != 0 {
                let _ = host::add_to_metric(metric, by);
            }
        }
    }

    /// This configuration ends: nobody waits under it, and its keys are nobody's.
    pub fn end(&mut self) {
        for what in WaitsFor::ALL {
            self.waiting(what, 0);
        }
        for level in self.key_ages.values() {
            if let Metric::Defined(metric) = level.metric {
                let _ = host::record_metric(metric, 0);
            }
        }
    }

    pub fn record(&mut self, histogram: Histogram, value: u64) {
        let define = || host::define_metric(MetricType::Histogram, histogram.name()).ok();
        if let Some(metric) = *self.histograms.entry(histogram).or_insert_with(define) {
            let _ = host::record_metric(metric, value);
        }
    }
}

impl Level {
    /// The gauge, if it must be told: at first and when its value has changed.
    fn change(&mut self, value: u64, name: impl FnOnce() -> String) -> Option<u32> {
        let is_new = matches!(self.metric, Metric::Undefined);
        if is_new {
            self.metric = host::define_metric(MetricType::Gauge, &name()).map_or(Metric::Refused, Metric::Defined);
        }
        if !is_new && self.told == value {
            return None;
        }
        self.told = value;
        if let Metric::Defined(metric) = self.metric { Some(metric) } else { None }
    }
}

impl Count {
    /// Returns whether it is the first since the last flush.
    fn add(&mut self) -> bool {
        let is_first = self.pending == 0;
        self.pending = self.pending.saturating_add(1);
        is_first
    }

    fn flush(&mut self, name: impl FnOnce() -> String) {
        let pending = std::mem::take(&mut self.pending);
        if let Metric::Undefined = self.metric {
            self.metric = host::define_metric(MetricType::Counter, &name()).map_or(Metric::Refused, Metric::Defined);
        }
        // The host takes an addition of 0 for a bad argument.
        if let Metric::Defined(metric) = self.metric
            && pending > 0
        {
            let _ = host::add_to_metric(metric, i64::from(pending));
        }
    }
}

fn request_place(outcome: Outcome, rule: Option<usize>) -> usize {
    let row = rule.map_or(0, |rule| rule.saturating_add(1));
    row.saturating_mul(Outcome::PLACES).saturating_add(outcome.place())
}

/// A gauge of 1 for the engine that is used, and of 0 for the other: a new configuration may have chosen anew.
pub fn set_engine(chosen: Kind) {
    for kind in [Kind::Host, Kind::Portable] {
        let name = format!("portcullis.engine.kind.{}", kind.name());
        if let Ok(metric) = host::define_metric(MetricType::Gauge, &name) {
            let _ = host::record_metric(metric, u64::from(kind == chosen));
        }
    }
}

/// At 0 from the start: a rate over them must not miss the first one.
pub fn define_missing_settings() {
    for setting in Setting::ALL {
        let _ = host::define_metric(MetricType::Counter, &Counter::MissingProxySetting(setting).name());
    }
}

impl Outcome {
    const PLACES: usize = RejectReason::ALL.len().saturating_add(4);

    fn place(self) -> usize {
        match self {
            Outcome::Admitted => 0,
            Outcome::AdmittedUnchecked => 1,
            Outcome::Open => 2,
            Outcome::Answered => 3,
            Outcome::Refused(reason) => reason.place().saturating_add(4),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Admitted => "admitted",
            Outcome::AdmittedUnchecked => "admitted_unchecked",
            Outcome::Answered => "answered",
            Outcome::Refused(reason) if reason.is_cannot_tell() => "cannot_tell",
            Outcome::Refused(_) => "refused",
        }
    }
}

impl Counter {
    const SETTINGS: usize = StoreError::ALL.len().saturating_add(11);
    const PLACES: usize = Self::SETTINGS.saturating_add(Setting::ALL.len());

    fn place(self) -> usize {
        match self {
            Counter::TokenHit => 0,
            Counter::TokenMiss => 1,
            Counter::SharedHit => 2,
            Counter::SharedMiss => 3,
            Counter::CheckSent => 4,
            Counter::BindingReported => 5,
            Counter::SpoofedHeader => 6,
            Counter::RefreshedAhead => 10,
            Counter::CheckFailed(CheckFailure::NotSent) => 7,
            Counter::CheckFailed(CheckFailure::NoAnswer) => 8,
            Counter::CheckFailed(CheckFailure::NoProof) => 9,
            Counter::CheckFailed(CheckFailure::Service(error)) => error.place().saturating_add(11),
            Counter::MissingProxySetting(setting) => setting.place().saturating_add(Self::SETTINGS),
        }
    }

    fn name(self) -> String {
        match self {
            Counter::TokenHit => "portcullis.token_cache.result.hit".into(),
            Counter::TokenMiss => "portcullis.token_cache.result.miss".into(),
            Counter::SharedHit => "portcullis.shared_verdicts.result.hit".into(),
            Counter::SharedMiss => "portcullis.shared_verdicts.result.miss".into(),
            Counter::CheckSent => "portcullis.checks_sent".into(),
            Counter::RefreshedAhead => "portcullis.refreshed_ahead".into(),
            Counter::CheckFailed(failure) => format!("portcullis.checks_failed.reason.{}", failure.name()),
            Counter::BindingReported => "portcullis.binding_mismatches_reported".into(),
            Counter::SpoofedHeader => "portcullis.spoofed_headers_removed".into(),
            Counter::MissingProxySetting(setting) => {
                format!("portcullis.missing_proxy_settings.reason.{}", setting.name())
            }
        }
    }
}

impl WaitsFor {
    const ALL: [WaitsFor; 3] = [WaitsFor::Check, WaitsFor::Introspection, WaitsFor::Keys];

    fn name(self) -> &'static str {
        match self {
            WaitsFor::Check => "check",
            WaitsFor::Introspection => "introspection",
            WaitsFor::Keys => "keys",
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

impl Histogram {
    fn name(self) -> &'static str {
        match self {
            Histogram::CheckMicroseconds => "portcullis.check_microseconds",
            Histogram::CheckTokens => "portcullis.check_tokens",
            Histogram::IntrospectionMicroseconds => "portcullis.introspection_microseconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_place_of_its_own() {
        let failures = [CheckFailure::NotSent, CheckFailure::NoAnswer, CheckFailure::NoProof]
            .into_iter()
            .chain(StoreError::ALL.map(CheckFailure::Service))
            .map(Counter::CheckFailed);
        let others = [
            Counter::TokenHit,
            Counter::TokenMiss,
            Counter::SharedHit,
            Counter::SharedMiss,
            Counter::CheckSent,
            Counter::RefreshedAhead,
            Counter::BindingReported,
            Counter::SpoofedHeader,
        ];
        let settings = Setting::ALL.map(Counter::MissingProxySetting);
        let mut places: Vec<_> = failures.chain(others).chain(settings).map(Counter::place).collect();
        places.sort_unstable();
        assert_eq!(places, (0..Counter::PLACES).collect::<Vec<_>>());
    }

    #[test]
    fn each_outcome_has_a_place_of_its_own_under_each_rule() {
        let outcomes = RejectReason::ALL.iter().map(|reason| Outcome::Refused(*reason));
        let outcomes =
            outcomes.chain([Outcome::Open, Outcome::Admitted, Outcome::AdmittedUnchecked, Outcome::Answered]);
        let mut places: Vec<_> =
            outcomes.flat_map(|outcome| [None, Some(0), Some(1)].map(|rule| request_place(outcome, rule))).collect();
        places.sort_unstable();
        assert_eq!(places, (0..3 * Outcome::PLACES).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_counted_is_kept_until_it_is_told_and_then_begins_anew() {
        let mut metrics = Metrics::default();
        for _ in 0..3 {
            metrics.count(Counter::TokenHit);
            metrics.request(Outcome::Admitted, Some(7));
        }
        assert_eq!(metrics.counters[Counter::TokenHit.place()].pending, 3);
        assert_eq!(metrics.requests[request_place(Outcome::Admitted, Some(7))].pending, 3);
        assert_eq!(metrics.changed.len(), 2);
        metrics.flush(|_| "api");
        assert!(metrics.changed.is_empty() && metrics.counters.iter().all(|count| count.pending == 0));
        metrics.count(Counter::TokenHit);
        assert_eq!(metrics.changed.len(), 1);
    }

    #[test]
    fn a_gauge_is_told_only_when_its_value_has_changed() {
        let mut level = Level { metric: Metric::Defined(7), told: 0 };
        let told = [0, 3, 3, 0].map(|value| level.change(value, String::new));
        assert_eq!(told, [None, Some(7), None, Some(7)]);
        assert_eq!(WaitsFor::ALL.map(|what| what as usize), [0, 1, 2]);
    }

    /// docs/metrics.md is written by hand, and held to the code here.
    #[test]
    fn every_metric_and_label_value_is_documented() {
        let docs = include_str!("../../docs/metrics.md");
        let failures = [CheckFailure::NotSent, CheckFailure::NoAnswer, CheckFailure::NoProof]
            .into_iter()
            .chain(StoreError::ALL.map(CheckFailure::Service));
        for failure in failures {
            assert!(docs.contains(&format!("`{}`", failure.name())), "{}", failure.name());
        }
        let outcomes =
            [Outcome::Open, Outcome::Admitted, Outcome::AdmittedUnchecked, Outcome::Refused(RejectReason::JwtExpired)];
        for outcome in outcomes.into_iter().chain([Outcome::Answered, Outcome::Refused(RejectReason::StoreUnavailable)])
        {
            assert!(docs.contains(&format!("`{}`", outcome.name())), "{}", outcome.name());
        }
        let counters = [
            Counter::TokenHit,
            Counter::SharedHit,
            Counter::CheckSent,
            Counter::RefreshedAhead,
            Counter::BindingReported,
            Counter::SpoofedHeader,
        ];
        for name in counters.map(Counter::name) {
            assert!(docs.contains(&format!("wasmcustom.{name}")), "{name}");
        }
        for setting in Setting::ALL {
            assert!(docs.contains(&format!("`{}`", setting.name())), "{}", setting.name());
        }
        for what in WaitsFor::ALL {
            assert!(docs.contains(&format!("`{}`", what.name())), "{}", what.name());
        }
        for name in ["keys_age_seconds.issuer.ISSUER", "waiting_requests.reason.WAIT"] {
            assert!(docs.contains(&format!("wasmcustom.portcullis.{name}")), "{name}");
        }
        let histograms = [Histogram::CheckMicroseconds, Histogram::CheckTokens, Histogram::IntrospectionMicroseconds];
        for name in histograms.map(Histogram::name) {
            assert!(docs.contains(&format!("wasmcustom.{name}")), "{name}");
        }
        for failure in authn::introspection::Failure::ALL {
            assert!(docs.contains(&format!("`{}`", failure.name())), "{}", failure.name());
        }
    }
}
