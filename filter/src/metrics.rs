//! The filter's metrics: their names, and the host's numbers for them. A metric that the host will not define is not
//! counted, and nothing else suffers.
use std::collections::HashMap;

use authn::engine::Kind;
use authn::fault::Fault;

use crate::host::{self, MetricType};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No token was looked at: public, optional without one, CORS preflight.
    Open,
    Admitted,
    /// Admitted though its session could not be checked, since its rule says so.
    AdmittedUnchecked,
    Refused(Fault),
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
    CheckFailed(CheckFailure),
    BindingReported,
    SpoofedHeader,
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
    Service(wire::check::Trouble),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Histogram {
    CheckMicroseconds,
    CheckTokens,
    IntrospectionMicroseconds,
}

/// Numbers by name, defined at first use: at most outcomes × faults × rules.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: HashMap<(Outcome, Option<usize>), Option<u32>>,
    counters: HashMap<Counter, Option<u32>>,
    histograms: HashMap<Histogram, Option<u32>>,
    key_fetches: HashMap<(usize, bool), Option<u32>>,
    introspections: HashMap<(usize, &'static str), Option<u32>>,
}

impl Metrics {
    pub fn request(&mut self, outcome: Outcome, rule: Option<(usize, &str)>) {
        let define = || {
            let rule = rule.map_or("none", |(_, name)| name);
            let fault = match outcome {
                Outcome::Refused(fault) => fault.code(),
                Outcome::Open | Outcome::Admitted | Outcome::AdmittedUnchecked => "none",
            };
            let name = format!("portcullis.requests.outcome.{}.fault.{fault}.rule.{rule}", outcome.name());
            host::define_metric(MetricType::Counter, &name).ok()
        };
        add(*self.requests.entry((outcome, rule.map(|(place, _)| place))).or_insert_with(define));
    }

    pub fn count(&mut self, counter: Counter) {
        let define = || host::define_metric(MetricType::Counter, &counter.name()).ok();
        add(*self.counters.entry(counter).or_insert_with(define));
    }

    pub fn key_fetch(&mut self, issuer: usize, name: &str, is_good: bool) {
        let define = || {
            let result = if is_good { "ok" } else { "failed" };
            let name = format!("portcullis.key_fetches.issuer.{name}.result.{result}");
            host::define_metric(MetricType::Counter, &name).ok()
        };
        add(*self.key_fetches.entry((issuer, is_good)).or_insert_with(define));
    }

    pub fn introspection(&mut self, issuer: usize, name: &str, result: &'static str) {
        let define = || {
            let name = format!("portcullis.introspections.issuer.{name}.result.{result}");
            host::define_metric(MetricType::Counter, &name).ok()
        };
        add(*self.introspections.entry((issuer, result)).or_insert_with(define));
    }

    pub fn record(&mut self, histogram: Histogram, value: u64) {
        let define = || host::define_metric(MetricType::Histogram, histogram.name()).ok();
        if let Some(metric) = *self.histograms.entry(histogram).or_insert_with(define) {
            let _ = host::record_metric(metric, value);
        }
    }
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

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Admitted => "admitted",
            Outcome::AdmittedUnchecked => "admitted_unchecked",
            Outcome::Refused(fault) if fault.is_cannot_tell() => "cannot_tell",
            Outcome::Refused(_) => "refused",
        }
    }
}

impl Counter {
    fn name(self) -> String {
        match self {
            Counter::TokenHit => "portcullis.token_cache.result.hit".into(),
            Counter::TokenMiss => "portcullis.token_cache.result.miss".into(),
            Counter::SharedHit => "portcullis.shared_verdicts.result.hit".into(),
            Counter::SharedMiss => "portcullis.shared_verdicts.result.miss".into(),
            Counter::CheckSent => "portcullis.checks_sent".into(),
            Counter::CheckFailed(failure) => format!("portcullis.checks_failed.reason.{}", failure.name()),
            Counter::BindingReported => "portcullis.binding_mismatches_reported".into(),
            Counter::SpoofedHeader => "portcullis.spoofed_headers_removed".into(),
        }
    }
}

impl CheckFailure {
    fn name(self) -> &'static str {
        match self {
            CheckFailure::NotSent => "not_sent",
            CheckFailure::NoAnswer => "no_answer",
            CheckFailure::NoProof => "no_proof",
            CheckFailure::Service(trouble) => trouble.name(),
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

fn add(metric: Option<u32>) {
    if let Some(metric) = metric {
        let _ = host::add_to_metric(metric, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/metrics.md is written by hand, and held to the code here.
    #[test]
    fn every_metric_and_label_value_is_documented() {
        let docs = include_str!("../../docs/metrics.md");
        let failures = [CheckFailure::NotSent, CheckFailure::NoAnswer, CheckFailure::NoProof]
            .into_iter()
            .chain(wire::check::Trouble::ALL.map(CheckFailure::Service));
        for failure in failures {
            assert!(docs.contains(&format!("`{}`", failure.name())), "{}", failure.name());
        }
        let outcomes =
            [Outcome::Open, Outcome::Admitted, Outcome::AdmittedUnchecked, Outcome::Refused(Fault::JwtExpired)];
        for outcome in outcomes.into_iter().chain([Outcome::Refused(Fault::StoreUnavailable)]) {
            assert!(docs.contains(&format!("`{}`", outcome.name())), "{}", outcome.name());
        }
        let counters = [
            Counter::TokenHit,
            Counter::SharedHit,
            Counter::CheckSent,
            Counter::BindingReported,
            Counter::SpoofedHeader,
        ];
        for name in counters.map(Counter::name) {
            assert!(docs.contains(&format!("wasmcustom.{name}")), "{name}");
        }
        let histograms =
            [Histogram::CheckMicroseconds, Histogram::CheckTokens, Histogram::IntrospectionMicroseconds];
        for name in histograms.map(Histogram::name) {
            assert!(docs.contains(&format!("wasmcustom.{name}")), "{name}");
        }
        for failure in authn::introspection::Failure::ALL {
            assert!(docs.contains(&format!("`{}`", failure.name())), "{}", failure.name());
        }
    }
}
