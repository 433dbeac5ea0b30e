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
    /// Every acknowledged write. A table of one region, or a global table with multi-region strong consistency and these regions.
    /// None are named: the one that the SDK finds.
    Strong { regions: Vec<String> },
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
    #[error("`endpoint` must begin with https://, or lead to this host")]
    Endpoint,
    #[error(
        "`regions` has all regions of the table, and needs `region`, which is one of them; `mode=eventual` needs both"
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
        if endpoint.as_deref().is_some_and(|endpoint| !is_protected(endpoint)) {
            return Err(TableNameError::Endpoint);
        }
        let all = match &regions {
            None => region.iter().cloned().collect(),
            Some(regions) => {
                let mut all: Vec<_> = regions.split(',').map(str::to_owned).collect();
                all.sort_unstable();
                all.dedup();
                let fits = all.len() <= Self::MAX_REGIONS && all.iter().all(|name| is_region(name));
                if !fits || region.as_ref().is_none_or(|region| !all.contains(region)) {
                    return Err(TableNameError::Regions);
                }
                all
            }
        };
        let mode = match (mode.as_deref(), &region, regions) {
            (None | Some("strong"), ..) => Mode::Strong { regions: all },
            (Some("eventual"), Some(home), Some(_)) => Mode::Eventual { home: home.clone(), regions: all },
            (Some("eventual"), ..) => return Err(TableNameError::Regions),
            (Some(_), ..) => return Err(TableNameError::Mode),
        };
        Ok(Self { table: table.to_owned(), region, endpoint, mode })
    }
}

/// Does the URL begin with `https://`, or lead to this host? Without TLS, a reply may be from anybody on the way.
pub fn is_protected(url: &str) -> bool {
    let authority = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    if let Some(rest) = url.strip_prefix("https://") {
        return !authority(rest).is_empty();
    }
    let Some(authority) = url.strip_prefix("http://").map(authority) else { return false };
    let is_port = |port: &str| port.bytes().all(|c| c.is_ascii_digit());
    let host =
        authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority.as_str(), |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
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
            Mode::Strong { .. } => "-",
            Mode::Eventual { home, .. } => home,
        }
    }

    /// The regions whose items we read and do not write.
    pub fn others(&self) -> impl Iterator<Item = &String> {
        let (home, regions) = match self {
            Mode::Strong { .. } => ("-", &[][..]),
            Mode::Eventual { home, regions } => (home.as_str(), &regions[..]),
        };
        regions.iter().filter(move |region| *region != home)
    }

    /// The number of our region among all, below `MAX_REGIONS`.
    pub fn index(&self) -> u64 {
        let index = match self {
            Mode::Strong { .. } => None,
            Mode::Eventual { home, regions } => regions.iter().position(|region| region == home),
        };
        index.and_then(|index| u64::try_from(index).ok()).unwrap_or_default()
    }

    pub fn is_eventual(&self) -> bool {
        matches!(self, Mode::Eventual { .. })
    }

    fn parts(&self) -> (&'static str, &[String]) {
        match self {
            Mode::Strong { regions } => ("mode=strong&regions=", regions),
            Mode::Eventual { regions, .. } => ("mode=eventual&regions=", regions),
        }
    }

    /// As in the table's id and in the option.
    pub fn text(&self) -> String {
        let (mode, regions) = self.parts();
        format!("{mode}{}", regions.join(","))
    }

    /// May an instance in `region` use a table that was created for `made`? It must read every region in which instances may
    /// write, and its own must be one that all others read. Further regions in ours do no harm.
    pub fn fits(&self, made: &str, region: &str) -> bool {
        let (mode, _) = self.parts();
        let made_for = made.strip_prefix(mode);
        self.includes(made) && made_for.is_some_and(|regions| regions.split(',').any(|made| made == region))
    }

    /// The same mode, with all regions of `made`?
    pub fn includes(&self, made: &str) -> bool {
        let (mode, ours) = self.parts();
        let made_for = made.strip_prefix(mode);
        made_for.is_some_and(|regions| regions.split(',').all(|region| ours.iter().any(|ours| ours == region)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_settings() {
        let plain: TableName = "dynamodb:portcullis".parse().unwrap();
        assert_eq!(
            (plain.table.as_str(), plain.region, plain.mode),
            ("portcullis", None, Mode::Strong { regions: Vec::new() })
        );
        let local: TableName = "dynamodb:t-1?region=eu-west-1&endpoint=http://127.0.0.1:4567".parse().unwrap();
        assert_eq!(local.endpoint.as_deref(), Some("http://127.0.0.1:4567"));
        let two: TableName = "dynamodb:t-1?region=b&mode=eventual&regions=b,a".parse().unwrap();
        assert_eq!(two.mode, Mode::Eventual { home: "b".to_owned(), regions: vec!["a".to_owned(), "b".to_owned()] });
        assert_eq!(two.mode.others().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn an_instance_reads_all_regions_of_the_table_and_is_in_one_of_them() {
        let mode = |settings: &str| format!("dynamodb:abc?{settings}").parse::<TableName>().unwrap().mode;
        let (strong, other) = (mode("region=a"), mode("region=b"));
        assert_eq!(strong.text(), "mode=strong&regions=a");
        assert!(strong.fits(&strong.text(), "a") && !strong.fits("", "a") && !other.fits(&strong.text(), "b"));
        assert!(mode("region=b&regions=a,b").includes(&strong.text()));
        let (two, three) = (mode("region=a&mode=eventual&regions=b,a"), mode("region=a&mode=eventual&regions=a,b,c"));
        assert_eq!(two.text(), "mode=eventual&regions=a,b");
        assert!(two.fits(&two.text(), "a") && !two.fits(&strong.text(), "a") && !strong.fits(&two.text(), "a"));
        assert!(three.fits(&two.text(), "a"), "before the region is added to the table");
        assert!(!three.fits(&two.text(), "c"), "others do not read it yet");
        assert!(three.includes(&two.text()) && three.fits(&three.text(), "c"));
        assert!(!two.fits(&three.text(), "a") && !two.includes(&three.text()));
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
            "dynamodb:abc?region=c&regions=a,b",
            "dynamodb:abc?regions=a,b",
            "dynamodb:abc?endpoint=http://dynamodb.example",
            "dynamodb:abc?endpoint=http://localhost.example/",
            "dynamodb:abc?endpoint=http://localhost@dynamodb.example/",
            "dynamodb:abc?endpoint=http://127.0.0.1:80@dynamodb.example/",
            "dynamodb:abc?endpoint=https://",
            "dynamodb:abc?endpoint=127.0.0.1:4567",
        ] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
        for protected in ["https://vpce.example", "http://localhost", "http://[::1]:4567/", "http://127.0.0.1:1"] {
            assert!(format!("dynamodb:abc?endpoint={protected}").parse::<TableName>().is_ok(), "{protected}");
        }
    }
}
