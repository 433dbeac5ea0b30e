//! The host: clocks that stand until they are moved, callouts that fly until they are answered, data that workers share.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use authn::config;
use authn::engine::Portable;
use authn::time::{Monotonic, Now, UnixSeconds};

use crate::host::{CallId, Callout, Cas, ChosenEngine, Host, HostError, Level, PutError, Setup};
use crate::metrics::{Metric, MetricKind};

/// What all virtual machines of a simulated process share.
#[derive(Debug, Clone, Default)]
pub struct SharedData(Arc<Mutex<Entries>>);

impl SharedData {
    /// Another writer changes every entry.
    pub fn change_all(&self, change: impl Fn(&mut Vec<u8>)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|(bytes, _)| change(bytes));
    }
}

type Entries = BTreeMap<String, (Vec<u8>, Cas)>;

/// A callout that has no reply yet.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub id: CallId,
    pub cluster: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub sent: Monotonic,
    pub timeout: Duration,
}

impl InFlight {
    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }
}

#[derive(Debug)]
pub struct FakeHost {
    pub now: Now,
    /// The clocks cannot be read.
    pub has_no_time: bool,
    /// The host refuses to send callouts.
    pub refuses_calls: bool,
    pub in_flight: Vec<InFlight>,
    pub shared: SharedData,
    /// By name and labels, as `requests{admitted,none,api}`. A histogram is the sum of its values.
    pub metrics: BTreeMap<String, i64>,
    pub log: Vec<(Level, String)>,
    pub secrets: BTreeMap<String, Vec<u8>>,
    random: u64,
    calls: u64,
}

impl FakeHost {
    /// `seed` stands for randomness: the same seed gives the same history.
    pub fn new(now: Now, secrets: BTreeMap<String, Vec<u8>>, shared: SharedData, seed: u64) -> Self {
        Self {
            now,
            has_no_time: false,
            refuses_calls: false,
            in_flight: Vec::new(),
            shared,
            metrics: BTreeMap::new(),
            log: Vec::new(),
            secrets,
            random: seed,
            calls: 0,
        }
    }

    pub fn advance(&mut self, by: Duration) {
        let before = self.now.monotonic;
        self.now.monotonic = before.plus(by);
        let second = |at: Monotonic| at.0 / 1_000_000_000;
        self.now.wall = UnixSeconds(self.now.wall.0 + second(self.now.monotonic) - second(before));
    }

    /// Takes a callout out of the network, to answer it.
    pub fn take(&mut self, id: CallId) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|call| call.id == id)?;
        Some(self.in_flight.remove(at))
    }

    fn series(metric: Metric, labels: &[&str]) -> String {
        assert_eq!(metric.labels().len(), labels.len(), "{}", metric.name());
        match labels {
            [] => metric.name().to_owned(),
            labels => format!("{}{{{}}}", metric.name(), labels.join(",")),
        }
    }
}

impl Host for FakeHost {
    fn now(&mut self) -> Result<Now, HostError> {
        if self.has_no_time { Err(HostError(10)) } else { Ok(self.now) }
    }

    fn nonce(&mut self) -> Result<[u8; 16], HostError> {
        self.random()?.first_chunk().copied().ok_or(HostError(10))
    }

    fn call(&mut self, callout: &Callout<'_>) -> Result<CallId, HostError> {
        if self.refuses_calls {
            return Err(HostError(10));
        }
        self.calls += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.in_flight.push(InFlight {
            id: CallId(self.calls),
            cluster: callout.cluster.to_owned(),
            headers: callout.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
            body: callout.body.to_vec(),
            sent: self.now.monotonic,
            timeout: callout.timeout,
        });
        Ok(CallId(self.calls))
    }

    fn shared_get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Cas)>, HostError> {
        Ok(self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn shared_put(&mut self, key: &str, value: &[u8], cas: Cas) -> Result<(), PutError> {
        let mut shared = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = shared.get(key).map_or(0, |(_, cas)| *cas);
        if cas != 0 && cas != current {
            return Err(PutError::Changed);
        }
        shared.insert(key.to_owned(), (value.to_vec(), current + 1));
        Ok(())
    }

    fn add(&mut self, metric: Metric, labels: &[&str], by: i64) {
        assert_ne!(by, 0, "Envoy takes an addition of 0 for a bad argument");
        *self.metrics.entry(Self::series(metric, labels)).or_default() += by;
    }

    fn record(&mut self, metric: Metric, labels: &[&str], value: u64) {
        let (value, entry) =
            (i64::try_from(value).unwrap_or(i64::MAX), self.metrics.entry(Self::series(metric, labels)));
        match metric.kind() {
            MetricKind::Histogram => *entry.or_default() += value,
            MetricKind::Counter | MetricKind::Gauge => *entry.or_default() = value,
        }
    }

    fn log(&mut self, level: Level, text: fmt::Arguments<'_>) {
        self.log.push((level, text.to_string()));
    }
}

impl Setup for FakeHost {
    fn secret(&self, name: &str) -> Option<Vec<u8>> {
        self.secrets.get(name).cloned()
    }

    fn random(&mut self) -> Result<[u8; 32], HostError> {
        let mut random = [0; 32];
        for byte in &mut random {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.random.to_be_bytes()[0];
        }
        Ok(random)
    }

    fn engines(&self) -> &'static [&'static str] {
        &["portable"]
    }

    fn engine(&mut self, _: config::Engine) -> Result<ChosenEngine, String> {
        Ok(ChosenEngine { engine: Box::new(Portable), name: "portable" })
    }
}
