//! `portcullis serve`: runs the service, with its logs and its signals. The options are the service's own.
use std::env::VarError;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use service::{Options, Service};
use tokio::signal::unix::{SignalKind, signal};

use crate::log_filter;
use crate::outcome::Outcome;

/// For calls that cannot be cancelled, once everything else has stopped.
const STOP: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    options: Options,
}

impl Serve {
    pub fn run(self) -> Result<Outcome> {
        let wanted = match std::env::var("PORTCULLIS_LOG") {
            Ok(wanted) => Some(wanted),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => bail!("PORTCULLIS_LOG is not UTF-8"),
        };
        let filter = log_filter::parse(wanted.as_deref())?;
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let service = Service::bind(self.options).await?;
            service
                .run(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                })
                .await;
            Ok(Outcome::Done)
        });
        // A PKCS#11 module that hangs does not delay the exit.
        runtime.shutdown_timeout(STOP);
        outcome
    }
}
