//! `make demo`: the whole mesh on this machine, walked through and judged. `portcullis dev` leaves one running.
//!
//! Exit codes of the walk: 0 if every step succeeded; 1 otherwise, with the logs kept and named.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: what cannot be done ends the process"
)]
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

mod mesh;
mod partner;
mod reply;
mod show;
mod story;

use mesh::Mesh;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("usage: demo");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        eprintln!("demo: {}", text.or_else(|| payload.downcast_ref().copied()).unwrap_or("panicked"));
    }));
    // The harness panics with the reason if it cannot work. Everything that it started is stopped.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut stop = Stop::new()?;
            walk(&mut stop).await
        })
    }));
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) | Err(_) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn walk(stop: &mut Stop) -> io::Result<bool> {
    tokio::select! {
        ok = async {
            let mut mesh = Mesh::start("demo").await;
            let ok = story::tell(&mut mesh).await;
            if !ok {
                mesh.keep_logs();
            }
            ok
        } => Ok(ok),
        () = stop.told() => Err(io::Error::other("stopped before its end")),
    }
}

/// A request to stop: Ctrl-C, or SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
