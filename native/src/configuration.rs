//! One active filter configuration: the state that all of its requests share, on every worker and on the main thread.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use authn::policy::Policy;
use driver::{CallId, Configured, Core, Dispatch, Dispatcher, StreamId, Worker};

use crate::envoy::{self, Config, LogLevel, Meter, StreamScheduler};
use crate::host::{HookHost, Thread};
use crate::live::Live;
use crate::metrics::{self, Metrics};
use crate::outbox::{Answer, Outbox, Ticket};
use crate::routes;
use crate::sds::Secrets;
use crate::ticker::{Bell, Event};

static LIVE: Live<Configuration> = Live::new();

/// The `filter_name` and `per_route_config_name` that Envoy's configuration must have.
const FILTER_NAME: &[u8] = b"portcullis";

pub struct Configuration {
    core: Arc<Core>,
    /// By the worker's number. Only the worker's own thread works with it; the main thread reports its counts.
    workers: Vec<Mutex<Worker>>,
    dispatcher: Mutex<Dispatcher>,
    /// The schedulers that wake the waiting requests.
    parked: Mutex<HashMap<StreamId, StreamScheduler>>,
    /// The schedulers that end open streams.
    watched: Mutex<HashMap<StreamId, StreamScheduler>>,
    outbox: Outbox<Self>,
    /// Secrets were rotated, and Envoy's configuration goes on with another of ours.
    is_followed: AtomicBool,
    metrics: Arc<Metrics>,
    secrets: Secrets,
    /// The requests that Envoy has under this configuration.
    requests: AtomicU64,
    /// Panics that may have lost who waits for what.
    losses: AtomicU64,
}

/// A worker's access to the dispatcher.
pub struct Gate<'c> {
    dispatcher: &'c Mutex<Dispatcher>,
    losses: &'c AtomicU64,
    /// Requests may be ready to resume.
    pub was_used: bool,
    /// [`Configuration::losses`] when it was first used.
    losses_before: u64,
}

/// A stream is woken with it when its event has come.
pub const RESUME: u64 = 1;
/// A stream is woken with it when its event may have been lost.
pub const LOST: u64 = 2;
/// An open stream is woken with it when it must be ended.
pub const END: u64 = 3;

/// How long a worker waits for the callouts of a replaced configuration: most are answered in far less.
const LAST_CALLOUTS: Duration = Duration::from_secs(2);

impl Configuration {
    /// # Errors
    /// What is wrong with the configuration, as text for the log.
    pub fn new(
        config: &Config<'_>,
        document: &[u8],
        metrics: Arc<Metrics>,
        bell: &Arc<Bell>,
        secrets: Secrets,
    ) -> Result<Arc<Self>, String> {
        let outbox = Outbox::new(Arc::clone(bell));
        let workers = usize::try_from(envoy::workers(config)).unwrap_or(1).max(1);
        let (meter, thread) = (Some(config.meter()), Thread::Other);
        let mut host = HookHost { meter, metrics: &metrics, outbox: &outbox, secrets: &secrets, workers, thread };
        let Configured { core, dispatcher } = driver::configure(&mut host, document.to_vec())?;
        let configuration = Arc::new(Self {
            core: Arc::clone(&core),
            workers: (0..workers).map(|_| Mutex::new(Worker::new(Arc::clone(&core)))).collect(),
            dispatcher: Mutex::new(dispatcher),
            parked: Mutex::default(),
            watched: Mutex::default(),
            outbox,
            metrics,
            secrets,
            is_followed: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        });
        LIVE.add(&configuration);
        Ok(configuration)
    }

    /// Callouts of other configurations are in flight in this one's name.
    pub fn carries(&self) -> bool {
        self.outbox.carries()
    }

    pub fn policy(&self) -> &Policy {
        &self.core.policy
    }

    /// Envoy does not use it any more, and its requests are over. Runs on any thread.
    pub fn retire(&self) {
        LIVE.remove(self);
        for Ticket { owner, call } in self.outbox.close() {
            if let Some(owner) = owner.as_ref().and_then(Weak::upgrade) {
                owner.answered(call, &Answer::NONE, None);
            }
        }
        let mut host = self.host(None);
        for worker in &self.workers {
            lock(worker).flush(&mut host);
        }
        lock(&self.dispatcher).end(&mut host);
    }

