//! The file of `--providers-file`: JSON or YAML, and an error that names the field.
use std::path::{Path, PathBuf};

use crate::domain::provider_events::Providers;

#[derive(Debug, thiserror::Error)]
pub enum ProvidersFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Field { path: PathBuf, message: String },
}

/// # Errors
/// The file cannot be read, or has a field that is unknown, missing or of the wrong type. The values are checked when
/// the service starts.
pub fn read(file: &Path) -> Result<Providers, ProvidersFileError> {
    let path = || file.to_path_buf();
    let text = std::fs::read_to_string(file).map_err(|source| ProvidersFileError::Read { path: path(), source })?;
    parse(&text).map_err(|message| ProvidersFileError::Field { path: path(), message })
}

/// JSON is YAML too.
fn parse(text: &str) -> Result<Providers, String> {
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_norway::Deserializer::from_str(text);
    let reader = serde_path_to_error::Deserializer::new(reader, &mut track);
    let read: Result<Providers, _> = serde::Deserialize::deserialize(reader);
    read.map_err(|error| {
        let message = error.to_string();
        // YAML's errors begin with the path too, in a spelling of their own.
        let field = track.path().to_string();
        let message = message.strip_prefix(&format!("{field}: ")).unwrap_or(&message).to_owned();
        if field == "." { message } else { format!("`{field}`: {message}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation_are_taken() {
        let pages = [include_str!("../../../../docs/logout.md"), include_str!("../../../../docs/events.md")];
        let examples = pages.iter().flat_map(|page| page.split("```yaml\n").skip(1));
        let numbers: Vec<usize> = examples
            .map(|rest| {
                let (example, _) = rest.split_once("```").unwrap();
                let providers = parse(example).unwrap_or_else(|error| panic!("{example}: {error}"));
                providers.check(&[]).unwrap_or_else(|error| panic!("{example}: {error}"));
                providers.providers.len()
            })
            .collect();
        assert_eq!(numbers, [2, 2, 1, 1]);
    }

    #[test]
    fn an_error_names_the_field() {
        let whole = "providers:\n- issuer: https://a.example\n  audiences: [a]\n  jwks_uri: https://a.example/jwks\n";
        assert!(parse(whole).is_ok());
        for (field, text) in [
            ("providers[0].colour", format!("{whole}  colour: red\n")),
            ("providers[0].algorithms[1]", format!("{whole}  algorithms: [RS256, none]\n")),
            ("providers[0].skew", format!("{whole}  skew: 5\n")),
            ("providers[0].timeout", format!("{whole}  timeout: soon\n")),
            ("providers[0].events.max", format!("{whole}  events: {{ max: 5s }}\n")),
            ("issuer", format!("{whole}  issuer: https://b.example\n")),
            ("audiences", "providers: [{ issuer: https://a.example }]".to_owned()),
            ("audiences", r#"{"providers": [{"issuer": "https://a.example"}]}"#.to_owned()),
            ("providers", "{}".to_owned()),
            ("others", "others: []".to_owned()),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
