//! The configuration file of `portcullis serve`, in TOML. Its keys are the names of the options, so that an option is
//! stated once. Its values become words of the command line, and are then judged like those of any option.
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::suggest;

/// What a file cannot say: which file it is, and what to do with it.
const NOT_IN_FILES: [&str; 4] = ["config", "check", "help", "version"];

/// `words`, with the values of the file before them that `--config` names, or its environment variable. A value that
/// the command line or the environment has is not taken from the file. `serve` is the command, `words` what follows it.
///
/// # Errors
/// A file that cannot be read, with each key that cannot be used.
pub fn with_file(serve: &Command, words: &[OsString]) -> Result<Vec<OsString>> {
    let Some((path, given)) = named(serve, words) else { return Ok(words.to_vec()) };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let from_file = as_words(serve, &given, &text).with_context(|| path.display().to_string())?;
    Ok(from_file.into_iter().chain(words.iter().cloned()).collect())
}

/// Each option's values, after everything was counted in.
#[derive(Debug, PartialEq, Eq)]
pub struct Values(BTreeMap<String, Vec<OsString>>);

impl Values {
    /// # Errors
    /// As [`with_file`], and whatever clap reports.
    pub fn read(serve: &Command, words: &[OsString]) -> Result<(Self, ArgMatches)> {
        let words = with_file(serve, words)?;
        let matches = serve.clone().no_binary_name(true).try_get_matches_from(words)?;
        let options = serve.get_arguments().filter_map(|option| {
            let values = matches.get_raw(option.get_id().as_str())?;
            Some((option.get_long()?.to_owned(), values.map(OsStr::to_owned).collect()))
        });
        Ok((Self(options.collect()), matches))
    }

    /// Takes the options of `new` that are in force now.
    pub fn take(&mut self, new: Self, is_in_force: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| !is_in_force(name));
        self.0.extend(new.0.into_iter().filter(|(name, _)| is_in_force(name)));
    }

    /// The options that differ.
    pub fn changed<'v>(&'v self, other: &'v Self) -> Vec<&'v str> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let changed = names.filter(|name| self.0.get(*name) != other.0.get(*name)).map(String::as_str);
        let mut changed: Vec<&str> = changed.collect();
        changed.sort_unstable();
        changed
    }
}

/// The file, and what else is given. Errors are left to the second reading of the same words, which has the file's too.
fn named(serve: &Command, words: &[OsString]) -> Option<(PathBuf, ArgMatches)> {
    let lenient = serve.clone().no_binary_name(true).ignore_errors(true);
    let given = lenient.try_get_matches_from(words).ok()?;
    Some((given.get_one::<PathBuf>("config")?.clone(), given))
}

fn as_words(serve: &Command, given: &ArgMatches, text: &str) -> Result<Vec<OsString>> {
    let table: Table = text.parse()?;
    let (mut words, mut errors) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        match option(serve, key).and_then(|option| Ok((option, spelled(option, key, value)?))) {
            Ok((option, found)) => {
                let source = given.value_source(option.get_id().as_str());
                if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
                    words.extend(found);
                }
            }
            Err(error) => errors.push(format!("`{key}`: {error}")),
        }
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("; "));
    }
    Ok(words)
}

fn option<'c>(serve: &'c Command, key: &str) -> Result<&'c Arg> {
    let usable = |option: &&Arg| option.get_long().is_some_and(|name| !NOT_IN_FILES.contains(&name));
    let options = || serve.get_arguments().filter(usable);
    let is_named = |option: &&Arg| {
        option.get_long() == Some(key) || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&key))
    };
    match options().find(is_named) {
        Some(option) => Ok(option),
        None if NOT_IN_FILES.contains(&key) => bail!("only the command line may have this"),
        None => match suggest::closest(key, options().filter_map(Arg::get_long)) {
            Some(other) => bail!("no such option; did you mean `{other}`?"),
            None => bail!("no such option"),
        },
    }
}

