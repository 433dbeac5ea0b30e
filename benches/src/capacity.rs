//! `benches capacity`: the plan of docs/operations.md, for the worked example or for your own fleet. Each row is
//! simulated, and printed beside the result of the formulas. The costs of a check are measured.
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;

mod formula;
mod measured;
mod regions;
mod simulation;

use simulation::Seen;

/// The same for all users.
const SEED: u64 = 1;
const SECONDS_OF_REGIONS: f64 = 60.0;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Simulate this fleet instead of the worked example of docs/operations.md
    #[arg(long, requires = "sessions")]
    requests: Option<f64>,
    /// Active sessions, on all proxies together
    #[arg(long, requires = "requests")]
    sessions: Option<usize>,
    #[arg(long, default_value_t = 200)]
    proxies: usize,
    /// Workers of each proxy
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Milliseconds: `revocation.freshness`
    #[arg(long, default_value_t = 2000)]
    freshness: u64,
    /// Milliseconds from a worker to the service and back
    #[arg(long, default_value_t = 2)]
    callout: u64,
    /// Some sessions are far busier than others (Zipf)
    #[arg(long)]
    zipf: bool,
    /// Print the plan of docs/regions.md instead: joined regions
    #[arg(long)]
    regions: bool,
}

/// One of several identical proxies.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub workers: usize,
    /// Sessions in use.
    pub sessions: usize,
    pub requests_per_second: f64,
    pub activity: Activity,
    pub freshness: Duration,
    pub refresh_ahead: bool,
    /// From a worker to the service and back.
    pub callout: Duration,
    pub cached_tokens: usize,
    pub shared_verdicts: usize,
    /// The lag of the feed, if it is followed.
    pub feed: Option<Duration>,
    /// It proves nothing from the beginning of the measurement on.
    pub feed_ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    Even,
    /// The k-th session has 1/k of the first one's requests.
    Zipf,
}

/// A proxy of the fleet, and the number of such proxies.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    proxy: Proxy,
    proxies: usize,
}

impl Proxy {
    /// Requests per second of each session.
    pub fn rates(&self) -> impl Iterator<Item = f64> + use<> {
        let weight = match self.activity {
            Activity::Even => |_| 1.0,
            Activity::Zipf => |place: usize| 1.0 / (place + 1) as f64,
        };
        let sum: f64 = (0..self.sessions).map(weight).sum();
        let each = self.requests_per_second / sum;
        (0..self.sessions).map(move |place| weight(place) * each)
    }
}

/// The worked example of docs/operations.md: 1 M requests/s, 200 proxies with 8 workers.
fn example() -> Vec<Case> {
    let case = |name: &str, sessions, freshness, refresh_ahead| Case {
        name: name.to_owned(),
        proxies: 200,
        proxy: Proxy {
            workers: 8,
            sessions,
            requests_per_second: 5_000.0,
            activity: Activity::Even,
            freshness: Duration::from_secs(freshness),
            refresh_ahead,
            callout: Duration::from_millis(2),
            cached_tokens: 65_536,
            shared_verdicts: 65_536,
            feed: None,
            feed_ends: false,
        },
    };
    vec![
        case("2 M sessions, `freshness: 1s`", 10_000, 1, true),
        case("2 M sessions, `freshness: 2s`", 10_000, 2, true),
        case("2 M sessions, `freshness: 5s`", 10_000, 5, true),
        case("200,000 sessions, `freshness: 2s`", 1_000, 2, true),
        case("the same, `refresh_ahead: false`", 1_000, 2, false),
    ]
}

/// The feed in some fleets of the example: what is asked with it, without it, and when it ends everywhere at once.
fn example_of_feed() -> Vec<Case> {
    let mut all = Vec::new();
    for case in example().into_iter().filter(|case| case.name.ends_with("`freshness: 2s`")) {
        for (name, feed, feed_ends, callout) in [
            ("without the feed", false, false, 2),
            ("with the feed", true, false, 2),
            ("the feed ends", true, true, 2),
            ("the feed ends, 20 ms to the service and back", true, true, 20),
        ] {
            let (feed, callout) = (feed.then_some(Duration::from_secs(1)), Duration::from_millis(callout));
            let name = format!("{}, {name}", case.name);
            all.push(Case { name, proxy: Proxy { feed, feed_ends, callout, ..case.proxy.clone() }, ..case });
        }
    }
    all
}

/// As in docs/operations.md.
fn table_of_feed(rows: &[(Case, Seen)]) -> anyhow::Result<String> {
    let mut text = String::from(
        "| fleet | polls /s, a proxy | checks /s, a proxy | the most in 0.1 s, as /s | requests that wait |\n|---|---|---|---|---|\n",
    );
    for (case, seen) in rows {
        let waited = round(seen.waited * 100.0);
        let (polls, checks, most) = (round(seen.polls), round(seen.checks), round(seen.most_checks));
        writeln!(text, "| {} | {polls} | {checks} | {most} | {waited} % |", case.name)?;
    }
    Ok(text)
}

