//! The option of events that are sent, and its file: JSON or YAML, and an error that names the field.
use std::path::{Path, PathBuf};

use clap::Args;

use crate::domain::transmitter::{Receivers, ReceiversError};

#[derive(Debug, Clone, Args)]
pub struct EventReceiverOptions {
    /// A file, JSON or YAML, with receivers of security events (CAEP), which get a signed token by push when a session is
    /// ended or shows signs of a hijack. docs/sent-events.md has its fields. Without it none are sent.
    #[arg(
        long,
        env = "PORTCULLIS_EVENT_RECEIVERS_FILE",
        value_name = "PATH",
        requires = "signing_keys",
        help_heading = "Revocations"
    )]
    pub event_receivers_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum EventReceiversFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Form { path: PathBuf, message: String },
    #[error("{path}")]
    Field { path: PathBuf, source: ReceiversError },
    #[error(
        "`signals` of the sightings file has `event`, and no receiver of --event-receivers-file has `risk-level-change`"
    )]
    NoReceiver,
}

impl EventReceiverOptions {
    /// `None`: no events are sent.
    ///
    /// # Errors
    /// The file cannot be read, or has a field that is wrong.
    pub fn receivers(&self, session_issuer: Option<&str>) -> Result<Option<Receivers>, EventReceiversFileError> {
        let receivers = self.event_receivers_file.as_deref().map(read).transpose()?;
        Ok(receivers.map(|receivers| receivers.with_issuer(session_issuer.unwrap_or_default())))
    }
}

fn read(file: &Path) -> Result<Receivers, EventReceiversFileError> {
    let path = || file.to_path_buf();
    let text =
        std::fs::read_to_string(file).map_err(|source| EventReceiversFileError::Read { path: path(), source })?;
    let receivers = parse(&text).map_err(|message| EventReceiversFileError::Form { path: path(), message })?;
    let checked = receivers.check().and_then(|()| receivers.check_files());
    checked.map_err(|source| EventReceiversFileError::Field { path: path(), source })?;
    Ok(receivers)
}

/// JSON is YAML too.
fn parse(text: &str) -> Result<Receivers, String> {
    serde_norway::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_documentation_is_taken() {
        let page = include_str!("../../../../docs/sent-events.md");
        let examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|it| it.0);
        let ours: Vec<_> = examples.filter(|example| example.contains("event-receivers-file")).collect();
        assert_eq!(ours.len(), 1);
        let receivers = parse(ours[0]).unwrap();
        receivers.check().unwrap();
        assert_eq!(receivers.receivers.len(), 2);
    }
}