    /// On the main thread.
    pub fn on_event(self: &Arc<Self>, config: &mut Config<'_>, event: Event) {
        match event {
            Event::Tick => self.tick(config.meter()),
            Event::Work => {
                lock(&self.dispatcher).send_waiting(&mut self.main_host(config.meter()));
                // A check that could not even be made is answered at once.
                self.wake_ready();
            }
        }
        self.send(config);
    }

    /// On the main thread. An answer that never came has no headers.
    pub fn on_answer(self: &Arc<Self>, config: &mut Config<'_>, callout: u64, answer: &Answer<'_>) {
        if let Some(ticket) = self.outbox.answered(callout) {
            self.deliver(&ticket, answer, config.meter());
        }
        self.send(config);
    }

    /// `new` is the same with other secrets.
    pub fn follow(&self, new: &Arc<Self>) {
        self.is_followed.store(true, Ordering::Relaxed);
        LIVE.move_behind(new, self);
    }

    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Acquire) != 0
    }

    /// Envoy has a new request under this configuration.
    pub fn enter(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// On a worker, before Envoy gives up this request and its share of the configuration.
    ///
    /// With extension discovery, Envoy destroys a replaced configuration where its last request ends, and cancels the
    /// configuration's callouts there, although the main thread works with them. So the worker waits for their answers.
    pub fn leave(&self) {
        let is_last = self.requests.fetch_sub(1, Ordering::AcqRel) == 1;
        // Envoy itself holds the newest one.
        if is_last && !self.is_followed.load(Ordering::Relaxed) && !LIVE.is_newest(self) {
            self.outbox.wait(LAST_CALLOUTS);
        }
    }

    /// A hook panicked. `meter`: unless Envoy's objects are gone.
    ///
    /// If that was in the dispatcher, it may have taken requests out of its lists and told nobody. Which ones, nobody
    /// knows, so every request that waits is refused: docs/decisions/0128. What the dispatcher has in flight is given up
    /// by its own time limits.
    pub fn on_fault(&self, meter: Option<Meter<'_>>) {
        if let Some(meter) = meter {
            self.metrics.fault(meter);
        }
        if self.dispatcher.is_poisoned() {
            self.dispatcher.clear_poison();
            // Before looking: a request that parks later sees it.
            self.losses.fetch_add(1, Ordering::AcqRel);
            lock(&self.parked).values().for_each(|scheduler| scheduler.wake(LOST));
            lock(&self.watched).values().for_each(|scheduler| scheduler.wake(LOST));
        }
    }

    /// Nothing is to be done for this request any more, whatever it waited for.
    pub fn forget(&self, stream: StreamId) {
        self.unpark(stream);
        self.unwatch(stream);
        lock(&self.dispatcher).leave(stream);
    }

    pub fn worker(&self, number: u32) -> Option<MutexGuard<'_, Worker>> {
        self.workers.get(usize::try_from(number).ok()?).map(lock)
    }

    pub fn host<'h>(&'h self, meter: Option<Meter<'h>>) -> HookHost<'h, Self> {
        let (metrics, outbox, secrets) = (&*self.metrics, &self.outbox, &self.secrets);
        HookHost { meter, metrics, outbox, secrets, workers: self.workers.len(), thread: Thread::Other }
    }

    /// For a hook about this configuration on the main thread, which ends with `send`.
    fn main_host<'h>(&'h self, meter: Meter<'h>) -> HookHost<'h, Self> {
        HookHost { thread: Thread::Main, ..self.host(Some(meter)) }
    }

    pub fn gate(&self) -> Gate<'_> {
        Gate { dispatcher: &self.dispatcher, losses: &self.losses, was_used: false, losses_before: 0 }
    }

    /// This request waits since it used `gate`. Its event may have come already, and then nothing wakes it: check once
    /// more after this.
    pub fn park(&self, stream: StreamId, scheduler: StreamScheduler, gate: &Gate<'_>) {
        let mut parked = lock(&self.parked);
        if self.losses.load(Ordering::Acquire) != gate.losses_before {
            scheduler.wake(LOST);
        }
        parked.insert(stream, scheduler);
    }

    pub fn unpark(&self, stream: StreamId) {
        lock(&self.parked).remove(&stream);
    }

    /// This stream may have to be ended, since it used `gate`.
    pub fn watch(&self, stream: StreamId, scheduler: StreamScheduler, gate: &Gate<'_>) {
        let mut watched = lock(&self.watched);
        if self.losses.load(Ordering::Acquire) != gate.losses_before {
            scheduler.wake(LOST);
        }
        watched.insert(stream, scheduler);
    }

    pub fn unwatch(&self, stream: StreamId) {
        lock(&self.watched).remove(&stream);
    }

    /// Wakes the requests that no longer have to wait, and the streams that must be ended, each on its worker.
    pub fn wake_ready(&self) {
        loop {
            // The locks are taken one after the other, never nested.
            let ready = lock(&self.dispatcher).poll_wake();
            let Some(stream) = ready else { break };
            if let Some(scheduler) = lock(&self.parked).get(&stream) {
                scheduler.wake(RESUME);
            }
        }
        loop {
            let ending = lock(&self.dispatcher).poll_end();
            let Some(stream) = ending else { return };
            if let Some(scheduler) = lock(&self.watched).get(&stream) {
                scheduler.wake(END);
            }
        }
    }

    fn tick(&self, meter: Meter<'_>) {
        metrics::report_left_behind(&self.metrics, meter);
        warn_of_unknown_rules();
        let mut host = self.main_host(meter);
        for worker in &self.workers {
            // A busy worker is flushed the next time. One whose request panicked is used as it is: see `lock`.
            match worker.try_lock() {
                Ok(mut worker) => worker.flush(&mut host),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().flush(&mut host),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        lock(&self.dispatcher).tick(&mut host);
        self.wake_ready();
        self.outbox.tick();
    }

    /// Sends callouts until there are no more: a refused callout can cause the next one.
    fn send(self: &Arc<Self>, config: &mut Config<'_>) {
        // Callouts of a configuration that may have been replaced belong to the newest one: see `leave`.
        let newest = LIVE.newest().filter(|newest| !Arc::ptr_eq(newest, self));
        if newest.is_some_and(|newest| self.outbox.hand_over(&newest.outbox, &Arc::downgrade(self))) {
            return;
        }
        loop {
            let unsent = self.outbox.send(config);
            if unsent.is_empty() {
                return;
            }
            for ticket in unsent {
                self.deliver(&ticket, &Answer::NONE, config.meter());
            }
        }
    }

    fn deliver(&self, ticket: &Ticket<Self>, answer: &Answer<'_>, meter: Meter<'_>) {
        match &ticket.owner {
            None => self.answered(ticket.call, answer, Some(meter)),
            Some(owner) => {
                if let Some(owner) = owner.upgrade() {
                    owner.answered(ticket.call, answer, None);
                }
            }
        }
    }

    fn answered<'h>(&'h self, call: CallId, answer: &Answer<'_>, meter: Option<Meter<'h>>) {
        let mut host = match meter {
            Some(meter) => self.main_host(meter),
            None => self.host(None),
        };
        lock(&self.dispatcher).answered(&mut host, call, answer);
        self.wake_ready();
    }
}

