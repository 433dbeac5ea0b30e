//! The formulas of docs/operations.md, "Capacity".
use super::Proxy;

/// How often a tick sends what is to be refreshed.
const TICKS_PER_SECOND: f64 = 10.0;
/// Questions that a worker has under way at once.
const FLIGHTS: f64 = driver::checks::MAX_BATCHES_IN_FLIGHT as f64;

/// What one proxy asks, each second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Tokens that are asked about.
    pub asked: f64,
    /// Of these, those for which somebody waits.
    pub waited: f64,
    pub checks: f64,
}

/// For sessions of `rate` requests a second each; the sum over sessions where they differ.
pub fn estimate(proxy: &Proxy) -> Estimate {
    let freshness = proxy.freshness.as_secs_f64();
    let workers = proxy.workers as f64;
    let mut asked = 0.0;
    let mut waited = 0.0;
    for rate in proxy.rates() {
        let unrefreshed = if proxy.refresh_ahead { unrefreshed(rate, freshness, workers) } else { 1.0 };
        let refreshed = 0.6 * freshness + (0.2 * freshness).min(1.0 / rate);
        let cycle = (1.0 - unrefreshed) * refreshed + unrefreshed * (freshness + 1.0 / rate);
        asked += (1.0 + (1.0 - unrefreshed) * doubled(rate, workers)) / cycle;
        waited += unrefreshed / cycle;
    }
    let most = FLIGHTS * workers / proxy.callout.as_secs_f64();
    // The ticks that have something to send.
    let ticks = TICKS_PER_SECOND * workers;
    let checks = waited.min(most) + ticks * (1.0 - (-(asked - waited) / ticks).exp());
    Estimate { asked, waited, checks }
}

/// D: workers that ask for what another one is about to ask for with its next tick, half a tick away.
fn doubled(rate: f64, workers: f64) -> f64 {
    (workers - 1.0) * (1.0 - (-rate / workers / TICKS_PER_SECOND / 2.0).exp())
}

/// Q: the share of verdicts that no worker asks for anew before they are stale. A worker does so if it has met the verdict
/// and then gets a request in the last two fifths; requests go to any worker.
fn unrefreshed(rate: f64, freshness: f64, workers: f64) -> f64 {
    let (a, b) = (0.6 * freshness * rate / workers, 0.4 * freshness * rate / workers);
    (-b).exp() * ((-b).exp() * (1.0 + b * (-a).exp())).powf(workers - 1.0)
}
