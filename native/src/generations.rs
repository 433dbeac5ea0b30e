//! The configurations that one configuration of Envoy has had. There is one, unless secrets come from SDS: each rotation
//! makes a new one, and requests end under the one that they began with.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::configuration::{Configuration, check_name, has_rule_for_routes};
use crate::envoy::{self, Config, LogLevel, Meter};
use crate::metrics::Metrics;
use crate::outbox::Answer;
use crate::sds::{Sds, Secrets};
use crate::ticker::{Bell, Event};
use crate::{routes, secret};

pub struct Generations {
    bell: Arc<Bell>,
    kind: Kind,
}

enum Kind {
    Fixed(Arc<Configuration>),
    Rotating(Box<Rotating>),
}

struct Rotating {
    sds: Sds,
    document: Vec<u8>,
    metrics: Arc<Metrics>,
    /// `None` until all secrets have come: every request is refused.
    current: RwLock<Option<Arc<Configuration>>>,
    /// Only the main thread works with it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that were read last, and the configuration was made of or refused with.
    seen: Option<Secrets>,
    /// They still have requests.
    older: Vec<Arc<Configuration>>,
    complained: Option<Instant>,
}

/// How often the log says that a secret is missing.
const COMPLAINTS: Duration = Duration::from_secs(10);

impl Generations {
    /// # Errors
    /// What is wrong with the configuration, as text for the log.
    pub fn new(config: &mut Config<'_>, name: &[u8], document: &[u8]) -> Result<Self, String> {
        check_name("filter_name", name)?;
        let sds = Sds::subscribe(config, document)?;
        let metrics = Arc::new(Metrics::define(config)?);
        let bell = Bell::start(config.scheduler(), sds.is_some());
        let bell = bell.map_err(|error| format!("the system gives no thread: {error}"))?;
        let Some(sds) = sds else {
            let configuration = Configuration::new(config, document, metrics, &bell, Secrets::default())?;
            routes::check(configuration.policy(), has_rule_for_routes).inspect_err(|_| configuration.retire())?;
            return Ok(Self { bell, kind: Kind::Fixed(configuration) });
        };
        let (current, state) = (RwLock::default(), Mutex::default());
        let rotating = Rotating { sds, document: document.to_vec(), metrics, current, state };
        // Now, since it cannot be refused later: the secrets come when Envoy has this configuration already.
        let secret_or = |name: &str| rotating.sds.placeholder(name).or_else(|| secret::secret(name));
        let policy = driver::compile(document.to_vec(), &secret_or)?;
        routes::check(&policy, has_rule_for_routes)?;
        rotating.rotate(config, &bell)?;
        Ok(Self { bell, kind: Kind::Rotating(Box::new(rotating)) })
    }

    /// The configuration of a new request, which has entered it. `None`: a secret is missing.
    pub fn enter(&self) -> Option<Arc<Configuration>> {
        let enter = |configuration: &Arc<Configuration>| {
            configuration.enter();
            Arc::clone(configuration)
        };
        match &self.kind {
            Kind::Fixed(configuration) => Some(enter(configuration)),
            // Under the lock, so that a configuration that is replaced gets no request afterwards.
            Kind::Rotating(rotating) => read(&rotating.current).as_ref().map(enter),
        }
    }

    /// On the main thread.
    pub fn on_event(&self, config: &mut Config<'_>, event: u64) {
        let Some(event) = Event::of(event) else { return };
        self.bell.heard(event);
        if let (Event::Tick, Kind::Rotating(rotating)) = (event, &self.kind) {
            if let Err(why) = rotating.rotate(config, &self.bell) {
                let kept = "its predecessor stays in use, if there is one";
                envoy::log(LogLevel::Error, &format!("portcullis: a new secret of SDS is refused, {kept}: {why}"));
            }
            rotating.retire_unused();
        }
        self.all().iter().for_each(|configuration| configuration.on_event(config, event));
    }

    /// On the main thread.
    pub fn on_answer(&self, config: &mut Config<'_>, callout: u64, answer: &Answer<'_>) {
        self.all().iter().for_each(|configuration| configuration.on_answer(config, callout, answer));
    }

    /// A hook panicked. `meter`: unless Envoy's objects are gone.
    pub fn on_fault(&self, mut meter: Option<Meter<'_>>) {
        // It is counted once, whichever of them it was.
        self.all().iter().for_each(|configuration| configuration.on_fault(meter.take()));
    }

    /// Envoy does not use it any more, and its requests are over. Runs on any thread.
    pub fn retire(&self) {
        self.all().iter().for_each(|configuration| configuration.retire());
    }

    /// The current one first.
    fn all(&self) -> Vec<Arc<Configuration>> {
        match &self.kind {
            Kind::Fixed(configuration) => vec![Arc::clone(configuration)],
            Kind::Rotating(rotating) => {
                let current = read(&rotating.current).clone();
                current.into_iter().chain(rotating.state().older.iter().map(Arc::clone)).collect()
            }
        }
    }
}

impl Rotating {
    /// Makes a new configuration if secrets have changed.
    fn rotate(&self, config: &mut Config<'_>, bell: &Arc<Bell>) -> Result<(), String> {
        let secrets = match self.sds.read(config) {
            Ok(secrets) => secrets,
            Err(missing) => {
                self.complain(missing);
                return Ok(());
            }
        };
        if self.state().seen.as_ref() == Some(&secrets) {
            return Ok(());
        }
        self.state().seen = Some(secrets.clone());
        let new = Configuration::new(config, &self.document, Arc::clone(&self.metrics), bell, secrets)?;
        bell.hurry(false);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.replace(Arc::clone(&new));
        drop(current);
        if let Some(old) = old {
            old.follow(&new);
            self.state().older.push(old);
        }
        envoy::log(LogLevel::Info, "portcullis: the secrets of SDS are in use");
        Ok(())
    }

    fn complain(&self, missing: &str) {
        let is_used = read(&self.current).is_some();
        let mut state = self.state();
        if state.complained.is_some_and(|last| last.elapsed() < COMPLAINTS) {
            return;
        }
        state.complained = Some(Instant::now());
        let effect = if is_used { "the last one stays in use" } else { "every request is answered with 503" };
        envoy::log(LogLevel::Error, &format!("portcullis: Envoy has no secret `{missing}` from SDS: {effect}"));
    }

    /// An older configuration without requests has nothing left to do, unless it waits for answers to callouts of others.
    fn retire_unused(&self) {
        let (unused, used) = std::mem::take(&mut self.state().older)
            .into_iter()
            .partition(|older: &Arc<_>| !older.has_requests() && !older.carries());
        self.state().older = used;
        let unused: Vec<Arc<Configuration>> = unused;
        unused.iter().for_each(|older| older.retire());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(current: &RwLock<Option<Arc<Configuration>>>) -> std::sync::RwLockReadGuard<'_, Option<Arc<Configuration>>> {
    current.read().unwrap_or_else(PoisonError::into_inner)
}
