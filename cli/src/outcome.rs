//! What every command shares: its result, its output, and its answer to wrong usage.
use std::io::Write as _;

use clap::Command;
use clap::error::ErrorKind;

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused,
    /// Only warnings were found.
    Warned,
    Unconfirmed,
}

/// Exits like clap does for its own errors.
pub fn wrong_usage(what: &str) -> ! {
    usage_error(what).exit()
}

/// With the usage line of the whole command. Its commands are stated in `main`, which uses every module.
pub fn usage_error(what: &str) -> clap::Error {
    let mut command = Command::new("portcullis").subcommand_required(true).subcommand(Command::new("serve"));
    command.error(ErrorKind::MissingRequiredArgument, what)
}

/// A closed output pipe (`| head`) is not an error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
