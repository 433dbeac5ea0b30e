//! Joined regions under a simulated clock: requests, bytes, commands of the store, and the lag, for `benches capacity --regions`.
//!
//! It is a model of `domain::regions` of the service, not its code: each instance asks each other region, the request is held
//! until something is new, the first instance that has an entry writes it, and the others find it there.
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use super::round;

/// As in the service: a request is held for so long, and steps are so far apart. Seconds.
const HELD: f64 = 1.0;
const LEAST_STEP: f64 = 0.01;
/// The most entries of a reply.
const MOST: usize = 1024;
/// A request and its reply without entries: the cursor of 256 buckets in both, heads, MACs, HTTP.
const BYTES_OF_EXCHANGE: f64 = 3_000.0;
const BYTES_OF_ENTRY: f64 = 400.0;
const BYTES_OF_ROW: f64 = 32.0;
/// Rows of a page.
const ROWS: f64 = 4096.0;
/// A merge, until it is on disk and on a replica. Seconds.
const WRITE: f64 = 0.005;
/// From a write to the round of the feed that reads it, at another instance than the one that wrote. Seconds.
const ROUND: f64 = 0.1;

#[derive(Debug, Clone)]
pub struct Fleet {
    pub regions: usize,
    pub users: f64,
    pub proxies: f64,
    /// Of the users, those with a revocation in a day.
    pub revoked_daily: f64,
    /// Days that revocations are kept.
    pub kept: f64,
    /// Followers of one instance.
    pub followers: f64,
    /// Between regions, there and back. Seconds.
    pub round_trip: f64,
    /// From one comparison to the next one. Seconds.
    pub compare: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub instances: f64,
    /// In all regions together.
    pub revocations: f64,
    pub in_force: f64,
    /// Of each instance, to all other regions.
    pub requests: f64,
    /// Into each region, for changes.
    pub bytes: f64,
    /// Into each region, for comparisons.
    pub bytes_of_comparisons: f64,
    /// Of each region's store, for its own merges and for what the others ask.
    pub reads: f64,
    pub writes: f64,
    /// From the acknowledgement until it is in another region's store. Seconds.
    pub lag: [f64; 3],
}

pub fn example() -> Vec<(String, Fleet)> {
    let fleet = Fleet {
        regions: 5,
        users: 1e9,
        proxies: 1e5,
        revoked_daily: 0.001,
        kept: 1.0,
        followers: 2_000.0,
        round_trip: 0.1,
        compare: 600.0,
    };
    vec![
        ("5 regions, 10⁵ proxies, 10⁹ users, 0.1 % of them revoked in a day".to_owned(), fleet.clone()),
        ("the same, 1 %".to_owned(), Fleet { revoked_daily: 0.01, ..fleet.clone() }),
        (
            "the same, 1 %, `--join-compare 6h`".to_owned(),
            Fleet { revoked_daily: 0.01, compare: 21_600.0, ..fleet.clone() },
        ),
        ("the same, 1 %, 250 ms there and back".to_owned(), Fleet { revoked_daily: 0.01, round_trip: 0.25, ..fleet }),
    ]
}

