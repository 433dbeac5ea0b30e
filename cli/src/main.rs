//! `portcullis`: the one native binary. Each verb is a module; this file only names them.
//!
//! Exit codes, the same for every verb: 0 done; 1 refused or failed; 2 wrong usage; 3 the service cannot be reached,
//! or could not confirm what it was asked to do.
mod mint;
mod revoke;
mod serve;
mod store;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// API session management for Envoy.
#[derive(Parser)]
#[command(name = "portcullis", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the revocation service.
    Serve(Box<serve::Serve>),
    /// End a token, session, user, client, key or issuer; list and lift what was ended.
    #[command(after_help = EXIT_CODES)]
    Revoke(revoke::Revoke),
    /// Make the store that services answer from.
    #[command(after_help = EXIT_CODES)]
    Store(store::Store),
    /// Make keys and sign tokens, for tests and demos.
    Mint(mint::MintArgs),
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed
  2  wrong usage
  3  the service cannot be reached, or could not confirm what it was asked to do";

/// How a verb ended, when it did not fail on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Unconfirmed,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Revoke(revoke) => revoke.run(),
        Verb::Store(store) => store.run(),
        Verb::Mint(args) => mint::run(args).map(|()| Outcome::Done),
    };
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(1),
        Ok(Outcome::Unconfirmed) => ExitCode::from(3),
        Err(error) => {
            eprintln!("portcullis: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// Ends as clap does when it finds the mistake itself.
fn wrong_usage(what: &str) -> ! {
    Cli::command().error(ErrorKind::MissingRequiredArgument, what).exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
