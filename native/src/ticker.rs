//! Ticks. Envoy has no timer for modules, so one thread of ours wakes every configuration.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::envoy::ConfigScheduler;

/// Often enough that a request's own deadline is kept to within this.
const PERIOD: Duration = Duration::from_millis(100);
const SHORT_PERIOD: Duration = Duration::from_millis(10);

/// Why a configuration was woken on the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// [`PERIOD`] has passed.
    Tick,
    /// A worker has left work that only the main thread can do.
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
    /// An event that is already posted is not posted again. A slow main thread must not get a pile of them.
    ticks: AtomicBool,
    works: AtomicBool,
    /// It waits for something that only a tick finds out.
    hurries: AtomicBool,
}

impl Bell {
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(scheduler: ConfigScheduler, hurries: bool) -> Result<Arc<Self>, std::io::Error> {
        let [ticks, works, hurries] = [false, false, hurries].map(AtomicBool::new);
        let bell = Arc::new(Self { scheduler, ticks, works, hurries });
        Ticker::add(&bell)?;
        Ok(bell)
    }

    /// Whether it needs ticks more often.
    pub fn hurry(&self, hurries: bool) {
        self.hurries.store(hurries, Ordering::Relaxed);
    }

    pub fn ring(&self, event: Event) {
        if !self.pending(event).swap(true, Ordering::AcqRel) {
            self.scheduler.wake(event.number());
        }
    }

    /// Call this before looking for the event's work: later work posts a new event.
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
        let mut period = SHORT_PERIOD;
        loop {
            thread::sleep(period);
            let mut ticker = TICKER.lock().unwrap_or_else(PoisonError::into_inner);
            period = PERIOD;
            ticker.bells.retain(|bell| {
                let Some(bell) = bell.upgrade() else { return false };
                bell.ring(Event::Tick);
                if bell.hurries.load(Ordering::Relaxed) {
                    period = SHORT_PERIOD;
                }
                true
            });
            if ticker.bells.is_empty() {
                ticker.runs = false;
                return;
            }
        }
    }
}
