//! The upstream of the compose mesh: answers everything with what it received, as JSON.
//!
//!     echo --listen ADDRESS      until SIGTERM or SIGINT
//!     echo --check ADDRESS       exit code 0 when one answers there, for a health check without a shell
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: what cannot be done ends the process"
)]
use std::net::SocketAddr;
use std::process::ExitCode;

use harness::{Answer, Request, Upstream, exchange};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (verb, address) = match arguments.as_slice() {
        [verb, address] => (verb.as_str(), address.parse::<SocketAddr>().ok()),
        _ => ("", None),
    };
    match (verb, address) {
        ("--listen", Some(address)) => {
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return ExitCode::FAILURE;
            };
            let _upstream = Upstream::answering_on(address, |seen| Answer::json(200, &seen.to_json())).await;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            ExitCode::SUCCESS
        }
        ("--check", Some(address)) => match exchange(address, &Request::get("/")).await {
            Ok(response) if response.status == 200 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        _ => {
            eprintln!("usage: echo --listen ADDRESS | --check ADDRESS");
            ExitCode::from(2)
        }
    }
}