/// The words that say the same on the command line.
fn spelled(option: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>> {
    let word = |value: &dyn Display| OsString::from(format!("--{key}={value}"));
    match (option.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![OsString::from(format!("--{key}"))]),
        (ArgAction::SetTrue, _) => bail!("must be true or false"),
        (_, Value::String(text)) => Ok(vec![word(text)]),
        (_, Value::Integer(number)) => Ok(vec![word(number)]),
        (ArgAction::Append, Value::Array(values)) => {
            let texts = values.iter().map(|value| value.as_str().map(|text| word(&text)));
            texts.collect::<Option<_>>().context("must be a list of strings")
        }
        (ArgAction::Append, _) => bail!("must be a string or a list of strings"),
        (_, Value::Table(_)) => bail!("is a section, and there are none: options stand at the top"),
        (_, _) => bail!("must be a string or a whole number"),
    }
}

/// For messages about words that may have come from a file.
pub fn note(serve: &Command, words: &[OsString]) -> Option<String> {
    let (path, _) = named(serve, words)?;
    Some(format!("note: options of {} are counted in", Path::new(&path).display()))
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::serve::Serve;

    fn serve() -> Command {
        Serve::augment_args(Command::new("serve"))
    }

    fn with(text: &str, words: &[&str]) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let words: Vec<OsString> =
            ["--config", file.path().to_str().unwrap()].iter().chain(words).map(Into::into).collect();
        let all = with_file(&serve(), &words)?;
        let from_file = all.len() - words.len();
        Ok(all.into_iter().take(from_file).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn each_form_of_a_value_becomes_the_words_of_its_option() {
        let text = "listen = '[::]:7700'\nmin-replicas = 1\nrequire-disk = true\ncreate-store = false\n\
                    secret-file = ['a', 'b']\nadmin-token-file = '-t'\nsession-retention = '30d'\n";
        let mut words = with(text, &[]).unwrap();
        words.sort();
        let expected = [
            "--admin-token-file=-t",
            "--listen=[::]:7700",
            "--min-replicas=1",
            "--require-disk",
            "--secret-file=a",
            "--secret-file=b",
            "--session-retention=30d",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_command_line_replaces_a_value_of_the_file_and_leaves_the_others() {
        let text = "secret-file = ['a', 'b']\nlisten = '127.0.0.1:1'\n";
        assert_eq!(with(text, &["--secret-file", "c"]).unwrap(), ["--listen=127.0.0.1:1"]);
    }

    #[test]
    fn every_wrong_key_is_named_with_its_reason() {
        let error = with("listne = '1'\nrequire-disk = 'yes'\nredis = [6379]\nconfig = 'x'\n", &[]).unwrap_err();
        let error = format!("{error:#}");
        for part in [
            "`listne`: no such option; did you mean `listen`?",
            "`require-disk`: must be true or false",
            "`redis`: must be a list of strings",
            "`config`: only the command line may have this",
        ] {
            assert!(error.contains(part), "{error}");
        }
        for (text, part) in [
            ("[redis]\nurl = 'x'\n", "must be a string or a list"),
            ("[listen]\n", "is a section"),
            ("listen = ['a']", "must be a string or a whole number"),
            ("listen = 'a'\nlisten = 'b'\n", "duplicate key"),
            ("listen", "TOML"),
        ] {
            let error = format!("{:#}", with(text, &[]).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_an_error_and_none_is_not() {
        let words = ["--config", "/nonexistent.toml"].map(OsString::from);
        assert!(format!("{:#}", with_file(&serve(), &words).unwrap_err()).contains("/nonexistent.toml"));
        let words = ["--listen", "127.0.0.1:1"].map(OsString::from);
        assert_eq!(with_file(&serve(), &words).unwrap(), words);
    }

    #[test]
    fn what_a_reload_changes_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let words = ["--config", file.path().to_str().unwrap()].map(OsString::from);
        let read = |text: &str| {
            std::fs::write(file.path(), format!("secret-file = 's'\nadmin-token-file = 't'\n{text}")).unwrap();
            Values::read(&serve(), &words).unwrap().0
        };
        let (before, after) = (read("log = 'info'\nissuer = 'a'\n"), read("log = 'warn'\nissuer = ['a', 'b']\n"));
        assert_eq!(before.changed(&after), ["issuer", "log"]);
        assert!(before.changed(&before).is_empty());
    }

    #[test]
    fn every_option_of_the_service_can_stand_in_a_file() {
        for option in serve().get_arguments().filter(|option| !option.is_positional()) {
            let name = option.get_long().unwrap();
            assert!(matches!(option.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue), "{name}");
        }
    }
}
