//! The tables that map subjects to users: read from files at start, and again when they change.
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess};

use super::ProviderState;
use super::claims::MAX_ID;
use super::providers::{MappedFormat, Provider, ProvidersError};

/// The largest file, and the most values in it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const MAX_ENTRIES: usize = 1_000_000;
/// How often the files are looked at.
const AGAIN: Duration = Duration::from_secs(2);

/// The user of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// Its `sub`.
    User(String),
    /// The table does not have it.
    Unknown,
    /// This provider has no table for the format.
    NoTable,
}

#[derive(Debug, Default)]
pub struct Mappings(HashMap<MappedFormat, Table>);

enum Table {
    IsSub,
    File { path: PathBuf, read: RwLock<Arc<Read>> },
}

struct Read {
    users: HashMap<String, String>,
    version: Version,
}

/// Differs when a file was written anew.
type Version = (Option<SystemTime>, u64);

/// The pairs of an object, in order.
struct Pairs(Vec<(String, String)>);

impl Mappings {
    /// # Errors
    /// A file cannot be used.
    pub fn load(provider: &Provider) -> Result<Self, ProvidersError> {
        let mut tables = HashMap::new();
        for (format, mapping) in &provider.subjects {
            let table = match &mapping.file {
                None => Table::IsSub,
                Some(path) => {
                    let wrong =
                        |message: String| ProvidersError::new(format!("subjects.{}.file", format.name()), message);
                    let read = read(path, *format).map_err(wrong)?;
                    Table::File { path: path.clone(), read: RwLock::new(Arc::new(read)) }
                }
            };
            tables.insert(*format, table);
        }
        Ok(Self(tables))
    }

    pub fn user(&self, format: MappedFormat, value: &str) -> Mapped {
        match self.0.get(&format) {
            None => Mapped::NoTable,
            Some(Table::IsSub) => Mapped::User(value.to_owned()),
            Some(Table::File { read, .. }) => {
                let read = Arc::clone(&read.read().unwrap_or_else(PoisonError::into_inner));
                let user = read.users.get(&canonical(format, value));
                user.map_or(Mapped::Unknown, |user| Mapped::User(user.clone()))
            }
        }
    }

    pub fn has_files(&self) -> bool {
        self.0.values().any(|table| matches!(table, Table::File { .. }))
    }

    /// Reads the files that changed. The last good table stays. Blocks.
    fn refresh(&self, issuer: &str) {
        for (format, table) in &self.0 {
            let Table::File { path, read: held } = table else { continue };
            let before = held.read().unwrap_or_else(PoisonError::into_inner).version;
            if version(path).is_ok_and(|now| now == before) {
                continue;
            }
            match read(path, *format) {
                Ok(read) => {
                    tracing::info!(
                        issuer,
                        format = format.name(),
                        users = read.users.len(),
                        "read a mapping of subjects"
                    );
                    *held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
                }
                Err(why) => tracing::error!(issuer, format = format.name(), why, "a mapping of subjects is unchanged"),
            }
        }
    }
}

/// Runs until `stop`, or until the provider is retired.
pub async fn watch(state: Arc<ProviderState>, mut stop: tokio::sync::watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = state.is_over(&mut stop) => return,
        }
        let refreshing = Arc::clone(&state);
        let work = move || refreshing.mappings.refresh(&refreshing.provider.issuer);
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

/// Addresses are compared without regard to case, as nearly all mail systems do (RFC 9493 section 3.2.3.1).
fn canonical(format: MappedFormat, value: &str) -> String {
    match format {
        MappedFormat::Email => value.to_lowercase(),
        MappedFormat::Account | MappedFormat::Did | MappedFormat::PhoneNumber | MappedFormat::Uri => value.to_owned(),
    }
}

fn version(path: &Path) -> Result<Version, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    Ok((metadata.modified().ok(), metadata.len()))
}

fn read(path: &Path, format: MappedFormat) -> Result<Read, String> {
    // Before the text: a file that changes meanwhile is read again.
    let version = version(path)?;
    if version.1 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(Read { users: parse(&text, format)?, version })
}

fn parse(text: &str, format: MappedFormat) -> Result<HashMap<String, String>, String> {
    let pairs: Result<Pairs, String> = match text.trim_start().starts_with('{') {
        // Much faster, and such files are large.
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => serde_norway::from_str(text).map_err(|error| error.to_string()),
    };
    let Pairs(pairs) = pairs?;
    // In YAML nothing is an object without entries. A file that is being written may have nothing.
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    if pairs.len() > MAX_ENTRIES {
        return Err(format!("has more than {MAX_ENTRIES} entries"));
    }
    let mut users = HashMap::with_capacity(pairs.len());
    for (index, (value, user)) in pairs.into_iter().enumerate() {
        let number = index.saturating_add(1);
        if value.is_empty() || user.is_empty() || user.len() > MAX_ID {
            return Err(format!("entry {number} is empty or too long"));
        }
        // Which of the two users would it be?
        if users.insert(canonical(format, &value), user).is_some() {
            return Err(format!("entry {number} has a value that an earlier entry has"));
        }
    }
    Ok(users)
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::IsSub => "IsSub",
            Table::File { .. } => "File",
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Tables in memory, for tests of subjects.
    pub fn tables(tables: &[(MappedFormat, &str)]) -> Mappings {
        let table = |format: MappedFormat, text: &str| match text {
            "is_sub" => Table::IsSub,
            text => {
                let read = Read { users: parse(text, format).unwrap(), version: (None, 0) };
                Table::File { path: PathBuf::new(), read: RwLock::new(Arc::new(read)) }
            }
        };
        Mappings(tables.iter().map(|(format, text)| (*format, table(*format, text))).collect())
    }

    #[test]
    fn a_table_is_json_or_yaml_and_addresses_have_no_case() {
        for text in
            [r#"{"Alice@Example.com": "u1", "b@example.com": "u2"}"#, "Alice@Example.com: u1\nb@example.com: u2\n"]
        {
            let mappings = tables(&[(MappedFormat::Email, text)]);
            assert_eq!(mappings.user(MappedFormat::Email, "alice@example.COM"), Mapped::User("u1".into()));
            assert_eq!(mappings.user(MappedFormat::Email, "c@example.com"), Mapped::Unknown);
            assert_eq!(mappings.user(MappedFormat::Uri, "b@example.com"), Mapped::NoTable);
        }
        let uris = tables(&[(MappedFormat::Uri, r#"{"https://a.example/U": "u"}"#)]);
        assert_eq!(uris.user(MappedFormat::Uri, "https://a.example/u"), Mapped::Unknown, "of addresses only");
    }

    #[test]
    fn a_table_that_could_name_two_users_is_refused() {
        for bad in [
            r#"{"a@example.com": "u", "A@example.com": "v"}"#,
            r#"{"a@example.com": "u", "a@example.com": "u"}"#,
            r#"{"a@example.com": ""}"#,
            r#"{"": "u"}"#,
            r#"{"a@example.com": 5}"#,
            r#"["a@example.com"]"#,
            "a@example.com: [u]",
            "",
        ] {
            assert!(parse(bad, MappedFormat::Email).is_err(), "{bad}");
        }
    }
}