/// Returns the number of failed requests: 0, or there is an error.
pub fn run(options: &Options) -> anyhow::Result<u64> {
    if options.regions {
        print!("{}", regions::table(SECONDS_OF_REGIONS)?);
        return Ok(0);
    }
    let cases = match (options.requests, options.sessions) {
        (Some(requests), Some(sessions)) => {
            let (proxies, workers) = (options.proxies, options.workers);
            ensure!(
                proxies > 0 && workers > 0 && options.callout > 0,
                "--proxies, --workers and --callout: at least 1"
            );
            ensure!(requests > 0.0 && sessions >= proxies, "--requests: more than 0; --sessions: one for each proxy");
            vec![Case {
                name: format!("{sessions} sessions, `freshness: {}ms`", options.freshness),
                proxies,
                proxy: Proxy {
                    workers,
                    sessions: sessions / proxies,
                    requests_per_second: requests / proxies as f64,
                    activity: if options.zipf { Activity::Zipf } else { Activity::Even },
                    freshness: Duration::from_millis(options.freshness),
                    refresh_ahead: true,
                    callout: Duration::from_millis(options.callout),
                    cached_tokens: 65_536,
                    shared_verdicts: 65_536,
                    feed: None,
                    feed_ends: false,
                },
            }]
        }
        _ => example(),
    };
    print!("{}", table(&simulated(cases)?)?);
    if options.requests.is_none() {
        print!("\n{}\n", table_of_feed(&simulated(example_of_feed())?)?);
    }
    for measured in measured::ALL {
        println!("{} {}: {}; {}", measured.value, measured.unit, measured.what, measured.by);
    }
    Ok(0)
}

/// As in docs/operations.md.
fn table(rows: &[(Case, Seen)]) -> anyhow::Result<String> {
    let mut text = String::from(
        "| fleet | tokens asked /s, a proxy | checks /s, a proxy | formula | keys in a check | requests that wait | checks /s, \
         all | service, cores | Redis, cores |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (case, seen) in rows {
        let estimate = formula::estimate(&case.proxy);
        let all = seen.checks * case.proxies as f64;
        let cores = |measured| measured::micros_per_check(measured, seen.keys_per_check) * all / 1e6;
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} % | {} | {} | {} |",
            case.name,
            round(seen.asked),
            round(seen.checks),
            round(estimate.checks),
            round(seen.keys_per_check),
            round(seen.waited * 100.0),
            round(all),
            round(cores(measured::SERVICE_PER_CHECK)),
            round(cores(measured::REDIS_PER_CHECK)),
        )?;
    }
    Ok(text)
}

fn simulated(cases: Vec<Case>) -> anyhow::Result<Vec<(Case, Seen)>> {
    let simulated = |case: Case| {
        let seen = simulation::simulate(&case.proxy, case.proxy.freshness * 3, Duration::from_secs(4), SEED)?;
        Ok((case, seen))
    };
    cases.into_iter().map(simulated).collect()
}

/// To two digits: a simulation is not more exact than that.
fn round(value: f64) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    let digits = value.log10().floor() as i32 - 1;
    let unit = 10_f64.powi(digits);
    let rounded = (value / unit).round() * unit;
    let plain = if digits < 0 { format!("{rounded:.1}") } else { format!("{rounded:.0}") };
    // Separates thousands, if there are any.
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), String::new()), |(a, b)| (a, format!(".{b}")));
    let mut set_off = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            set_off.push(',');
        }
        set_off.push(digit);
    }
    set_off + &rest
}

#[cfg(test)]
mod tests {
    use super::formula::Estimate;
    use super::*;

    /// How far the simulation may be from the formulas, as docs/operations.md states.
    const TOLERANCE: f64 = 0.1;
    /// The same for the example, where more tokens share slots.
    const TOLERANCE_OF_EXAMPLE: f64 = 0.25;

    fn proxy() -> Proxy {
        Proxy {
            workers: 4,
            sessions: 500,
            requests_per_second: 500.0,
            activity: Activity::Even,
            freshness: Duration::from_secs(2),
            refresh_ahead: true,
            callout: Duration::from_millis(2),
            cached_tokens: 4096,
            shared_verdicts: 16_384,
            feed: None,
            feed_ends: false,
        }
    }

    fn both(proxy: &Proxy) -> (Seen, Estimate) {
        let seen = simulation::simulate(proxy, proxy.freshness * 4, Duration::from_secs(10), 3);
        (seen.unwrap(), formula::estimate(proxy))
    }

