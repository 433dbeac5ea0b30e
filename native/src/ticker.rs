//! Ticks. Envoy gives a module no timer, so one thread of ours wakes every configuration.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::envoy::ConfigScheduler;

/// Often enough that a request's own deadline is kept to within this.
const PERIOD: Duration = Duration::from_millis(100);

/// What a configuration was woken for on the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// [`PERIOD`] has passed.
    Tick,
    /// A worker has left something to do that only the main thread can do.
    Work,
}

impl Event {
    pub fn of(number: u64) -> Option<Self> {
        match number {
            1 => Some(Event::Tick),
            2 => Some(Event::Work),
            _ => None,
        }
    }

    fn number(self) -> u64 {
        match self {
            Event::Tick => 1,
            Event::Work => 2,
        }
    }
}

/// Wakes one configuration on the main thread, from any thread.
pub struct Bell {
    scheduler: ConfigScheduler,
    /// An event that is on its way is not posted again: a main thread that is slow must not find a heap of them.
    ticks: AtomicBool,
    works: AtomicBool,
}

impl Bell {
    /// # Errors
    /// The system gives no thread.
    pub fn start(scheduler: ConfigScheduler) -> Result<Arc<Self>, std::io::Error> {
        let bell = Arc::new(Self { scheduler, ticks: AtomicBool::new(false), works: AtomicBool::new(false) });
        Ticker::add(&bell)?;
        Ok(bell)
    }

    pub fn ring(&self, event: Event) {
        if !self.pending(event).swap(true, Ordering::AcqRel) {
            self.scheduler.wake(event.number());
        }
    }

    /// To be called before the event's work is looked for: what comes after this rings again.
    pub fn heard(&self, event: Event) {
        self.pending(event).store(false, Ordering::Release);
    }

    fn pending(&self, event: Event) -> &AtomicBool {
        match event {
            Event::Tick => &self.ticks,
            Event::Work => &self.works,
        }
    }
}

static TICKER: Mutex<Ticker> = Mutex::new(Ticker { bells: Vec::new(), runs: false });

struct Ticker {
    bells: Vec<Weak<Bell>>,
    runs: bool,
}

impl Ticker {
    fn add(bell: &Arc<Bell>) -> Result<(), std::io::Error> {
        let mut ticker = TICKER.lock().unwrap_or_else(PoisonError::into_inner);
        if !ticker.runs {
            thread::Builder::new().name("portcullis".to_owned()).spawn(Self::run)?;
            ticker.runs = true;
        }
        ticker.bells.push(Arc::downgrade(bell));
        Ok(())
    }

    /// Until no configuration is left.
    fn run() {
        loop {
            thread::sleep(PERIOD);
            let mut ticker = TICKER.lock().unwrap_or_else(PoisonError::into_inner);
            ticker.bells.retain(|bell| bell.upgrade().inspect(|bell| bell.ring(Event::Tick)).is_some());
            if ticker.bells.is_empty() {
                ticker.runs = false;
                return;
            }
        }
    }
}
