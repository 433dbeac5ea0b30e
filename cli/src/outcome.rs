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

/// The beginning of a server's URLs.
///
/// # Errors
/// Another form.
pub fn url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("must begin with http:// or https://, and have a host".to_owned()),
    }
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

/// Text of others, which may not begin a line of its own or write to a terminal. What can be printed stays as it is, so that
/// it can be copied.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => printable.push(character),
            _ => printable.extend(character.escape_debug()),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_in_its_line_and_is_otherwise_unchanged() {
        for plain in ["alice@example.com", r#"EXAMPLE\o'brien "x""#, "Zoë", "名前"] {
            assert_eq!(printable(plain), plain);
        }
        assert_eq!(printable("a\nuntil never\r\u{1b}[2J\u{202e}\0"), r"a\nuntil never\r\u{1b}[2J\u{202e}\0");
    }
}
