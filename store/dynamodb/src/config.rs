//! The table that an option names: `dynamodb:TABLE?region=…&endpoint=…&mode=…`.
use std::fmt;
use std::str::FromStr;

use store::StoreId;

#[derive(Debug, Clone)]
pub struct Config {
    pub table: TableName,
    /// The only store to answer from. `None`: the one in the table.
    pub store_id: Option<StoreId>,
    /// Write an id into a table that has none.
    pub create: bool,
    /// How far an issuer's clock may run ahead.
    pub future_iat_tolerance_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    pub table: String,
    /// `None`: as the SDK finds it, in `AWS_REGION` or in the profile.
    pub region: Option<String>,
    /// `None`: that of the region.
    pub endpoint: Option<String>,
    pub mode: Mode,
}

/// What a strongly consistent read of the table sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Every acknowledged write. A table of one region, or a global table with multi-region strong consistency.
    Strong,
    /// The writes of this region, and those of others some time later: a global table with eventual consistency. All regions,
    /// ours among them.
    Eventual { home: String, regions: Vec<String> },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableNameError {
    #[error("write it as dynamodb:TABLE, with ?region=… and other settings if needed")]
    Form,
    #[error("a table's name has 3 to 255 letters, digits, `.`, `-` or `_`")]
    Table,
    #[error("`{0}` is not a setting: they are region, endpoint, mode and regions")]
    Setting(String),
    #[error("`{0}` is given twice, or is empty")]
    Value(&'static str),
    #[error("`mode` must be strong or eventual")]
    Mode,
    #[error(
        "`mode=eventual` needs `region`, and `regions` with all regions of the table, ours among them; no other mode has `regions`"
    )]
    Regions,
}

impl TableName {
    pub const PREFIX: &'static str = "dynamodb:";
    /// A global table has fewer; a bound for what is read in each round of the feed.
    pub(crate) const MAX_REGIONS: usize = 16;
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(TableNameError::Form)?;
        let (table, settings) = rest.split_once('?').unwrap_or((rest, ""));
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        if !(3..=255).contains(&table.len()) || !table.bytes().all(fits) {
            return Err(TableNameError::Table);
        }
        let (mut region, mut endpoint, mut mode, mut regions) = (None, None, None, None);
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').ok_or_else(|| TableNameError::Setting(setting.to_owned()))?;
            let (name, slot) = match name {
                "region" => ("region", &mut region),
                "endpoint" => ("endpoint", &mut endpoint),
                "mode" => ("mode", &mut mode),
                "regions" => ("regions", &mut regions),
                other => return Err(TableNameError::Setting(other.to_owned())),
            };
            if value.is_empty() || slot.replace(value.to_owned()).is_some() {
                return Err(TableNameError::Value(name));
            }
        }
        let is_region =
            |name: &str| (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if region.as_deref().is_some_and(|region| !is_region(region)) {
            return Err(TableNameError::Value("region"));
        }
        let mode = match (mode.as_deref(), regions) {
            (None | Some("strong"), None) => Mode::Strong,
            (Some("eventual"), Some(regions)) => {
                let mut regions: Vec<_> = regions.split(',').map(str::to_owned).collect();
                regions.sort_unstable();
                regions.dedup();
                let home = region.clone().ok_or(TableNameError::Regions)?;
                let fits = regions.len() <= Self::MAX_REGIONS && regions.iter().all(|name| is_region(name));
                if !fits || !regions.contains(&home) {
                    return Err(TableNameError::Regions);
                }
                Mode::Eventual { home, regions }
            }
            (None | Some("strong" | "eventual"), _) => return Err(TableNameError::Regions),
            (Some(_), _) => return Err(TableNameError::Mode),
        };
        Ok(Self { table: table.to_owned(), region, endpoint, mode })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.table)
    }
}

impl Mode {
    /// The name of our own items. Only we write them.
    pub fn home(&self) -> &str {
        match self {
            Mode::Strong => "-",
            Mode::Eventual { home, .. } => home,
        }
    }

    /// The regions whose items we read and do not write.
    pub fn others(&self) -> impl Iterator<Item = &String> {
        let (home, regions) = match self {
            Mode::Strong => ("-", &[][..]),
            Mode::Eventual { home, regions } => (home.as_str(), &regions[..]),
        };
        regions.iter().filter(move |region| *region != home)
    }

    /// The number of our region among all, below `MAX_REGIONS`.
    pub fn index(&self) -> u64 {
        let index = match self {
            Mode::Strong => None,
            Mode::Eventual { home, regions } => regions.iter().position(|region| region == home),
        };
        index.and_then(|index| u64::try_from(index).ok()).unwrap_or_default()
    }

    pub fn is_eventual(&self) -> bool {
        matches!(self, Mode::Eventual { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_settings() {
        let plain: TableName = "dynamodb:portcullis".parse().unwrap();
        assert_eq!((plain.table.as_str(), plain.region, plain.mode), ("portcullis", None, Mode::Strong));
        let local: TableName = "dynamodb:t-1?region=eu-west-1&endpoint=http://127.0.0.1:4567".parse().unwrap();
        assert_eq!(local.endpoint.as_deref(), Some("http://127.0.0.1:4567"));
        let two: TableName = "dynamodb:t-1?region=b&mode=eventual&regions=b,a".parse().unwrap();
        assert_eq!(two.mode, Mode::Eventual { home: "b".to_owned(), regions: vec!["a".to_owned(), "b".to_owned()] });
        assert_eq!(two.mode.others().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for wrong in [
            "portcullis",
            "dynamodb:",
            "dynamodb:a",
            "dynamodb:a b c",
            "dynamodb:abc?table=x",
            "dynamodb:abc?region",
            "dynamodb:abc?region=",
            "dynamodb:abc?region=a&region=b",
            "dynamodb:abc?region=a#b",
            "dynamodb:abc?mode=weak",
            "dynamodb:abc?mode=eventual",
            "dynamodb:abc?mode=eventual&region=a",
            "dynamodb:abc?mode=eventual&regions=a,b",
            "dynamodb:abc?mode=eventual&region=c&regions=a,b",
            "dynamodb:abc?region=a&regions=a,b",
        ] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
    }
}
