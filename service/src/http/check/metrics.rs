//! What is counted of checks.
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wire::check::StoreError;

use crate::base::metrics::Counters;

#[derive(Debug, Clone)]
pub struct Metrics {
    checks: Counters,
    errors: Counters,
    keys: Histogram,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckResult {
    Answered,
    /// The question was not ours or not well formed.
    Refused,
    Trouble,
}

impl CheckResult {
    const ALL: [CheckResult; 3] = [CheckResult::Answered, CheckResult::Refused, CheckResult::Trouble];

    fn name(self) -> &'static str {
        match self {
            CheckResult::Answered => "answered",
            CheckResult::Refused => "refused",
            CheckResult::Trouble => "trouble",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            checks: Counters::new("result", CheckResult::ALL.map(CheckResult::name)),
            errors: Counters::new("trouble", StoreError::ALL.map(StoreError::name)),
            keys: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 512.0]),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.checks.register(registry, "checks", "Checks by how they ended");
        self.errors.register(registry, "troubles", "Checks that could not be answered, by reason");
        registry.register("check_keys", "Keys in one check", self.keys.clone());
    }

    pub fn answered(&self) {
        self.checks.count(CheckResult::Answered.name());
    }

    pub fn refused(&self) {
        self.checks.count(CheckResult::Refused.name());
    }

    pub fn failed(&self, error: StoreError) {
        self.checks.count(CheckResult::Trouble.name());
        self.errors.count(error.name());
    }

    pub fn issuers_kept_too_short(&self, issuers: usize) {
        self.errors.add(StoreError::RetentionTooShort.name(), issuers as u64);
    }

    pub fn keys(&self, keys: usize) {
        self.keys.observe(keys as f64);
    }
}
