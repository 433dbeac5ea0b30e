//! `make bench`: Portcullis beside Envoy's own filters, interleaved in one run.
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::{Directory, Redis, Service};

use crate::machine::{Cores, Machine};
use crate::measure::{self, Load, Plan};
use crate::proxy::Proxy;
use crate::report::{Measured, Report};
use crate::scenario::{self, Parts, Setup};
use crate::tokens::{Keys, Requests, Tokens};
use crate::{authorizer, chart, results, sessions};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Fewer and shorter rounds: under 3 minutes, and less exact
    #[arg(long)]
    quick: bool,
    /// Rounds; each measures everything once [default: 12, quick: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of each measured window [default: 2000, quick: 600]
    #[arg(long)]
    window: Option<u64>,
    /// Milliseconds of the same load before each window [default: 500, quick: 250]
    #[arg(long)]
    warm_up: Option<u64>,
    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Tokens that are sent repeatedly
    #[arg(long, default_value_t = 100)]
    repeated: usize,
    /// Tokens that are sent in turn, more than any cache here holds
    #[arg(long, default_value_t = 20_000)]
    unique: usize,
    /// Requests per second in the scenarios with sessions in use, where nothing is saturated
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Only the setups whose names contain one of these, and the one without a filter. `features` is a group that is not
    /// measured otherwise
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    cores: Cores,
    /// Keep a copy of the results under the current date
    #[arg(long)]
    save: bool,
}

/// The beginning of the names of [`scenario::features`].
const FEATURES: &str = "features";
/// More requests with proofs than are answered in a millisecond: a second use of one would fail.
const PROOFS_PER_MILLISECOND: usize = 30;

/// Returns the number of failed requests.
pub fn run(options: &Options) -> anyhow::Result<u64> {
    let pick = |given: Option<u64>, full, quick| given.unwrap_or(if options.quick { quick } else { full });
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 12 });
    let window = Duration::from_millis(pick(options.window, 2000, 600));
    let warm_up = Duration::from_millis(pick(options.warm_up, 500, 250));
    ensure!(rounds > 0 && !window.is_zero() && options.rate > 0, "nothing would be measured");

    let machine = Machine::describe();
    let wanted =
        |name: &str| options.only.is_empty() || name == "none" || options.only.iter().any(|o| name.contains(o));
    let keys = Keys::generate();

    options.cores.take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { measure::watch_signals() })?;
    let directory = Directory::new("bench");
    let redis = runtime.block_on(Redis::start(&directory));
    let service = runtime.block_on(Service::start(&directory, sessions::options(&directory, redis.url())));
    let parts = Parts {
        keys: &keys,
        authorizer: runtime.block_on(authorizer::start())?,
        service: service.address(),
        secret: service.options().secret.clone(),
    };
    let has_features = options.only.iter().any(|only| only.starts_with(FEATURES));
    let mut setups: Vec<Setup> = scenario::all(&parts).into_iter().filter(|setup| wanted(&setup.name)).collect();
    if has_features {
        setups.extend(scenario::features(&parts).into_iter().filter(|setup| wanted(&setup.name)));
    }
    let is_active = |setup: &Setup| setup.loads.contains(&Tokens::Active);
    if !setups.iter().skip(1).any(is_active) {
        setups.iter_mut().for_each(|setup| setup.loads.retain(|load| *load != Tokens::Active));
    }

    let mut kinds: Vec<Tokens> = Vec::new();
    for kind in setups.iter().flat_map(|setup| &setup.loads) {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    eprintln!("minting {} repeated and {} unique tokens of each kind", options.repeated, options.unique);
    let mut requests = Requests::mint(&keys, options.repeated, options.unique, &kinds, options.cores)?;
    for (kind, count) in [(Tokens::Opaque, options.repeated), (Tokens::UniqueOpaque, sessions::UNIQUE)] {
        if kinds.contains(&kind) {
            requests.add(kind, &runtime.block_on(sessions::make(&service, count))?);
        }
    }

    let mut stands = Vec::new();
    for setup in &setups {
        let proxy = Proxy::start(&runtime, &directory, setup, options.cores)?;
        proxy.pause();
        let module_bytes = setup.module.as_ref().map(std::fs::metadata).transpose()?.map(|module| module.len());
        let measured: Vec<_> = setup
            .loads
            .iter()
            .map(|load| Measured {
                setup: setup.name.clone(),
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
    let plan = Plan { runtime: &runtime, connections: options.connections, warm_up, window };
    let proofs = usize::try_from((warm_up + window).as_millis())? * PROOFS_PER_MILLISECOND + options.connections;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        // Each round starts at another one, so that none is always measured after the same neighbour.
        for place in 0..stands.len() {
            let at = (place + round * 5) % stands.len();
            let prove = || requests.prove(proofs, options.cores);
            stands[at].measure(&plan, (&requests, &prove), options.rate)?;
        }
    }

    let measured: Vec<Measured> = stands.into_iter().flat_map(|stand| stand.measured).collect();
    let window = u64::try_from(window.as_millis())?;
    let report = Report::new(machine, &measured, window, options.connections, (options.repeated, options.unique));
    println!("{}", report.table());
    let dated = options.save.then(|| report.machine.date.replace(':', ""));
    let latest = if has_features { FEATURES } else { "latest" };
    for name in [latest.to_owned()].into_iter().chain(dated) {
        results::write(&format!("{name}.svg"), &chart::bars(&report))?;
        println!("{}", results::write(&format!("{name}.json"), &results::json(&report)?)?.display());
    }
    Ok(report.failed())
}

/// One Envoy and its results, for each of its loads.
struct Stand {
    proxy: Proxy,
    measured: Vec<Measured>,
    /// For each load, the request with which its next window starts.
    next: Vec<usize>,
}

impl Stand {
    fn measure(
        &mut self,
        plan: &Plan<'_>,
        (requests, prove): (&Requests, &dyn Fn() -> anyhow::Result<Vec<Vec<u8>>>),
        rate: u32,
    ) -> anyhow::Result<()> {
        for (measured, next) in self.measured.iter_mut().zip(&mut self.next) {
            let (setup, tokens) = (&measured.setup, measured.load);
            // Before it runs again: proofs are made on its core too.
            let proven = if tokens == Tokens::Proven { prove()? } else { Vec::new() };
            let requests = if tokens == Tokens::Proven { &proven } else { requests.of(tokens) };
            if tokens == Tokens::Proven {
                *next = 0;
            }
            self.proxy.resume();
            let load = Load {
                requests,
                // All of them, so that a cache that is large enough has all of them.
                warms_with: if tokens.are_remembered() { requests.len() } else { 0 },
                rate: (tokens == Tokens::Active).then_some(rate),
                counts_late: measured.module_bytes.is_some(),
            };
            let sample = measure::window(&self.proxy, plan, &load, next)
                .with_context(|| format!("{setup}, {tokens:?}; its log ends:\n{}", self.proxy.log_tail()))?;
            measured.samples.push(sample);
            measured.resident_bytes = self.proxy.resident_bytes();
        }
        self.proxy.pause();
        Ok(())
    }
}
