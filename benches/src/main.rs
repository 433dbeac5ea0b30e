//! What a request costs in Envoy with Portcullis, beside no filter and Envoy's own: README.md says how to read it.
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use tests::{Directory, Redis, Service, ServiceOptions};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

mod authorizer;
mod chart;
mod load;
mod machine;
mod proxy;
mod report;
mod scenario;
mod statistics;
mod tokens;

use load::Generator;
use machine::Machine;
use proxy::{Cores, Proxy};
use report::{Measured, Report, Sample};
use scenario::{Parts, Setup};
use tokens::{Keys, Requests, Tokens};

/// Measures what each request costs, and writes benches/results/latest.json and latest.svg.
#[derive(Parser)]
struct Options {
    /// Fewer and shorter rounds: under 3 minutes, and less exact
    #[arg(long)]
    quick: bool,
    /// Rounds, in each of which everything is measured once [default: 12, quick: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds that each window is measured [default: 2000, quick: 600]
    #[arg(long)]
    window: Option<u64>,
    /// Milliseconds of the same load before each window [default: 500, quick: 250]
    #[arg(long)]
    warm_up: Option<u64>,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Tokens that are sent again and again
    #[arg(long, default_value_t = 100)]
    repeated: usize,
    /// Tokens that are sent in turn, more than any cache here keeps
    #[arg(long, default_value_t = 20_000)]
    unique: usize,
    /// Only the setups whose names contain one of these, and the one without a filter
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The core of the proxy's worker
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core of everything else: load, service, Redis
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Keep a copy of the results under the date
    #[arg(long)]
    save: bool,
}

/// Long enough for connections that ended while their owner was stopped to be noticed, and for a thread to go to sleep.
const SETTLE: Duration = Duration::from_millis(20);

/// Portcullis tells Envoy what it counted once in 100 ms.
const COUNTED: Duration = Duration::from_millis(150);

/// Between two windows: everything is stopped by leaving `main` in the ordinary way, paused proxies too.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("bench: {failed} requests were not answered 200: the results do not count");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many requests failed.
fn run(options: &Options) -> anyhow::Result<u64> {
    let pick = |given: Option<u64>, full, quick| given.unwrap_or(if options.quick { quick } else { full });
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 12 });
    let window = Duration::from_millis(pick(options.window, 2000, 600));
    let warm_up = Duration::from_millis(pick(options.warm_up, 500, 250));
    ensure!(rounds > 0 && !window.is_zero(), "nothing would be measured");
    ensure!(options.proxy_core != options.load_core, "the proxy and the load need a core each");
    let cores = Cores { proxy: options.proxy_core, load: options.load_core };

    let machine = Machine::describe();
    let wanted =
        |name: &str| options.only.is_empty() || name == "none" || options.only.iter().any(|o| name.contains(o));
    let keys = Keys::generate();

    machine::pin(cores.load)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { watch_signals() })?;
    let directory = Directory::new("bench");
    let redis = runtime.block_on(Redis::start(&directory));
    let service = runtime.block_on(Service::start(&directory, ServiceOptions::new(redis.url())));
    let parts = Parts {
        keys: &keys,
        authorizer: runtime.block_on(authorizer::start())?,
        service: service.address(),
        secret: service.options().secret.clone(),
    };
    let setups: Vec<Setup> = scenario::all(&parts).into_iter().filter(|setup| wanted(setup.name)).collect();

    let mut kinds: Vec<Tokens> = Vec::new();
    for kind in setups.iter().flat_map(|setup| &setup.loads) {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    eprintln!("minting {} repeated and {} unique tokens of each kind", options.repeated, options.unique);
    let requests = Requests::mint(&keys, options.repeated, options.unique, &kinds, cores)?;

    let mut stands = Vec::new();
    for setup in &setups {
        let proxy = Proxy::start(&runtime, &directory, setup, cores)?;
        proxy.pause();
        let module_bytes = setup.module.as_ref().map(std::fs::metadata).transpose()?.map(|module| module.len());
        let measured: Vec<_> = setup
            .loads
            .iter()
            .map(|load| Measured {
                setup: setup.name,
                title: setup.title,
                load: *load,
                samples: Vec::new(),
                resident_bytes: 0,
                ready_millis: proxy.ready.as_secs_f64() * 1e3,
                module_bytes,
            })
            .collect();
        stands.push(Stand { proxy, next: vec![0; measured.len()], measured });
    }
    let plan = Plan { runtime: &runtime, requests: &requests, connections: options.connections, warm_up, window };
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        // Each round begins elsewhere, so that nobody is always measured after the same neighbour.
        for place in 0..stands.len() {
            let at = (place + round * 5) % stands.len();
            stands[at].measure(&plan)?;
        }
    }

    let measured: Vec<Measured> = stands.into_iter().flat_map(|stand| stand.measured).collect();
    let window = u64::try_from(window.as_millis())?;
    let report = Report::new(machine, &measured, window, options.connections, (options.repeated, options.unique));
    println!("{}", report.table());
    write(&report, options.save)?;
    Ok(report.failed())
}

/// One Envoy and what was measured on it, for each of its loads.
struct Stand {
    proxy: Proxy,
    measured: Vec<Measured>,
    /// For each load, the request with which its next window begins.
    next: Vec<usize>,
}

struct Plan<'p> {
    runtime: &'p Runtime,
    requests: &'p Requests,
    connections: usize,
    warm_up: Duration,
    window: Duration,
}

impl Stand {
    fn measure(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        self.proxy.resume();
        for (measured, next) in self.measured.iter_mut().zip(&mut self.next) {
            if INTERRUPTED.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let (setup, load) = (measured.setup, measured.load);
            let sample = window(&self.proxy, plan, load, next, measured.module_bytes.is_some())
                .with_context(|| format!("{setup}, {load:?}; its log ends:\n{}", self.proxy.log_tail()))?;
            measured.samples.push(sample);
            measured.resident_bytes = self.proxy.resident_bytes();
        }
        self.proxy.pause();
        Ok(())
    }
}

fn window(proxy: &Proxy, plan: &Plan<'_>, load: Tokens, next: &mut usize, counts_late: bool) -> anyhow::Result<Sample> {
    let stats = || {
        if counts_late {
            std::thread::sleep(COUNTED);
        }
        proxy.stats(plan.runtime)
    };
    std::thread::sleep(SETTLE);
    let requests = plan.requests.of(load);
    let mut generator = Generator::connect(proxy.address, plan.connections, requests, *next)?;
    // All of them, so that a cache that has room for them has them.
    let at_least = if load.are_remembered() { requests.len() } else { 0 };
    let warming = generator.run(plan.warm_up, at_least)?;
    let before = stats()?;
    std::thread::sleep(SETTLE);
    let cpu = proxy.cpu()?;
    let run = generator.run(plan.window, 0)?;
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

fn write(report: &Report, save: bool) -> anyhow::Result<()> {
    let results = tests::project().join("benches/results");
    std::fs::create_dir_all(&results)?;
    let json = format!("{}\n", serde_json::to_string_pretty(report)?);
    let svg = chart::svg(report);
    let mut names = vec!["latest".to_owned()];
    if save {
        names.push(report.machine.date.replace(':', ""));
    }
    for name in names {
        let put = |extension: &str, content: &str| -> anyhow::Result<PathBuf> {
            let path = results.join(format!("{name}.{extension}"));
            std::fs::write(&path, content).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        put("svg", &svg)?;
        println!("{}", put("json", &json)?.display());
    }
    Ok(())
}

fn watch_signals() -> std::io::Result<()> {
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
