//! `portcullis`: the one native binary. Each verb is a module; this file only names them.
//!
//! Exit codes, the same for every verb: 0 done; 1 refused or failed; 2 wrong usage; 3 the service cannot be reached,
//! or could not confirm what it was asked to do.
#![allow(rustdoc::bare_urls, reason = "the doc comment of an option is its help text")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "`value[\"name\"]` of JSON gives null and does not panic; sums of small numbers"
)]
mod admin;
mod all_errors;
mod audit;
mod check_config;
mod docs;
mod document;
mod explain;
mod instant;
mod jwks;
mod kept_long_enough;
mod known_issuers;
mod log_filter;
mod migrate;
mod mint;
mod ready;
mod revoke;
mod serve;
mod session;
mod signing_key;
mod store;
mod suggest;
mod surroundings;

use std::io::Write as _;
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
    Revoke(Box<revoke::Revoke>),
    /// Make, look at and end sessions of the service's own.
    #[command(after_help = EXIT_CODES)]
    Session(Box<session::Session>),
    /// Who did what with the service, when and why.
    #[command(after_help = EXIT_CODES)]
    Audit(audit::Audit),
    /// Judge one request as the filter would, and say each step.
    #[command(after_help = EXPLAIN_CODES)]
    Explain(Box<explain::Explain>),
    /// Say whether the filter would take a configuration.
    #[command(after_help = EXIT_CODES)]
    CheckConfig(check_config::CheckConfig),
    /// Fetch an issuer's published keys and explain them as the filter would see them.
    #[command(after_help = JWKS_CODES)]
    Jwks(jwks::Jwks),
    /// Make the store that services answer from.
    #[command(after_help = EXIT_CODES)]
    Store(store::Store),
    /// Move the store to another Redis, while services run.
    #[command(after_help = EXIT_CODES)]
    Migrate(Box<migrate::Migrate>),
    /// RevocationQuery a service whether it can answer: a health check for a container without a shell.
    #[command(after_help = EXIT_CODES)]
    Ready(ready::Ready),
    /// Make keys and sign tokens, for tests and demos.
    Mint(mint::MintArgs),
    /// Write the generated files of docs/.
    #[command(hide = true)]
    Docs(docs::Docs),
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed
  2  wrong usage
  3  the service cannot be reached, or could not confirm what it was asked to do";

const JWKS_CODES: &str = "Exit codes:
  0  there are keys that the filter would use
  1  there are none, or it is no key set
  2  wrong usage
  3  the provider cannot be reached, or does not answer 200";

const EXPLAIN_CODES: &str = "Exit codes:
  0  admitted
  1  refused, or the configuration cannot be used
  2  wrong usage";

/// How a verb ended, when it did not fail on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Unconfirmed,
}

fn main() -> ExitCode {
    // For every https:// URL. It fails only where there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Cli::parse().verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Revoke(revoke) => revoke.run(),
        Verb::Session(session) => session.run(),
        Verb::Audit(audit) => audit.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::CheckConfig(check) => check.run(),
        Verb::Jwks(jwks) => jwks.run(),
        Verb::Docs(docs) => docs.run(Cli::command()),
        Verb::Store(store) => store.run(),
        Verb::Migrate(migrate) => migrate.run(),
        Verb::Ready(store) => store.run(),
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

/// A reader that went away (`| head`) is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_does_not_show_what_the_environment_may_hold_of_secrets() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for name in ["redis", "mirror-redis", "signing-key"] {
            let argument = serve.get_arguments().find(|argument| argument.get_long() == Some(name));
            assert!(argument.unwrap().is_hide_env_values_set(), "{name}");
        }
    }
}
