//! Counters, gauges and histograms, through a stream on its worker or through a configuration on the main thread.
use std::marker::PhantomData;

use super::raw::buffer;
use crate::abi::{self, ConfigPtr, ModuleBuffer, StreamPtr};

/// A metric's number, under the configuration that defined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric(pub(super) usize);

/// The ABI's result code: 1 no such metric, 2 wrong labels, 3 defined too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricRefused(pub u32);

/// Must not be used after its stream got a reply or was resumed.
#[derive(Clone, Copy)]
pub struct Meter<'hook> {
    of: Of,
    hook: PhantomData<&'hook ()>,
}

#[derive(Clone, Copy)]
enum Of {
    Stream(StreamPtr),
    Config(ConfigPtr),
}

type Call = unsafe extern "C" fn(*mut std::ffi::c_void, usize, *const ModuleBuffer, usize, u64) -> u32;

impl MetricRefused {
    pub(super) fn check(result: u32) -> Result<(), Self> {
        if result == abi::SUCCESS { Ok(()) } else { Err(Self(result)) }
    }
}

impl Meter<'_> {
    /// # Safety
    /// `stream` is alive for as long as the meter is used.
    pub(super) unsafe fn of_stream(stream: StreamPtr) -> Self {
        Self { of: Of::Stream(stream), hook: PhantomData }
    }

    /// # Safety
    /// `config` is alive for as long as the meter is used.
    pub(super) unsafe fn of_config(config: ConfigPtr) -> Self {
        Self { of: Of::Config(config), hook: PhantomData }
    }

    pub fn count(self, counter: Metric, labels: &[&str], by: u64) -> Result<(), MetricRefused> {
        self.call(abi::increment_counter, abi::config_increment_counter, counter, labels, by)
    }

    pub fn set(self, gauge: Metric, labels: &[&str], to: u64) -> Result<(), MetricRefused> {
        self.call(abi::set_gauge, abi::config_set_gauge, gauge, labels, to)
    }

    pub fn record(self, histogram: Metric, labels: &[&str], value: u64) -> Result<(), MetricRefused> {
        self.call(abi::record_histogram, abi::config_record_histogram, histogram, labels, value)
    }

    fn call(
        self,
        by_stream: Call,
        by_config: Call,
        metric: Metric,
        labels: &[&str],
        value: u64,
    ) -> Result<(), MetricRefused> {
        let labels: Vec<_> = labels.iter().map(|label| buffer(label.as_bytes())).collect();
        let (call, of) = match self.of {
            Of::Stream(stream) => (by_stream, stream),
            Of::Config(config) => (by_config, config),
        };
        // SAFETY: the constructors' promise; each call has the pointer that it is for. Envoy reads the labels before it
        // returns.
        MetricRefused::check(unsafe { call(of, metric.0, labels.as_ptr(), labels.len(), value) })
    }
}