/// For so many seconds.
pub fn simulate(fleet: &Fleet, seconds: f64, seed: u64) -> Seen {
    let instances = (fleet.proxies / fleet.regions as f64 / fleet.followers).ceil() + 1.0;
    let revocations = fleet.users * fleet.revoked_daily / 86_400.0;
    let mut random = Random(seed | 1);
    let others = (fleet.regions - 1) as f64;
    // One region follows one other: all pairs are alike.
    let rate = revocations / fleet.regions as f64;
    let made = arrivals(rate, seconds, &mut random);
    let count = instances as usize;
    let mut merged = vec![f64::INFINITY; made.len()];
    // The next request of each instance, and the first entry that it lacks.
    let mut queue: BinaryHeap<Reverse<(Moment, usize, usize)>> = BinaryHeap::new();
    for instance in 0..count {
        queue.push(Reverse((Moment(random.next() * HELD), instance, 0)));
    }
    let (mut requests, mut entries) = (0.0, 0.0);
    while let Some(Reverse((Moment(sent), instance, from))) = queue.pop() {
        if sent > seconds {
            continue;
        }
        requests += 1.0;
        let received = sent + fleet.round_trip / 2.0;
        // Any instance there may answer: it knows an entry after its own write, or after a round.
        let known = |at: usize| made.get(at).map(|made| made + ROUND * ((at * 31 + instance) % 100) as f64 / 100.0);
        let answered = known(from).map_or(received + HELD, |known| known.clamp(received, received + HELD));
        let mut to = from;
        while to < made.len() && to - from < MOST && known(to).is_some_and(|known| known <= answered) {
            to += 1;
        }
        let back = answered + fleet.round_trip / 2.0;
        let mut wrote = false;
        for merged in merged.get_mut(from..to).unwrap_or_default() {
            // An entry that is being written by another instance is written a second time, and adds nothing.
            if *merged > back + WRITE {
                *merged = back + WRITE;
                wrote = true;
            }
        }
        entries += (to - from) as f64;
        let done = if wrote { back + WRITE } else { back };
        queue.push(Reverse((Moment(done.max(sent + LEAST_STEP)), instance, to)));
    }
    let mut lags: Vec<f64> =
        merged.iter().zip(&made).filter(|(merged, _)| merged.is_finite()).map(|(merged, made)| merged - made).collect();
    lags.sort_by(f64::total_cmp);
    let lag = |part: f64| {
        lags.get(((lags.len() as f64 * part) as usize).min(lags.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let in_force = fleet.users * fleet.revoked_daily * fleet.kept;
    // Every instance compares with every other region. Own reads, and as many there.
    let rows = in_force * instances * others / fleet.compare / 0.75;
    let changes = entries / seconds * others;
    Seen {
        instances,
        revocations,
        in_force,
        requests: requests / seconds / instances * others,
        bytes: (requests / seconds * BYTES_OF_EXCHANGE + entries / seconds * BYTES_OF_ENTRY) * others,
        bytes_of_comparisons: rows * (BYTES_OF_ROW + BYTES_OF_EXCHANGE / ROWS),
        // GET and PTTL, here to compare and there to send.
        reads: (changes + rows) * 2.0 * 2.0,
        writes: rate * others,
        lag: [lag(0.5), lag(0.99), lag(1.0)],
    }
}

/// As in docs/regions.md.
pub fn table(seconds: f64) -> anyhow::Result<String> {
    let mut text = String::from(
        "| fleet | revocations /s, all | in force | instances, a region | requests /s, an instance | changes, KB/s into a region | \
         comparisons, MB/s into a region | store's reads /s | store's merges /s | lag p50, p99, longest |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, fleet) in example() {
        let seen = simulate(&fleet, seconds, 1);
        let [half, most, longest] = seen.lag.map(|lag| round(lag * 1e3));
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {half}, {most}, {longest} ms |",
            round(seen.revocations),
            round(seen.in_force),
            round(seen.instances),
            round(seen.requests),
            round(seen.bytes / 1e3),
            round(seen.bytes_of_comparisons / 1e6),
            round(seen.reads),
            round(seen.writes),
        )?;
    }
    Ok(text)
}

/// At random, so many in a second.
fn arrivals(rate: f64, seconds: f64, random: &mut Random) -> Vec<f64> {
    let (mut all, mut at) = (Vec::new(), 0.0);
    loop {
        at -= (1.0 - random.next()).ln() / rate;
        if at > seconds {
            return all;
        }
        all.push(at);
    }
}

#[derive(Debug, PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Xorshift: the same numbers for all users.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        example().swap_remove(0).1
    }

    #[test]
    fn the_model_keeps_the_bounds_of_the_formulas() {
        for (name, fleet) in example() {
            let seen = simulate(&fleet, 30.0, 3);
            let others = (fleet.regions - 1) as f64;
            assert!(
                seen.requests <= others / LEAST_STEP && seen.requests >= others / (HELD + fleet.round_trip) * 0.9,
                "{name}: {seen:?}"
            );
            let [half, _, longest] = seen.lag;
            // Two ways and a half at most: an entry may just miss a request, and wait for the next one.
            assert!(
                half >= fleet.round_trip / 2.0 && longest <= fleet.round_trip * 1.5 + ROUND + 2.0 * WRITE + LEAST_STEP,
                "{name}: {seen:?}"
            );
        }
    }

    #[test]
    fn more_revocations_cost_no_more_requests_than_steps() {
        let seen = |revoked_daily| simulate(&Fleet { revoked_daily, round_trip: 0.0, ..fleet() }, 20.0, 3);
        assert!(seen(0.01).requests <= 4.0 / LEAST_STEP);
        assert!(seen(0.01).bytes > seen(0.001).bytes);
    }

    #[test]
    fn the_documented_table_is_what_the_model_says() {
        let docs = std::fs::read_to_string(::harness::project().join("docs/regions.md")).unwrap();
        let table = table(crate::capacity::SECONDS_OF_REGIONS).unwrap();
        assert!(docs.contains(&table), "docs/regions.md, Capacity: put this there:\n{table}");
    }
}
