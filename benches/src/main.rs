//! The cost of a request in Envoy with Portcullis, beside no filter and Envoy's own filters. README.md says how to read
//! it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends"
)]
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod authorizer;
mod capacity;
mod chart;
mod compare;
mod filters;
mod growth;
mod load;
mod machine;
mod measure;
mod proxy;
mod report;
mod results;
mod scenario;
mod sessions;
mod statistics;
mod tokens;

/// Measures the cost of each request, and writes benches/results/latest.json and latest.svg.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    compare: compare::Options,
}

#[derive(Subcommand)]
enum What {
    /// How the cost grows with tokens, workers, rules, issuers, keys and revocations: benches/results/growth.*
    Growth(growth::Options),
    /// The number of checks of a fleet, and their cost: the plan of docs/operations.md. Measures nothing
    Capacity(capacity::Options),
}

fn main() -> ExitCode {
    let options = Arguments::parse();
    let run = match &options.what {
        None => compare::run(&options.compare),
        Some(What::Growth(growth)) => growth::run(growth),
        Some(What::Capacity(capacity)) => capacity::run(capacity),
    };
    match run {
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
