//! `portcullis migrate`: moves a store to another Redis while services run. docs/migration.md is the runbook.
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use service::{
    Allow, CreateError, FileExport, FromRedis, MigrateError, Migration, MigrationSource, Progress, Report, StoreId,
    ToRedis, prepare_store,
};
use tokio::signal::unix::{SignalKind, signal};
use wire::parse_duration;

use crate::outcome::{Outcome, say, wrong_usage};

/// How often the bar is drawn, or a line is written where there is no terminal.
const DRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(5);

/// Copies what is there with its time to live, verifies all of it, and declares the new store complete. First `--prepare`,
/// then restart every service with `--mirror-redis`, then this; docs/migration.md has each step. It may be broken off and
/// run again at any time. From a file (--from file:PATH) the service is stopped instead.
#[derive(Args)]
pub struct Migrate {
    #[command(flatten)]
    from: FromRedis,
    #[command(flatten)]
    to: ToRedis,
    /// Only mark the new Redis, which must hold no store, as one that is to be filled, and print its id. Services can
    /// write to it then, and none answers from it.
    #[arg(long, conflicts_with_all = ["verify", "to_store_id"])]
    prepare: bool,
    /// Only compare, and write nothing.
    #[arg(long)]
    verify: bool,
    /// The only store to copy to. Needed if it is complete already, to copy to it or verify it once more.
    #[arg(long, value_name = "ID")]
    to_store_id: Option<StoreId>,
    /// How long a difference may last before it counts: a service has written to the one and is about to write to the
    /// other.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    settle: Duration,
    /// The longest that connecting or one round trip may take, on either side.
    #[arg(long, env = "PORTCULLIS_REDIS_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    redis_timeout: Duration,
    /// How much longer a write may take to be on disk and on replicas.
    #[arg(long, env = "PORTCULLIS_CONFIRM_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    confirm_timeout: Duration,
    /// How many replicas of the new store must have what is copied.
    #[arg(long, env = "PORTCULLIS_MIN_REPLICAS", value_name = "N", default_value_t = 0)]
    min_replicas: u32,
    /// Go on only with what the new Redis says is on its disk.
    #[arg(long, env = "PORTCULLIS_REQUIRE_DISK")]
    require_disk: bool,
    /// From and to a Redis that may evict revocations.
    #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_EVICTION")]
    dangerously_allow_eviction: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub fn run(self) -> Result<Outcome> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                outcome = self.go() => outcome,
                _ = interrupt.recv() => Ok(broken_off()),
                _ = terminate.recv() => Ok(broken_off()),
            }
        })
    }

    async fn go(self) -> Result<Outcome> {
        let allow = Allow { eviction: self.dangerously_allow_eviction, replica: false };
        if self.prepare {
            return match prepare_store(&self.to.into(), self.redis_timeout, allow).await {
                Ok(id) => {
                    say(&id.to_string());
                    Ok(Outcome::Done)
                }
                Err(error) => {
                    eprintln!("portcullis: `to`: {error}");
                    Ok(if matches!(error, CreateError::Redis(_)) { Outcome::Unconfirmed } else { Outcome::Refused })
                }
            };
        }
        let from = match self.from.file() {
            Ok(None) => MigrationSource::Redis(Box::new(self.from.into())),
            Ok(Some(file)) => MigrationSource::Export(Arc::new(FileExport::open(&file.path())?)),
            Err(wrong) => wrong_usage(&wrong),
        };
        let plan = Migration {
            from,
            to: self.to.into(),
            redis_timeout: self.redis_timeout,
            confirm_timeout: self.confirm_timeout,
            min_replicas: self.min_replicas,
            require_disk: self.require_disk,
            allow,
            to_store_id: self.to_store_id,
            settle: self.settle,
            verify_only: self.verify,
        };
        let shown = Shown::new()?;
        let done = service::migrate(&plan, |progress| shown.show(progress)).await;
        shown.end();
        match done {
            Ok(report) => {
                tell(&report, self.json);
                Ok(if report.is_verified() { Outcome::Done } else { Outcome::Refused })
            }
            Err(error) => {
                eprintln!("portcullis: {error}");
                if let MigrateError::Options(_, source) = &error {
                    eprintln!("portcullis: {source}");
                }
                Ok(if error.is_passing() { Outcome::Unconfirmed } else { Outcome::Refused })
            }
        }
    }
}

fn broken_off() -> Outcome {
    eprintln!("portcullis: broken off; what was copied stays, run it again to go on");
    Outcome::Unconfirmed
}

fn tell(report: &Report, as_json: bool) {
    if as_json {
        let tally = |(kind, tally): &(&str, service::Tally)| json!({ "kind": kind, "found": tally.found, "copied": tally.copied, "differing": tally.differing });
        let told = json!({
            "from": report.from.to_string(),
            "to": report.to.to_string(),
            "contents": report.tallies.iter().map(tally).collect::<Vec<_>>(),
            "not_understood": report.not_understood,
            "only_in_to": report.only_in_target,
            "names": report.names,
            "verified": report.is_verified(),
            "complete": report.complete,
        });
        return say(&told.to_string());
    }
    for (kind, tally) in &report.tallies {
        say(&format!("{kind}: {} found, {} copied now, {} differ", tally.found, tally.copied, tally.differing));
    }
    if report.not_understood > 0 {
        say(&format!("{} names are not understood, and were not copied", report.not_understood));
    }
    if report.only_in_target > 0 {
        let what =
            "revocations are in `to` only, since they were lifted meanwhile; they will hold there until lifted again";
        say(&format!("{} {what}", report.only_in_target));
    }
    for line in &report.names {
        say(&format!("  {line}"));
    }
    say(match (report.is_verified(), report.complete) {
        (true, true) => "verified: the new store has all of it, and is complete",
        (true, false) => "verified: the new store has all of it; it is not declared complete yet",
        (false, _) => "the new store lacks something: run this again; if it stays so, a service does not write to both",
    });
}

/// Progress: a bar on a terminal, else a line now and then, on the error output.
struct Shown {
    bar: ProgressBar,
    is_terminal: bool,
    last: std::cell::Cell<Option<std::time::Instant>>,
}

impl Shown {
    fn new() -> Result<Self> {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = "{msg} [{bar:40}] {human_pos} of about {human_len}, {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).context("the bar's form")?.progress_chars("=> "));
        bar.enable_steady_tick(DRAW);
        Ok(Self { bar, is_terminal, last: std::cell::Cell::new(None) })
    }

    fn show(&self, progress: Progress) {
        let what = if progress.verifying { "verifying" } else { "copying  " };
        if self.bar.message() != what {
            self.bar.reset();
            self.bar.set_message(what);
        }
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.seen);
        let is_due = self.last.get().is_none_or(|last| last.elapsed() >= LINE);
        if !self.is_terminal && is_due {
            self.last.set(Some(std::time::Instant::now()));
            eprintln!("{}: {} of about {} names", what.trim_end(), progress.seen, progress.of);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
