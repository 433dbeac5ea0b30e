//! Envoy's side of one filter configuration, while a hook about it runs. Main thread only.
use std::marker::PhantomData;
use std::time::Duration;

use super::raw::{self, buffer};
use super::{ConfigScheduler, Meter, Metric, MetricRefused};
use crate::abi::{self, ConfigPtr, ModuleBuffer};

/// Not to be sent or shared: hooks about a configuration run on the main thread.
pub struct Config<'hook> {
    config: ConfigPtr,
    hook: PhantomData<&'hook mut ()>,
}

/// A request to a cluster.
pub struct Callout<'c> {
    pub cluster: &'c str,
    /// With `:method`, `:path` and `:authority`.
    pub headers: &'c [(&'c [u8], &'c [u8])],
    pub body: &'c [u8],
    pub timeout: Duration,
}

/// Why a callout could not even begin. No hook follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalloutRefused(pub u32);

impl CalloutRefused {
    pub fn reason(self) -> &'static str {
        let place = usize::try_from(self.0).ok();
        place.and_then(|place| abi::CALLOUT_INIT_RESULTS.get(place).copied()).unwrap_or("for a reason of Envoy's")
    }
}

type Define = unsafe extern "C" fn(ConfigPtr, ModuleBuffer, *const ModuleBuffer, usize, *mut usize) -> u32;

impl<'hook> Config<'hook> {
    /// # Safety
    /// Envoy gave `config` to the hook that runs on the main thread, and the handle does not outlive that hook.
    pub(crate) unsafe fn from_hook(config: ConfigPtr) -> Self {
        Self { config, hook: PhantomData }
    }

    pub(super) fn raw(&self) -> ConfigPtr {
        self.config
    }

    /// Only while the configuration is being made. Envoy refuses it later.
    pub fn define_counter(&mut self, name: &str, labels: &[&str]) -> Result<Metric, MetricRefused> {
        self.define(abi::define_counter, name, labels)
    }

    pub fn define_gauge(&mut self, name: &str, labels: &[&str]) -> Result<Metric, MetricRefused> {
        self.define(abi::define_gauge, name, labels)
    }

    pub fn define_histogram(&mut self, name: &str, labels: &[&str]) -> Result<Metric, MetricRefused> {
        self.define(abi::define_histogram, name, labels)
    }

    fn define(&mut self, define: Define, name: &str, labels: &[&str]) -> Result<Metric, MetricRefused> {
        let labels: Vec<_> = labels.iter().map(|label| buffer(label.as_bytes())).collect();
        let mut id = 0usize;
        // SAFETY: `define` is one of the three above, which copy the names and write to `id` before they return.
        let result = unsafe { define(self.config, buffer(name.as_bytes()), labels.as_ptr(), labels.len(), &mut id) };
        MetricRefused::check(result).map(|()| Metric(id))
    }

    /// The meter of this configuration.
    pub fn meter(&self) -> Meter<'hook> {
        // SAFETY: the configuration is alive until the hook ends.
        unsafe { Meter::of_config(self.config) }
    }

    /// Sends a request. The reply comes to a hook of this configuration, under the returned number.
    ///
    /// # Errors
    /// The callout did not start. No hook follows.
    pub fn call(&mut self, callout: &Callout<'_>) -> Result<u64, CalloutRefused> {
        let headers: Vec<_> = callout.headers.iter().map(|(name, value)| raw::header(name, value)).collect();
        // 0 would mean no time limit at all.
        let timeout_ms = u64::try_from(callout.timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut number = 0u64;
        // SAFETY: Envoy copies all that it keeps, and writes to `number` before it returns.
        let result = unsafe {
            abi::config_http_callout(
                self.config,
                &mut number,
                buffer(callout.cluster.as_bytes()),
                headers.as_ptr(),
                headers.len(),
                buffer(callout.body),
                timeout_ms,
            )
        };
        if result == abi::SUCCESS { Ok(number) } else { Err(CalloutRefused(result)) }
    }

    /// A handle that wakes this configuration later, from any thread.
    pub fn scheduler(&self) -> ConfigScheduler {
        // SAFETY: the configuration is alive, and Envoy's scheduler holds it weakly.
        ConfigScheduler::own(unsafe { abi::config_scheduler_new(self.config) })
    }
}
