//! The driver's metrics in Envoy: each family is one metric with labels.
use std::sync::{Mutex, PoisonError};

use driver::Metric as Family;
use driver::metrics::MetricKind;

use crate::envoy::{Config, Meter, Metric, MetricRefused};

/// One configuration's numbers of them, in the order of [`Family::ALL`].
#[derive(Debug)]
pub struct Metrics {
    families: Vec<(Family, Metric)>,
    /// Hooks that panicked.
    faults: Metric,
}

impl Metrics {
    /// # Errors
    /// In words for the log: Envoy will not have one of them.
    pub fn define(config: &mut Config<'_>) -> Result<Self, String> {
        let families = Family::ALL.iter().map(|&family| {
            let name = format!("portcullis.{}", family.name());
            let defined = match family.kind() {
                MetricKind::Counter => config.define_counter(&name, family.labels()),
                MetricKind::Gauge => config.define_gauge(&name, family.labels()),
                MetricKind::Histogram => config.define_histogram(&name, family.labels()),
            };
            defined.map(|metric| (family, metric)).map_err(|refused| refusal(&name, refused))
        });
        let families = families.collect::<Result<_, _>>()?;
        let faults = "portcullis.faults";
        let faults = config.define_counter(faults, &[]).map_err(|refused| refusal(faults, refused))?;
        Ok(Self { families, faults })
    }

    /// Adds to a counter or a gauge. Nothing can be done about a metric that Envoy refuses.
    pub fn add(&self, meter: Meter<'_>, family: Family, labels: &[&str], by: i64) {
        let Some(metric) = self.number(family) else { return };
        let _ = match family.kind() {
            MetricKind::Gauge if by < 0 => meter.lower(metric, labels, by.unsigned_abs()),
            MetricKind::Gauge => meter.raise(metric, labels, by.unsigned_abs()),
            MetricKind::Counter | MetricKind::Histogram => meter.count(metric, labels, by.unsigned_abs()),
        };
    }

    /// Sets a gauge, or records into a histogram.
    pub fn record(&self, meter: Meter<'_>, family: Family, labels: &[&str], value: u64) {
        let Some(metric) = self.number(family) else { return };
        let _ = match family.kind() {
            MetricKind::Gauge => meter.set(metric, labels, value),
            MetricKind::Counter | MetricKind::Histogram => meter.record(metric, labels, value),
        };
    }

    pub fn fault(&self, meter: Meter<'_>) {
        let _ = meter.count(self.faults, &[], 1);
    }

    fn number(&self, family: Family) -> Option<Metric> {
        self.families.iter().find(|(known, _)| *known == family).map(|(_, metric)| *metric)
    }
}

/// A report of a configuration that Envoy has taken down.
#[derive(Debug, Clone, Copy)]
pub enum Left {
    Add(i64),
    Record(u64),
}

/// What configurations had to report when they ended. The next one that ticks reports it: the metrics are the process's.
static LEFT_BEHIND: Mutex<Vec<(Family, Vec<String>, Left)>> = Mutex::new(Vec::new());
/// Far more than one configuration leaves.
const MAX_LEFT_BEHIND: usize = 4096;

pub fn leave_behind(family: Family, labels: &[&str], left: Left) {
    let mut all = LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < MAX_LEFT_BEHIND {
        all.push((family, labels.iter().map(|&label| label.to_owned()).collect(), left));
    }
}

pub fn report_left_behind(metrics: &Metrics, meter: Meter<'_>) {
    let all = std::mem::take(&mut *LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner));
    for (family, labels, left) in all {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match left {
            Left::Add(by) => metrics.add(meter, family, &labels, by),
            Left::Record(value) => metrics.record(meter, family, &labels, value),
        }
    }
}

fn refusal(name: &str, MetricRefused(result): MetricRefused) -> String {
    format!("Envoy refuses the metric `{name}`: result {result}")
}
