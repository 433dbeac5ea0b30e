//! One filter configuration at work: what all of its requests share, on every worker and on the main thread.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use driver::{Configured, Dispatch, Dispatcher, StreamId, Worker};

use crate::envoy::{self, Config, Meter, StreamScheduler};
use crate::host::HookHost;
use crate::metrics::{self, Metrics};
use crate::outbox::{Answer, Outbox};
use crate::ticker::{Bell, Event};

/// What Envoy's configuration must name: `filter_name`.
const FILTER_NAME: &[u8] = b"portcullis";

pub struct Configuration {
    /// By the worker's number. Only the worker's own thread works with it; the main thread reports its counts.
    workers: Vec<Mutex<Worker>>,
    dispatcher: Mutex<Dispatcher>,
    /// What wakes the requests that wait.
    parked: Mutex<HashMap<StreamId, StreamScheduler>>,
    outbox: Outbox,
    bell: Arc<Bell>,
    metrics: Metrics,
}

/// The way of a worker to the dispatcher.
pub struct Gate<'c> {
    dispatcher: &'c Mutex<Dispatcher>,
    /// Requests may be ready to resume.
    pub was_used: bool,
}

/// The event that a stream is woken with. There is only one.
pub const RESUME: u64 = 1;

impl Configuration {
    /// # Errors
    /// What is wrong with the configuration, in words for the log.
    pub fn new(config: &mut Config<'_>, name: &[u8], document: &[u8]) -> Result<Arc<Self>, String> {
        if name != FILTER_NAME {
            let name = String::from_utf8_lossy(name);
            return Err(format!("filter_name is `{name}`: this module has the filter `portcullis` only"));
        }
        let metrics = Metrics::define(config)?;
        let bell = Bell::start(config.scheduler()).map_err(|error| format!("the system gives no thread: {error}"))?;
        let outbox = Outbox::new(Arc::clone(&bell));
        let workers = usize::try_from(envoy::workers(config)).unwrap_or(1).max(1);
        let mut host = HookHost { meter: Some(config.meter()), metrics: &metrics, outbox: &outbox, workers };
        let Configured { core, dispatcher } = driver::configure(&mut host, document.to_vec())?;
        Ok(Arc::new(Self {
            workers: (0..workers).map(|_| Mutex::new(Worker::new(Arc::clone(&core)))).collect(),
            dispatcher: Mutex::new(dispatcher),
            parked: Mutex::default(),
            outbox,
            bell,
            metrics,
        }))
    }

    /// Envoy has no use for it any more, and its requests are over. On any thread.
    pub fn retire(&self) {
        let mut host = self.host(None);
        for worker in &self.workers {
            lock(worker).flush(&mut host);
        }
        lock(&self.dispatcher).end(&mut host);
    }

    /// On the main thread.
    pub fn on_event(&self, config: &mut Config<'_>, event: u64) {
        let Some(event) = Event::of(event) else { return };
        self.bell.heard(event);
        if event == Event::Tick {
            self.tick(config.meter());
        }
        self.send(config);
    }

    /// On the main thread. The answer is without headers where none came.
    pub fn on_answer(&self, config: &mut Config<'_>, callout: u64, answer: &Answer<'_>) {
        if let Some(call) = self.outbox.answered(callout) {
            let mut host = self.host(Some(config.meter()));
            lock(&self.dispatcher).answered(&mut host, call, answer);
            self.wake_ready();
        }
        self.send(config);
    }

    /// A hook panicked.
    pub fn on_fault(&self, meter: Meter<'_>) {
        self.metrics.fault(meter);
    }

    pub fn worker(&self, number: u32) -> Option<MutexGuard<'_, Worker>> {
        self.workers.get(usize::try_from(number).ok()?).map(lock)
    }

    pub fn host<'h>(&'h self, meter: Option<Meter<'h>>) -> HookHost<'h> {
        HookHost { meter, metrics: &self.metrics, outbox: &self.outbox, workers: self.workers.len() }
    }

    pub fn gate(&self) -> Gate<'_> {
        Gate { dispatcher: &self.dispatcher, was_used: false }
    }

    /// This request waits. What it waits for may have come already, and then nobody wakes it: look once more after this.
    pub fn park(&self, stream: StreamId, scheduler: StreamScheduler) {
        lock(&self.parked).insert(stream, scheduler);
    }

    pub fn unpark(&self, stream: StreamId) {
        lock(&self.parked).remove(&stream);
    }

    /// Wakes the requests that need no longer wait, each on its worker.
    pub fn wake_ready(&self) {
        loop {
            // The locks are taken one after the other, never one within the other.
            let ready = lock(&self.dispatcher).poll_wake();
            let Some(stream) = ready else { return };
            if let Some(scheduler) = lock(&self.parked).get(&stream) {
                scheduler.wake(RESUME);
            }
        }
    }

    fn tick(&self, meter: Meter<'_>) {
        metrics::report_left_behind(&self.metrics, meter);
        let mut host = self.host(Some(meter));
        for worker in &self.workers {
            // One that is at work is asked the next time.
            if let Ok(mut worker) = worker.try_lock() {
                worker.flush(&mut host);
            }
        }
        lock(&self.dispatcher).tick(&mut host);
        self.wake_ready();
    }

    /// Sends callouts until there are no more: one that Envoy refuses can lead to the next.
    fn send(&self, config: &mut Config<'_>) {
        loop {
            let unsent = self.outbox.send(config);
            if unsent.is_empty() {
                return;
            }
            let mut host = self.host(Some(config.meter()));
            for call in unsent {
                lock(&self.dispatcher).answered(&mut host, call, &Answer::NONE);
            }
            self.wake_ready();
        }
    }
}

impl Dispatch for Gate<'_> {
    fn with<T>(&mut self, work: impl FnOnce(&mut Dispatcher) -> T) -> T {
        self.was_used = true;
        work(&mut lock(self.dispatcher))
    }
}

/// What a panic left behind is taken as it is: the request that caused it was refused, and the others must be answered.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
