//! `portcullis dev`: a whole mesh on this machine by one command: Envoy with the filter, the service with its store in a file,
//! an issuer with a key of its own, and an upstream that echoes. Until Ctrl-C.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

mod envoy;
mod folder;
mod lines;
mod server;
mod upstream;

use self::envoy::Envoy;
use self::folder::Folder;
use crate::outcome::Outcome;

/// For calls that cannot be cancelled, once everything else has stopped.
const STOP: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Dev {
    /// The folder for the store, the keys, the secrets, Envoy's configuration and the logs. It is made if need be, and what
    /// is there is used again. Default: a new folder, which is removed at the end.
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    /// What runs the filter inside Envoy.
    #[arg(long, value_enum, default_value_t = Host::Wasm)]
    host: Host,
    /// The filter: portcullis.wasm, or libportcullis.so for --host native. Default: beside this binary, in ../lib as a release installs it, then in dist/.
    #[arg(long, value_name = "PATH")]
    filter: Option<PathBuf>,
    /// Envoy. Default: the one of the PATH, then .venv/bin/envoy.
    #[arg(long, env = "PORTCULLIS_ENVOY", value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Where Envoy listens for clients. Port 0 lets the kernel choose, here and below.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the service listens for the filter.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    service_listen: SocketAddr,
    /// Where the service listens for operators.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
}

/// The host of the filter inside Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// A Wasm module.
    Wasm,
    /// A dynamic module.
    Native,
}

impl Dev {
    pub fn run(self) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.go());
        runtime.shutdown_timeout(STOP);
        outcome
    }

    async fn go(self) -> Result<Outcome> {
        let mut stop = Stop::new()?;
        // What is missing is told before anything starts.
        let binary = envoy::find(self.envoy.as_deref())?;
        let filter = envoy::find_filter(self.host, self.filter.as_deref())?;
        let folder = Folder::open(self.dir)?;
        server::log_to(&folder.file("service.log"))?;

        let upstream = upstream::start().await.context("the upstream")?;
        let service = server::bind(&folder, self.service_listen, self.admin_listen).await?;
        let addresses = service.addresses();
        let (say_stop, on_stop) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(service.run(async {
            let _ = on_stop.await;
        }));
        let options = envoy::Options {
            binary,
            host: self.host,
            filter,
            listen: self.listen,
            upstream: upstream.address,
            service: addresses.listen,
        };
        let done = tokio::select! {
            // First, because Ctrl-C in a terminal reaches Envoy too, which ends.
            biased;
            () = stop.told() => Ok(Outcome::Done),
            ended = stay(&folder, options, addresses.admin) => ended,
        };
        // Envoy ended with `stay`.
        let _ = say_stop.send(());
        let _ = serving.await;
        upstream.stop();
        if done.is_err() {
            folder.keep();
        }
        done
    }
}

/// Starts Envoy, and says what can be tried. Returns only if something ends by itself. Dropped, it stops Envoy.
async fn stay(folder: &Folder, options: envoy::Options, admin: SocketAddr) -> Result<Outcome> {
    let mut envoy = Envoy::start(folder, &options)?;
    let login = folder.login();
    let address = envoy.ready(&login.token).await?;
    println!("{}", lines::text(folder, &login, address, admin));
    let ended = envoy.ended().await;
    bail!("Envoy has ended ({ended}): see {}", folder.file("envoy.log").display())
}

/// A request to stop: Ctrl-C, SIGTERM, or a terminal that is gone.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        let of = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [interrupt, terminate, hangup] = of;
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
