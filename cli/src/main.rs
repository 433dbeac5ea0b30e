//! `portcullis`: the one native binary. Each command is a module; this file only lists them.
//!
//! Exit codes, the same for every command: 0 done; 1 refused or failed; 2 wrong usage; 3 the service cannot be reached,
//! or could not confirm; 4 only warnings were found (`doctor`).
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
mod completions;
mod config_file;
mod dev;
mod docs;
mod doctor;
mod document;
mod embedded;
mod explain;
mod exposition;
mod help;
mod instant;
mod jwks;
mod kept_long_enough;
mod known_issuers;
mod listing;
mod loaded;
mod log_filter;
mod migrate;
mod mint;
mod outcome;
mod peers;
mod question;
mod ready;
mod revoke;
mod serve;
mod session;
mod signing_key;
mod standard_input;
mod store;
mod suggest;
mod supervisor;
mod surroundings;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};

use outcome::Outcome;

/// API session management for Envoy.
#[derive(Parser)]
#[command(name = "portcullis", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Try it: a whole mesh on this machine, without Redis, with lines to paste.
    #[command(after_help = EXIT_CODES)]
    Dev(Box<dev::Dev>),
    /// Run the revocation service.
    #[command(after_help = EXIT_CODES)]
    Serve(Box<serve::Serve>),
    /// Revoke a token, session, user, client, key or issuer; list and lift revocations.
    #[command(after_help = EXIT_CODES)]
    Revoke(Box<revoke::Revoke>),
    /// Create, show and end sessions that the service issues.
    #[command(after_help = EXIT_CODES)]
    Session(Box<session::Session>),
    /// Show the audit log: the caller, action, time and reason of each entry.
    #[command(after_help = EXIT_CODES)]
    Audit(audit::Audit),
    /// Look for faults: this machine, the store, the service, issuers, a token, Envoy.
    #[command(after_help = DOCTOR_CODES)]
    Doctor(Box<doctor::Doctor>),
    /// Judge one request as the filter would, and print each step.
    #[command(after_help = EXPLAIN_CODES)]
    Explain(Box<explain::Explain>),
    /// Check whether the filter would accept a configuration.
    #[command(after_help = EXIT_CODES)]
    CheckConfig(check_config::CheckConfig),
    /// Fetch an issuer's published keys and show them as the filter would see them.
    #[command(after_help = JWKS_CODES)]
    Jwks(jwks::Jwks),
    /// Watch proxies and services live: decisions, faults, the feed, the store.
    #[command(after_help = EXIT_CODES)]
    Top(top::Top),
    /// Create the store that services answer from.
    #[command(after_help = EXIT_CODES)]
    Store(store::Store),
    /// Move the store to another Redis, while services run.
    #[command(after_help = EXIT_CODES)]
    Migrate(Box<migrate::Migrate>),
    /// Ask a service whether it can answer: a health check for a container without a shell.
    #[command(after_help = EXIT_CODES)]
    Ready(ready::Ready),
    /// Create keys and sign tokens, for tests and demos.
    #[command(after_help = LOCAL_CODES)]
    Mint(mint::MintArgs),
    /// Print a shell's completion script.
    Completions(completions::Completions),
    /// Write the generated files of docs/, or man pages.
    #[command(hide = true)]
    Docs(docs::Docs),
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed
  2  wrong usage
  3  the service cannot be reached, or could not confirm what it was asked to do";

const LOCAL_CODES: &str = "Exit codes:
  0  done
  1  failed
  2  wrong usage";

const DOCTOR_CODES: &str = "Exit codes:
  0  nothing found
  1  an error was found, or the doctor cannot look
  2  wrong usage
  4  only warnings were found";

const JWKS_CODES: &str = "Exit codes:
  0  there are keys that the filter would use
  1  there are none, or it is no key set
  2  wrong usage
  3  the provider cannot be reached, or does not answer 200";

const EXPLAIN_CODES: &str = "Exit codes:
  0  admitted, or admitted unless revoked
  1  refused, or the configuration cannot be used
  2  wrong usage
  4  forwarded although it would be refused: the rule only reports";

fn main() -> ExitCode {
    // For every https:// URL. It fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = parse().and_then(run);
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(1),
        Ok(Outcome::Unconfirmed) => ExitCode::from(3),
        Ok(Outcome::Warned) => ExitCode::from(4),
        Err(error) => {
            eprintln!("portcullis: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// The command line, with the values of a configuration file. Wrong usage exits here, as clap does it.
fn parse() -> Result<Cli> {
    let command = help::arranged(Cli::command());
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let (mut note, serve) = (None, words.get(1).is_some_and(|verb| verb == "serve"));
    if serve && let Some(serve) = command.find_subcommand("serve") {
        let given = words.split_off(2);
        note = config_file::note(serve, &given);
        words.extend(config_file::with_file(serve, &given)?);
    }
    let parsed = command.try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    Ok(parsed.unwrap_or_else(|error| {
        if let Some(note) = note.filter(|_| error.use_stderr()) {
            eprintln!("portcullis: {note}");
        }
        error.exit()
    }))
}

fn run(cli: Cli) -> Result<Outcome> {
    match cli.verb {
        Verb::Dev(dev) => dev.run(),
        Verb::Serve(serve) => serve.run(),
        Verb::Revoke(revoke) => revoke.run(),
        Verb::Session(session) => session.run(),
        Verb::Audit(audit) => audit.run(),
        Verb::Doctor(doctor) => doctor.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::CheckConfig(check) => check.run(),
        Verb::Jwks(jwks) => jwks.run(),
        Verb::Completions(completions) => Ok(completions.run(Cli::command())),
        Verb::Docs(docs) => docs.run(help::arranged(Cli::command())),
        Verb::Store(store) => store.run(),
        Verb::Migrate(migrate) => migrate.run(),
        Verb::Ready(store) => store.run(),
        Verb::Top(top) => top.run(),
        Verb::Mint(args) => mint::run(args).map(|()| Outcome::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_told_as_clap_tells_it() {
        let by_clap = Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, "give a sid");
        assert_eq!(outcome::usage_error("give a sid").to_string(), by_clap.to_string());
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
