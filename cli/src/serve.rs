//! `portcullis serve`: runs the service, with its logs and its signals. The options are the service's own.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Command, FromArgMatches as _};
use service::{Options, RELOADED_OPTIONS, Reloader, Service};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config_file::Values;
use crate::log_filter;
use crate::outcome::{Outcome, say};
use crate::supervisor::Supervisor;

/// For calls that cannot be cancelled, once everything else has stopped.
const STOP: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Serve {
    /// A TOML file with options: each key is an option's name without the dashes. The environment and the command line
    /// replace its values. SIGHUP reads it again, and the files that it names. What can change while the service runs then takes
    /// effect, and the log names what needs a restart. A file that cannot be used changes nothing.
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE", help_heading = "Start")]
    config: Option<PathBuf>,
    /// Check the options, and the files that they name, and exit. Redis is not asked, and a store in a file is not read.
    #[arg(long, help_heading = "Start")]
    check: bool,
    /// The level of the log: off, error, warn, info, debug or trace; or MODULE=LEVEL; or several with commas.
    #[arg(long, env = "PORTCULLIS_LOG", value_name = "LEVEL", help_heading = "Start")]
    log: Option<String>,
    #[command(flatten)]
    options: Options,
}

impl Serve {
    pub fn run(self) -> Result<Outcome> {
        let filter = log_filter::parse(self.log.as_deref())?;
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_env_filter(filter)
            .with_filter_reloading();
        let handle = subscriber.reload_handle();
        let set_log = move |filter: EnvFilter| handle.reload(filter).context("the log's level");
        subscriber.init();
        let supervisor = Supervisor::from_environment()?;
        let has_file = self.config.is_some();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            if self.check {
                Service::check(&self.options).await?;
                say("ok");
                return Ok(Outcome::Done);
            }
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let reloads = has_file.then(Reloads::new).transpose()?;
            let service = Service::bind(self.options).await?;
            supervisor.ready();
            let reloader = service.reloader();
            service
                .run(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                        () = reload(reloads, &reloader, &supervisor, set_log) => {}
                        () = supervisor.keep_alive() => {}
                    }
                    supervisor.stopping();
                })
                .await;
            Ok(Outcome::Done)
        });
        // A PKCS#11 module that hangs does not delay the exit.
        runtime.shutdown_timeout(STOP);
        outcome
    }
}

/// SIGHUP, and what the options were before it. Without a file there is nothing to read again, and SIGHUP ends the
/// process as it ends others.
struct Reloads {
    hangup: tokio::signal::unix::Signal,
    command: Command,
    words: Vec<OsString>,
    values: Values,
}

impl Reloads {
    fn new() -> Result<Self> {
        let command = Serve::augment_args(Command::new("serve"));
        let words: Vec<OsString> = std::env::args_os().skip(2).collect();
        let (values, _) = Values::read(&command, &words)?;
        Ok(Self { hangup: signal(SignalKind::hangup())?, command, words, values })
    }

    /// Reads everything again and has the service take it. Returns the options that have changed and need a restart.
    async fn apply(&mut self, reloader: &Reloader, set_log: impl Fn(EnvFilter) -> Result<()>) -> Result<Vec<String>> {
        let (values, matches) = Values::read(&self.command, &self.words)?;
        let serve = Serve::from_arg_matches(&matches)?;
        let log = log_filter::parse(serve.log.as_deref())?;
        let held = reloader.reload(&serve.options).await?;
        set_log(log)?;
        let lives = |name: &str| name == "log" || RELOADED_OPTIONS.contains(&name) && !held.contains(&name);
        let waiting = self.values.changed(&values).into_iter().filter(|name| !lives(name)).map(str::to_owned).collect();
        // What waits is named each time, until a restart.
        self.values.take(values, lives);
        Ok(waiting)
    }
}

/// Never done.
async fn reload(
    reloads: Option<Reloads>,
    reloader: &Reloader,
    supervisor: &Supervisor,
    set_log: impl Fn(EnvFilter) -> Result<()>,
) {
    let Some(mut reloads) = reloads else { return std::future::pending().await };
    while reloads.hangup.recv().await.is_some() {
        supervisor.reloading();
        match reloads.apply(reloader, &set_log).await {
            Ok(waiting) if waiting.is_empty() => tracing::info!("the configuration was read again and applied"),
            Ok(waiting) => tracing::warn!(
                options = waiting.join(","),
                "the configuration was read again and applied, except that these options need a restart"
            ),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the configuration cannot be used; nothing was changed");
            }
        }
        supervisor.ready();
    }
    std::future::pending().await
}