    #[test]
    fn the_formulas_are_near_what_the_driver_does() {
        let seconds = |seconds| Duration::from_secs(seconds);
        let mut wrong = 0;
        for proxy in [
            proxy(),
            Proxy { freshness: seconds(1), ..proxy() },
            Proxy { freshness: seconds(5), ..proxy() },
            Proxy { refresh_ahead: false, ..proxy() },
            Proxy { workers: 1, ..proxy() },
            Proxy { workers: 16, ..proxy() },
            Proxy { sessions: 50, ..proxy() },
            Proxy { sessions: 50, workers: 16, ..proxy() },
            Proxy { sessions: 50, workers: 8, requests_per_second: 200.0, ..proxy() },
            Proxy { sessions: 2000, ..proxy() },
            Proxy { activity: Activity::Zipf, ..proxy() },
            Proxy { callout: Duration::from_millis(20), ..proxy() },
        ] {
            let (seen, estimate) = both(&proxy);
            println!("{proxy:?}\n  {seen:?}\n  {estimate:?}");
            for (what, is, said) in [
                ("requests", seen.requests, proxy.requests_per_second),
                ("asked", seen.asked, estimate.asked),
                ("checks", seen.checks, estimate.checks),
            ] {
                println!("  {what} {:+.0} %", (is / said - 1.0) * 100.0);
                wrong += usize::from((is / said - 1.0).abs() > TOLERANCE);
            }
        }
        assert_eq!(wrong, 0, "what is printed above is further from the formulas than the docs say");
    }

    #[test]
    fn checks_do_not_grow_with_requests() {
        let checks = |requests_per_second| both(&Proxy { requests_per_second, ..proxy() }).0.checks;
        assert!(checks(4000.0) < checks(500.0) * 1.5);
    }

    #[test]
    fn a_ring_or_cache_that_is_too_small_costs_checks_and_signatures() {
        let (roomy, _) = both(&proxy());
        let (small, _) = both(&Proxy { shared_verdicts: 64, cached_tokens: 64, ..proxy() });
        assert!(small.checks > roomy.checks * 1.2, "{small:?} {roomy:?}");
        assert!(small.cached < 0.5 && roomy.cached > 0.85, "{small:?} {roomy:?}");
    }

    /// Each proxy has at most two checks in flight for each worker, shares verdicts among its workers, and asks about a token
    /// once in its freshness: a feed that ends everywhere costs for a moment a few times the checks of a fleet without it.
    #[test]
    fn when_the_feed_ends_checks_are_bounded_and_soon_as_without_it() {
        for proxy in [proxy(), Proxy { sessions: 2000, ..proxy() }, Proxy { activity: Activity::Zipf, ..proxy() }] {
            let feed = Some(Duration::from_secs(1));
            let seen =
                |proxy: &Proxy| simulation::simulate(proxy, proxy.freshness * 4, Duration::from_secs(10), 3).unwrap();
            let without = seen(&proxy);
            let with = seen(&Proxy { feed, ..proxy.clone() });
            let ended = seen(&Proxy { feed, feed_ends: true, ..proxy.clone() });
            println!("{proxy:?}\n  {without:?}\n  {with:?}\n  {ended:?}");
            assert!(with.checks == 0.0 && with.polls > 2.0 && with.waited == 0.0, "{with:?}");
            assert!(ended.most_checks <= without.most_checks * 3.0, "{ended:?} {without:?}");
            assert!(ended.checks <= without.checks * 1.1, "{ended:?} {without:?}");
        }
    }

    #[test]
    fn numbers_have_two_digits() {
        for (value, text) in
            [(0.0, "0"), (0.123, "0.1"), (3.456, "3.5"), (42.4, "42"), (1_234.0, "1,200"), (1_987_654.0, "2,000,000")]
        {
            assert_eq!(round(value), text);
        }
    }

    #[test]
    fn the_worked_example_is_what_the_docs_say() {
        let docs = std::fs::read_to_string(::harness::project().join("docs/operations.md")).unwrap();
        let rows = simulated(example()).unwrap();
        for (case, seen) in &rows {
            let said = formula::estimate(&case.proxy).checks;
            assert!((seen.checks / said - 1.0).abs() <= TOLERANCE_OF_EXAMPLE, "{}: {seen:?} {said}", case.name);
        }
        let feed = table_of_feed(&simulated(example_of_feed()).unwrap()).unwrap();
        assert!(docs.contains(&feed), "docs/operations.md, Capacity: put this there:\n{feed}");
        let table = table(&rows).unwrap();
        assert!(docs.contains(&table), "docs/operations.md, Capacity: put this there:\n{table}");
        for measured in measured::ALL {
            let said = format!("{} {}", measured.value, measured.unit);
            assert!(docs.contains(&said), "docs/operations.md, Capacity: does not say {said}");
        }
    }
}
