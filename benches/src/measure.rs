//! One window of one load on one Envoy.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::load::{Generator, Run};
use crate::proxy::Proxy;

/// Long enough to notice connections that ended while their owner was stopped, and for a thread to go to sleep.
pub const SETTLE: Duration = Duration::from_millis(20);

/// Portcullis reports its counters to Envoy every 100 ms.
const COUNTED: Duration = Duration::from_millis(150);

/// Checked between two windows: the run ends by returning from `main`, which stops everything, including paused
/// proxies.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub struct Plan<'p> {
    pub runtime: &'p Runtime,
    pub connections: usize,
    pub warm_up: Duration,
    pub window: Duration,
}

/// What to send, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load<'r> {
    pub requests: &'r [Vec<u8>],
    /// The warm-up sends at least this many, however long it takes.
    pub warms_with: usize,
    /// Requests per second; `None` sends the next as soon as the last is answered.
    pub rate: Option<u32>,
    /// The filter reports its counters with a delay.
    pub counts_late: bool,
}

/// The results of a window.
#[derive(Debug, Clone)]
pub struct Sample {
    pub answered: u64,
    pub failed: u64,
    pub cpu_micros: f64,
    pub per_second: f64,
    pub p50_micros: f64,
    pub p99_micros: f64,
    pub callouts: u64,
    pub cache_hits: u64,
    pub asked: u64,
}

/// `next` is the first request of this window, and is set to the first one of the next window.
///
/// # Errors
/// Envoy does not answer as it should, or a signal ends the run.
pub fn window(proxy: &Proxy, plan: &Plan<'_>, load: &Load<'_>, next: &mut usize) -> anyhow::Result<Sample> {
    if is_interrupted() {
        bail!("interrupted");
    }
    let stats = || {
        if load.counts_late {
            std::thread::sleep(COUNTED);
        }
        proxy.stats(plan.runtime)
    };
    std::thread::sleep(SETTLE);
    let mut generator = Generator::connect(proxy.address, plan.connections, load.requests, *next)?;
    let mut send = |length, at_least| -> anyhow::Result<Run> {
        match load.rate {
            None => generator.run(length, at_least),
            Some(rate) => generator.run_at(rate, length),
        }
    };
    let warming = send(plan.warm_up, load.warms_with)?;
    let before = stats()?;
    std::thread::sleep(SETTLE);
    let cpu = proxy.cpu()?;
    let run = send(plan.window, 0)?;
    std::thread::sleep(SETTLE);
    let spent = proxy.cpu()?.checked_sub(cpu).context("a thread of Envoy ended")?;
    let after = stats()?;
    *next = generator.next();

    let failed = warming.failed + run.failed;
    if let Some(answer) = warming.first_failure.as_ref().or(run.first_failure.as_ref()) {
        eprintln!("{failed} requests failed: {answer}");
    }
    let counted = |name: &str| after.sum(name).saturating_sub(before.sum(name));
    Ok(Sample {
        answered: run.answered,
        failed,
        cpu_micros: spent.as_secs_f64() * 1e6 / run.answered as f64,
        per_second: run.answered as f64 / run.took.as_secs_f64(),
        p50_micros: run.percentile(0.5),
        p99_micros: run.percentile(0.99),
        callouts: counted("authorizer.upstream_rq_total") + counted("session_service.upstream_rq_total"),
        cache_hits: counted(".jwt_cache_hit") + counted("portcullis.token_cache.result.hit"),
        asked: counted("portcullis.shared_verdicts.result.miss"),
    })
}

/// From now on a signal ends the run after the current window.
///
/// # Errors
/// The runtime cannot handle signals.
pub fn watch_signals() -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
