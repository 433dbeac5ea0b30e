//! The formulas of docs/operations.md, "Capacity".
use super::Proxy;

/// How often a tick sends refreshes.
const TICKS_PER_SECOND: f64 = 10.0;
/// Checks that a worker has in flight at once.
const FLIGHTS: f64 = driver::MAX_BATCHES_IN_FLIGHT as f64;

/// The queries of one proxy, per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Tokens that are queried.
    pub asked: f64,
    /// Of these, those for which a request waits.
    pub waited: f64,
    pub checks: f64,
}

/// The part of its freshness that a verdict has lost when it arrives: it counts from its oldest answer, and answers about
/// an issuer, a signing key or a client are reused for a tenth of the freshness.
const LOST: f64 = 0.05;

/// For sessions of `rate` requests per second each; the sum over sessions if they differ.
pub fn estimate(proxy: &Proxy) -> Estimate {
    let freshness = proxy.freshness.as_secs_f64();
    let (mut asked, mut waited) = (0.0, 0.0);
    for rate in proxy.rates() {
        // The share of verdicts without a request in the last two fifths of their freshness.
        let unrefreshed = if proxy.refresh_ahead { (-0.4 * freshness * rate).exp() } else { 1.0 };
        let serves = if proxy.refresh_ahead { 0.6 } else { 1.0 };
        // The first request after this time causes the next query.
        let cycle = (serves - LOST) * freshness + 1.0 / rate;
        asked += 1.0 / cycle;
        waited += unrefreshed / cycle;
    }
    let workers = proxy.workers as f64;
    let most = FLIGHTS * workers / proxy.callout.as_secs_f64();
    let ticks = TICKS_PER_SECOND * workers;
    // A check for a waiting request takes the queued refreshes along. These ticks have some left.
    let checks = waited.min(most) + ticks * (1.0 - waited / asked) * (1.0 - (-asked / ticks).exp());
    Estimate { asked, waited, checks }
}
