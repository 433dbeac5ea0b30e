//! The driver's host in Wasm: callouts, shared data, metrics and the log, through host calls.
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use authn::config;
use authn::engine::{Chosen, host_call};
use authn::request::proxy_settings::Setting;
use authn::time::Now;
use driver::metrics::{MetricKind, WaitsFor};
use driver::{CallId, Callout, CalloutReply, Cas, ChosenEngine, Host, HostError, Level, Metric, PutError, Setup};

use crate::host::{self, Clock, LogLevel, MapType, MetricType};

/// State that lasts as long as a configuration.
pub struct Backend {
    root: u32,
    clock: Clock,
    metrics: Metrics,
}

/// The context that host calls currently apply to. The host sets it before each callback, and calls change it.
pub struct Effective(Cell<u32>);

/// The host's side of one callback.
pub struct Calling<'b> {
    backend: &'b mut Backend,
    effective: &'b Effective,
    /// Reads the wall clock. Requests extrapolate from the last reading, which saves a host call.
    reads_wall_clock: bool,
}

/// The reply to the callout that the callback is about.
pub struct Reply;

/// The host's ids of metrics, by full name. `None`: the host does not define it; nothing else depends on it.
#[derive(Default)]
struct Metrics(HashMap<String, Option<u32>>);

impl Effective {
    pub fn new(context: u32) -> Self {
        Self(Cell::new(context))
    }

    pub fn set(&self, context: u32) -> Result<(), HostError> {
        if self.0.get() != context {
            host::make_effective(context)?;
            self.0.set(context);
        }
        Ok(())
    }
}

impl Backend {
    /// # Errors
    /// Without clocks no request can be decided.
    pub fn new(root: u32) -> Result<Self, HostError> {
        let mut backend = Self { root, clock: Clock::start()?, metrics: Metrics::default() };
        backend.metrics.define_from_the_start();
        Ok(backend)
    }

    /// The context of the configuration.
    pub fn root(&self) -> u32 {
        self.root
    }

    pub fn calling<'b>(&'b mut self, effective: &'b Effective, reads_wall_clock: bool) -> Calling<'b> {
        Calling { backend: self, effective, reads_wall_clock }
    }
}

impl Host for Calling<'_> {
    fn now(&mut self) -> Result<Now, HostError> {
        if self.reads_wall_clock { self.backend.clock.set() } else { self.backend.clock.now() }
    }

    fn nonce(&mut self) -> Result<[u8; 16], HostError> {
        random()
    }

    fn call(&mut self, callout: &Callout<'_>) -> Result<CallId, HostError> {
        // A callout belongs to the context that is effective when it is sent, and its reply is lost when that context
        // goes. Other requests may wait for it, so it is sent from the root context.
        self.effective.set(self.backend.root)?;
        let Callout { cluster, headers, body, timeout } = callout;
        host::call(cluster, headers, body, *timeout).map(|call| CallId(u64::from(call)))
    }

    fn shared_get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Cas)>, HostError> {
        host::shared(key)
    }

    fn shared_put(&mut self, key: &str, value: &[u8], cas: Cas) -> Result<(), PutError> {
        host::set_shared(key, value, cas).map_err(|error| match error {
            host::CAS_MISMATCH => PutError::Changed,
            error => PutError::Host(error),
        })
    }

    fn add(&mut self, metric: Metric, labels: &[&str], by: i64) {
        if let Some(id) = self.backend.metrics.id(metric, labels) {
            let _ = host::add_to_metric(id, by);
        }
    }

    fn record(&mut self, metric: Metric, labels: &[&str], value: u64) {
        if let Some(id) = self.backend.metrics.id(metric, labels) {
            let _ = host::record_metric(id, value);
        }
    }

    fn log(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let level = match level {
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        host::log(level, &text.to_string());
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], HostError> {
    let mut random = [0u8; BYTES];
    getrandom::fill(&mut random).map_err(|_| host::INTERNAL_FAILURE)?;
    Ok(random)
}

impl Setup for Calling<'_> {
    fn secret(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(|value| value.into_encoded_bytes())
    }

    fn random(&mut self) -> Result<[u8; 32], HostError> {
        random()
    }

    fn engines(&self) -> &'static [&'static str] {
        &["host", "portable"]
    }

    fn engine(&mut self, choice: config::Engine) -> Result<ChosenEngine, String> {
        let verifies = |argument: &[u8]| host::call_foreign(host_call::FUNCTION, argument).ok();
        let Chosen { engine, kind } = authn::engine::choose(choice, verifies).map_err(|error| error.to_string())?;
        Ok(ChosenEngine { engine, name: kind.name() })
    }
}

impl CalloutReply for Reply {
    fn header(&self, name: &[u8]) -> Option<Vec<u8>> {
        host::header(MapType::HttpCallResponseHeaders, name).ok().flatten()
    }

    fn body(&self, max: usize) -> Result<Vec<u8>, HostError> {
        host::call_body(max)
    }
}

impl Metrics {
    /// Defined at 0 from the start: a rate over a counter must not miss the first event, and a gauge of an earlier
    /// configuration may have another value.
    fn define_from_the_start(&mut self) {
        for setting in Setting::ALL {
            self.id(Metric::MissingProxySettings, &[setting.name()]);
        }
        for what in WaitsFor::ALL {
            self.id(Metric::WaitingRequests, &[what.name()]);
        }
    }

    fn id(&mut self, metric: Metric, labels: &[&str]) -> Option<u32> {
        let mut name = format!("portcullis.{}", metric.name());
        // Envoy's stats have no labels here: `stats_tags` in the bootstrap extracts them from the name.
        for (label, value) in metric.labels().iter().zip(labels) {
            name.extend([".", label, ".", value]);
        }
        if let Some(known) = self.0.get(&name) {
            return *known;
        }
        let kind = match metric.kind() {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        let id = host::define_metric(kind, &name).ok();
        self.0.insert(name, id);
        id
    }
}
