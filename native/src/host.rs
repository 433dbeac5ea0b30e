//! The driver's host: the calls that do not depend on a request, for hooks on a worker or on the main thread.
use std::fmt;

use authn::config::Engine as EngineChoice;
use authn::engine::Portable;
use authn::engine::aws_lc::AwsLc;
use authn::time::Now;
use driver::{CallId, Callout, Cas, ChosenEngine, Host, HostError, Level, Metric, PutError, Setup};

use crate::envoy::{self, LogLevel, Meter};
use crate::injection::{self, Point};
use crate::metrics::{self, Left, Metrics};
use crate::outbox::Outbox;
use crate::sds::Secrets;
use crate::secret::secret;
use crate::{clock, shared_data};

/// Exists during one hook. `C` is the type of configurations.
pub struct HookHost<'h, C> {
    /// `None` if Envoy's objects are gone. Reports are then left to another configuration.
    pub meter: Option<Meter<'h>>,
    pub metrics: &'h Metrics,
    pub outbox: &'h Outbox<C>,
    pub secrets: &'h Secrets,
    /// The number of workers.
    pub workers: usize,
    pub thread: Thread,
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// At its end, the hook sends what was posted.
    Main,
    /// The main thread must be woken to send.
    Other,
}

/// Shards of the token cache for each worker, so that workers rarely contend for one lock.
const TOKEN_SHARDS_PER_WORKER: usize = 8;

/// The wall clock is before 1970.
const NO_TIME: HostError = HostError(1);
const NO_RANDOMNESS: HostError = HostError(2);

impl<C> Host for HookHost<'_, C> {
    fn now(&mut self) -> Result<Now, HostError> {
        injection::point(Point::Now);
        clock::now().ok_or(NO_TIME)
    }

    fn nonce(&mut self) -> Result<[u8; 16], HostError> {
        random()
    }

    /// Only the main thread can send it, a moment later. If Envoy refuses, the refusal is the answer.
    fn call(&mut self, callout: &Callout<'_>) -> Result<CallId, HostError> {
        injection::point(Point::Call);
        let call = self.outbox.post(callout);
        if self.thread == Thread::Other {
            self.outbox.ring();
        }
        Ok(call)
    }

    /// Those of workers: the main thread sends them. While it wakes, more requests come, and their checks are sent together.
    fn sends_checks_later(&mut self) -> bool {
        injection::point(Point::Call);
        if self.thread == Thread::Other {
            self.outbox.ring();
        }
        self.thread == Thread::Other
    }

    fn shared_get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Cas)>, HostError> {
        Ok(shared_data::get(key))
    }

    fn shared_put(&mut self, key: &str, value: &[u8], cas: Cas) -> Result<(), PutError> {
        shared_data::put(key, value, cas)
    }

    fn add(&mut self, metric: Metric, labels: &[&str], by: i64) {
        injection::point(Point::Add);
        match self.meter {
            Some(meter) => self.metrics.add(meter, metric, labels, by),
            None => metrics::leave_behind(metric, labels, Left::Add(by)),
        }
    }

    fn record(&mut self, metric: Metric, labels: &[&str], value: u64) {
        match self.meter {
            Some(meter) => self.metrics.record(meter, metric, labels, value),
            None => metrics::leave_behind(metric, labels, Left::Record(value)),
        }
    }

    fn log(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let level = match level {
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        if envoy::logs(level) {
            envoy::log(level, &text.to_string());
        }
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], HostError> {
    let mut random = [0u8; BYTES];
    getrandom::fill(&mut random).map_err(|_| NO_RANDOMNESS)?;
    Ok(random)
}

impl<C> Setup for HookHost<'_, C> {
    fn secret(&self, name: &str) -> Option<Vec<u8>> {
        self.secrets.get(name).map(<[u8]>::to_vec).or_else(|| secret(name))
    }

    fn has_sds(&self) -> bool {
        true
    }

    fn random(&mut self) -> Result<[u8; 32], HostError> {
        random()
    }

    fn token_shards(&self) -> usize {
        self.workers.saturating_mul(TOKEN_SHARDS_PER_WORKER)
    }

    fn is_the_only_dispatcher(&self) -> bool {
        true
    }

    fn engines(&self) -> &'static [&'static str] {
        &["host", "portable"]
    }

    /// The host's verifier is in the module, so it is always available.
    fn engine(&mut self, choice: EngineChoice) -> Result<ChosenEngine, String> {
        Ok(match choice {
            EngineChoice::Auto | EngineChoice::Host => ChosenEngine { engine: Box::new(AwsLc), name: "host" },
            EngineChoice::Portable => ChosenEngine { engine: Box::new(Portable), name: "portable" },
        })
    }
}
