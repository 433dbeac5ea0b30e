//! The driver's metrics in Envoy: each family is one metric with labels.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use driver::Metric as Family;
use driver::metrics::MetricKind;

use crate::envoy::{Config, Meter, Metric, MetricRefused};

/// One configuration's ids of the metrics, in the order of [`Family::ALL`].
#[derive(Debug)]
pub struct Metrics {
    families: Vec<(Family, Metric)>,
    /// Hooks that panicked.
    faults: Metric,
}

impl Metrics {
    /// # Errors
    /// The metric that Envoy refuses, as text for the log.
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

    /// Adds to a counter or a gauge. A metric that Envoy refuses is ignored.
    pub fn add(&self, meter: Meter<'_>, family: Family, labels: &[&str], by: i64) {
        let Some(metric) = self.number(family) else { return };
        match family.kind() {
            MetricKind::Gauge => {
                let mut levels = levels();
                raise(&mut levels, family, labels, by);
                self.set_level(meter, &levels, family, labels);
            }
            MetricKind::Counter | MetricKind::Histogram => {
                let _ = meter.count(metric, labels, by.unsigned_abs());
            }
        }
    }

    /// Sets a gauge, or records into a histogram.
    pub fn record(&self, meter: Meter<'_>, family: Family, labels: &[&str], value: u64) {
        let Some(metric) = self.number(family) else { return };
        let _ = match family.kind() {
            MetricKind::Gauge => meter.set(metric, labels, value),
            MetricKind::Counter | MetricKind::Histogram => meter.record(metric, labels, value),
        };
    }

    /// Under the lock, so that of two threads the later level is the one that Envoy keeps.
    fn set_level(&self, meter: Meter<'_>, levels: &Levels, family: Family, labels: &[&str]) {
        let Some(metric) = self.number(family) else { return };
        let level = levels.get(&series(family, labels)).copied().unwrap_or(0);
        let _ = meter.set(metric, labels, u64::try_from(level).unwrap_or(0));
    }

    pub fn fault(&self, meter: Meter<'_>) {
        let _ = meter.count(self.faults, &[], 1);
    }

    fn number(&self, family: Family) -> Option<Metric> {
        self.families.iter().find(|(known, _)| *known == family).map(|(_, metric)| *metric)
    }
}

/// Gauges that are sums over all configurations of the process, by family and labels. Envoy does not keep the sum: it
/// drops a gauge with the last configuration that has set it, and the next one would subtract from 0.
type Levels = BTreeMap<(&'static str, Vec<String>), i64>;

static LEVELS: Mutex<Levels> = Mutex::new(Levels::new());

fn levels() -> MutexGuard<'static, Levels> {
    LEVELS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn series(family: Family, labels: &[&str]) -> (&'static str, Vec<String>) {
    (family.name(), labels.iter().map(|&label| label.to_owned()).collect())
}

fn raise(levels: &mut Levels, family: Family, labels: &[&str], by: i64) {
    let level = levels.entry(series(family, labels)).or_default();
    *level = level.saturating_add(by);
}

/// A report of a configuration that Envoy has removed.
#[derive(Debug, Clone, Copy)]
pub enum Left {
    Add(i64),
    Record(u64),
    /// The sum has changed.
    Level,
}

/// Reports of configurations that ended. The next configuration that ticks reports them, because the metrics belong to
/// the process.
static LEFT_BEHIND: Mutex<Vec<(Family, Vec<String>, Left)>> = Mutex::new(Vec::new());
/// Far more reports than one configuration leaves.
const MAX_LEFT_BEHIND: usize = 4096;

pub fn leave_behind(family: Family, labels: &[&str], left: Left) {
    let left = match left {
        Left::Add(by) if family.kind() == MetricKind::Gauge => {
            raise(&mut levels(), family, labels, by);
            Left::Level
        }
        left => left,
    };
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
            Left::Level => metrics.set_level(meter, &levels(), family, &labels),
        }
    }
}

fn refusal(name: &str, MetricRefused(result): MetricRefused) -> String {
    format!("Envoy refuses the metric `{name}`: result {result}")
}
