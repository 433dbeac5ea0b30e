//! What is measured of regions. Their number is bounded by the options.
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::AskError;
use crate::base::metrics::{Counters, Gauge};

type FloatGauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;
type Of<Metric> = Family<[(&'static str, String); 1], Metric>;
type ByWord = Family<[(&'static str, String); 2], Counter>;

#[derive(Debug, Clone)]
pub struct Metrics {
    served: Counters,
    complete: Of<FloatGauge>,
    compared: Of<FloatGauge>,
    merged: Of<Counter>,
    bounded: Of<Counter>,
    requests: ByWord,
    mismatch: Family<[(&'static str, String); 2], Gauge>,
}

/// How a request of another region ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedResult {
    Answered,
    /// Made with another secret, or malformed.
    Refused,
    Trouble,
}

/// What two regions should have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    Secrets,
    Retention,
    Tolerance,
    Clock,
    /// Another region has the same one.
    Store,
}

impl ServedResult {
    fn name(self) -> &'static str {
        match self {
            ServedResult::Answered => "answered",
            ServedResult::Refused => "refused",
            ServedResult::Trouble => "trouble",
        }
    }
}

impl Mismatch {
    pub const ALL: [Mismatch; 5] =
        [Mismatch::Secrets, Mismatch::Retention, Mismatch::Tolerance, Mismatch::Clock, Mismatch::Store];

    pub fn name(self) -> &'static str {
        match self {
            Mismatch::Secrets => "secrets",
            Mismatch::Retention => "retention",
            Mismatch::Tolerance => "tolerance",
            Mismatch::Clock => "clock",
            Mismatch::Store => "store",
        }
    }
}

impl AskError {
    fn name(&self) -> &'static str {
        match self {
            AskError::Unreachable(_) => "unreachable",
            AskError::Refused(_) => "refused",
            AskError::Reply(_) => "no_proof",
            AskError::Trouble(_) => "trouble",
            AskError::Protocol(_) => "protocol",
            AskError::Ourselves => "ourselves",
            AskError::OurStore(_) => "our_store",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let served = [ServedResult::Answered, ServedResult::Refused, ServedResult::Trouble];
        Self {
            served: Counters::new("result", served.map(ServedResult::name)),
            complete: Family::default(),
            compared: Family::default(),
            merged: Family::default(),
            bounded: Family::default(),
            requests: Family::default(),
            mismatch: Family::default(),
        }
    }
}

fn of(region: &str) -> [(&'static str, String); 1] {
    [("region", region.to_owned())]
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.served.register(registry, "region_requests_served", "Requests of other regions by result");
        let help = "When everything of the region was merged here last, in Unix seconds; 0: never";
        registry.register("region_complete_timestamp_seconds", help, self.complete.clone());
        let help = "When the last comparison with all of the region ended, in Unix seconds; 0: never";
        registry.register("region_compared_timestamp_seconds", help, self.compared.clone());
        registry.register("region_merged", "Revocations of the region that were written here", self.merged.clone());
        let help = "Revocations of the region whose `before` was too far in the future";
        registry.register("region_bounded", help, self.bounded.clone());
        registry.register("region_requests", "Requests to the region by result", self.requests.clone());
        let help = "1 while the region differs from this one in what both must have alike";
        registry.register("region_mismatch", help, self.mismatch.clone());
    }

    /// Every series exists from the start.
    pub(super) fn begin(&self, region: &str) {
        self.complete.get_or_create(&of(region)).set(0.0);
        self.compared.get_or_create(&of(region)).set(0.0);
        self.merged.get_or_create(&of(region)).inc_by(0);
        self.bounded.get_or_create(&of(region)).inc_by(0);
        for mismatch in Mismatch::ALL {
            self.mismatch(region, mismatch, false);
        }
    }

    pub fn served(&self, result: ServedResult) {
        self.served.count(result.name());
    }

    pub(super) fn asked(&self, region: &str, error: Option<&AskError>) {
        let result = error.map_or("answered", AskError::name).to_owned();
        self.requests.get_or_create(&[("region", region.to_owned()), ("result", result)]).inc();
    }

    pub(super) fn complete(&self, region: &str, moment: Option<Instant>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = moment.map_or(0.0, |moment| now.saturating_sub(moment.elapsed()).as_secs_f64());
        self.complete.get_or_create(&of(region)).set(seconds);
    }

    pub(super) fn compared(&self, region: &str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.compared.get_or_create(&of(region)).set(now.as_secs_f64());
    }

    pub(super) fn merged(&self, region: &str, written: u64, bounded: u64) {
        self.merged.get_or_create(&of(region)).inc_by(written);
        self.bounded.get_or_create(&of(region)).inc_by(bounded);
    }

    pub(super) fn mismatch(&self, region: &str, mismatch: Mismatch, is: bool) {
        let labels = [("region", region.to_owned()), ("what", mismatch.name().to_owned())];
        self.mismatch.get_or_create(&labels).set(u64::from(is));
    }
}