impl Dispatch for Gate<'_> {
    fn with<T>(&mut self, work: impl FnOnce(&mut Dispatcher) -> T) -> T {
        let mut dispatcher = lock(self.dispatcher);
        if !std::mem::replace(&mut self.was_used, true) {
            self.losses_before = self.losses.load(Ordering::Acquire);
        }
        work(&mut dispatcher)
    }
}

/// # Errors
/// It is not the one filter of this module.
pub fn check_name(field: &str, name: &[u8]) -> Result<(), String> {
    if name == FILTER_NAME {
        return Ok(());
    }
    let name = String::from_utf8_lossy(name);
    Err(format!("{field} is `{name}`: this module has the filter `portcullis` only"))
}

/// Has any configuration this rule, for routes?
pub fn has_rule_for_routes(rule: &str) -> bool {
    LIVE.any(|live| live.core.policy.rule_for_routes(rule).is_some())
}

/// Of routes that came after the configurations: their requests are refused.
fn warn_of_unknown_rules() {
    for rule in routes::unknown(has_rule_for_routes) {
        let text = "which no configuration has with `for_routes`: its requests are refused";
        envoy::log(LogLevel::Error, &format!("portcullis: a route of Envoy selects the rule `{rule}`, {text}"));
    }
}

/// State after a panic is used as it is: the request that caused the panic was refused, and the others must be
/// answered. See [`Configuration::on_fault`].
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
