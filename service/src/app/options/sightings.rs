//! The options of hijack detection, and its file: JSON or YAML, and an error that names the field.
use std::path::{Path, PathBuf};

use clap::Args;

use crate::domain::hijack::{Settings, SettingsError};

#[derive(Debug, Clone, Args)]
pub struct SightingOptions {
    /// A file, JSON or YAML, that says what signs of a hijacked session lead to. It turns on POST /v1/sightings on --listen, to
    /// which filters with `sightings` report from where sessions are used. docs/hijack.md has its fields. Without it no
    /// report is taken.
    #[arg(long, env = "PORTCULLIS_SIGHTINGS_FILE", value_name = "PATH", help_heading = "Hijack detection")]
    pub sightings_file: Option<PathBuf>,
    /// A database in MaxMind's format, such as GeoLite2-City.mmdb, by which addresses are located. Read again when it changes.
    /// Without it only places count that a proxy's headers say.
    #[arg(
        long,
        env = "PORTCULLIS_GEO_DATABASE",
        value_name = "PATH",
        requires = "sightings_file",
        help_heading = "Hijack detection"
    )]
    pub geo_database: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SightingsFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Form { path: PathBuf, message: String },
    #[error("{path}")]
    Field { path: PathBuf, source: SettingsError },
}

impl SightingOptions {
    /// `None`: there is no hijack detection.
    ///
    /// # Errors
    /// The file cannot be read, or has a field that is wrong.
    pub fn settings(&self) -> Result<Option<Settings>, SightingsFileError> {
        self.sightings_file.as_deref().map(read).transpose()
    }
}

fn read(file: &Path) -> Result<Settings, SightingsFileError> {
    let path = || file.to_path_buf();
    let text = std::fs::read_to_string(file).map_err(|source| SightingsFileError::Read { path: path(), source })?;
    let settings = parse(&text).map_err(|message| SightingsFileError::Form { path: path(), message })?;
    settings.check().map_err(|source| SightingsFileError::Field { path: path(), source })?;
    Ok(settings)
}

/// JSON is YAML too.
fn parse(text: &str) -> Result<Settings, String> {
    serde_norway::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation_are_taken() {
        let page = include_str!("../../../../docs/hijack.md");
        let examples: Vec<&str> =
            page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|it| it.0).collect();
        let of_service: Vec<_> = examples.iter().filter(|example| example.contains("portcullis serve")).collect();
        assert_eq!(of_service.len(), 1);
        for example in of_service {
            parse(example).unwrap().check().unwrap();
        }
    }
}
