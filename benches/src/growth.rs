//! `make bench-growth`: how the cost grows with what there is more of, one series after the other.
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::Directory;

use crate::machine::{Cores, Machine};
use crate::measure::{self, Load, Plan, Sample};
use crate::proxy::Proxy;
use crate::results;

mod cases;
mod report;
mod store;

use cases::{Case, NONE, Series, Small};
use report::{Growth, Row, Table};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Fewer and shorter rounds, and at most 100,000 tokens or revocations
    #[arg(long)]
    quick: bool,
    /// Rounds, in each of which every place of a series is measured once [default: 6, quick: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds that each window is measured [default: 800, quick: 400]
    #[arg(long)]
    window: Option<u64>,
    /// Milliseconds of the same load before each window [default: 250, quick: 150]
    #[arg(long)]
    warm_up: Option<u64>,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Only these: tokens, workers, rules, issuers, keys, revocations
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    cores: Cores,
}

/// What all series share.
struct Bench<'b> {
    plan: Plan<'b>,
    rounds: usize,
    cores: Cores,
    directory: &'b Directory,
}

/// Returns how many requests failed.
pub fn run(options: &Options) -> anyhow::Result<u64> {
    let pick = |given: Option<u64>, full, quick| given.unwrap_or(if options.quick { quick } else { full });
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 6 });
    let window = Duration::from_millis(pick(options.window, 800, 400));
    let warm_up = Duration::from_millis(pick(options.warm_up, 250, 150));
    ensure!(rounds > 0 && !window.is_zero(), "nothing would be measured");
    for name in &options.only {
        ensure!(report::NAMES.contains(&name.as_str()), "no series is named {name}: {}", report::NAMES.join(", "));
    }
    let most = if options.quick { 100_000 } else { 1_000_000 };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);

    let machine = Machine::describe();
    options.cores.take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { measure::watch_signals() })?;
    let directory = Directory::new("growth");
    let (_redis, service) = store::start(&runtime, &directory);
    let bench = Bench {
        plan: Plan { runtime: &runtime, connections: options.connections, warm_up, window },
        rounds,
        cores: options.cores,
        directory: &directory,
    };
    let small = Small::mint(options.cores, if wanted("tokens") { most } else { cases::ASKED })?;
    let small = small.beside(&service);

    let mut tables = Vec::new();
    for name in report::NAMES.into_iter().filter(|name| wanted(name)) {
        let series = match name {
            "tokens" => small.tokens(most),
            "workers" => small.workers(),
            "rules" => small.rules(),
            "issuers" => cases::issuers(&small, options.cores)?,
            "keys" => cases::keys(&small, options.cores)?,
            _ => continue,
        };
        tables.push(bench.measure(series)?);
    }
    let mut store_rows = Vec::new();
    if wanted("revocations") {
        let stacks = store::Stack::start_all(&bench, most)?;
        tables.push(bench.measure(small.revocations(&stacks))?);
        store_rows = store::measure(&bench, stacks)?;
    }

    let growth = Growth::new(machine, bench.described(), tables, store_rows);
    println!("{}", growth.text());
    for (name, svg) in growth.charts() {
        println!("{}", results::write(&format!("growth.{name}.svg"), &svg)?.display());
    }
    println!("{}", results::write("growth.json", &results::json(&growth)?)?.display());
    Ok(growth.failed())
}

impl Bench<'_> {
    /// Rounds, milliseconds of a window, connections.
    fn described(&self) -> (usize, u64, usize) {
        let millis = u64::try_from(self.plan.window.as_millis()).unwrap_or(u64::MAX);
        (self.rounds, millis, self.plan.connections)
    }

    /// All of a series' Envoys at once, and each of them once in every round.
    fn measure(&self, series: Series) -> anyhow::Result<Table> {
        let mut stands = Vec::new();
        for case in series.cases {
            let proxy = Proxy::start(self.plan.runtime, self.directory, &case.setup, self.cores)?;
            proxy.pause();
            stands.push(Stand { proxy, case, next: 0, samples: Vec::new(), resident_bytes: 0 });
        }
        for round in 0..self.rounds {
            eprintln!("{}: round {} of {}", series.name, round + 1, self.rounds);
            for place in 0..stands.len() {
                let at = (place + round * 5) % stands.len();
                stands[at].measure(&self.plan)?;
            }
        }
        let micros = |stand: &Stand| stand.samples.iter().map(|sample| sample.cpu_micros).collect::<Vec<_>>();
        let none: Vec<&Stand> = stands.iter().filter(|stand| stand.case.curve == NONE).collect();
        let rows = stands.iter().map(|stand| {
            let same = none.iter().find(|none| none.case.x == stand.case.x).or(none.first());
            let over = same.map(|none| micros(none)).unwrap_or_default();
            Row::new(stand.case.curve, stand.case.x, &stand.samples, &over, stand.resident_bytes)
        });
        Ok(Table { name: series.name, title: series.title, grows: series.grows, rows: rows.collect() })
    }
}

/// One Envoy, and what was measured on it.
struct Stand {
    proxy: Proxy,
    case: Case,
    /// The request with which its next window begins.
    next: usize,
    samples: Vec<Sample>,
    resident_bytes: u64,
}

impl Stand {
    fn measure(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        self.proxy.resume();
        let case = &self.case;
        let load = Load {
            requests: case.requests.get(..case.count).unwrap_or(&case.requests),
            // What a cache has room for stays there, since nobody else sends to this Envoy.
            warms_with: if self.samples.is_empty() { case.sent_first } else { 0 },
            rate: None,
            counts_late: case.setup.module.is_some(),
        };
        let sample = measure::window(&self.proxy, plan, &load, &mut self.next)
            .with_context(|| format!("{}; its log ends:\n{}", case.setup.name, self.proxy.log_tail()))?;
        self.samples.push(sample);
        self.resident_bytes = self.proxy.resident_bytes();
        self.proxy.pause();
        Ok(())
    }
}
