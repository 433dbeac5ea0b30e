//! Counters with fixed labels. Every series exists from the start: a rate over a series that appears late misses its first
//! event. Each part of the service owns what it counts and registers it in the one registry of the process.
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub type Gauge = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;

/// A counter for each value of one label.
#[derive(Debug, Clone)]
pub struct Counters {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], Counter>,
}

/// A counter for each pair of values of two labels.
#[derive(Debug, Clone)]
pub struct PairCounters {
    labels: [&'static str; 2],
    family: Family<[(&'static str, &'static str); 2], Counter>,
}

impl Counters {
    pub fn new(label: &'static str, values: impl IntoIterator<Item = &'static str>) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        for value in values {
            family.get_or_create(&[(label, value)]).inc_by(0);
        }
        Self { label, family }
    }

    /// `value` is one of those that the counters were made with.
    pub fn count(&self, value: &'static str) {
        self.add(value, 1);
    }

    pub fn add(&self, value: &'static str, by: u64) {
        self.family.get_or_create(&[(self.label, value)]).inc_by(by);
    }

    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }
}

impl PairCounters {
    pub fn new<const FIRST: usize, const SECOND: usize>(
        labels: [&'static str; 2],
        first: [&'static str; FIRST],
        second: [&'static str; SECOND],
    ) -> Self {
        let family = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let [first_label, second_label] = labels;
        for (one, other) in first.iter().flat_map(|one| second.iter().map(move |other| (one, other))) {
            family.get_or_create(&[(first_label, one), (second_label, other)]).inc_by(0);
        }
        Self { labels, family }
    }

    /// Both are among those that the counters were made with.
    pub fn count(&self, first: &'static str, second: &'static str) {
        let [first_label, second_label] = self.labels;
        self.family.get_or_create(&[(first_label, first), (second_label, second)]).inc();
    }

    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }
}
