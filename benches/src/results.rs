//! The files in benches/results/.
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

/// # Errors
/// It cannot be written there.
pub fn write(name: &str, content: &str) -> anyhow::Result<PathBuf> {
    let results = harness::project().join("benches/results");
    std::fs::create_dir_all(&results)?;
    let path = results.join(name);
    std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// # Errors
/// It is not such a thing as JSON can say.
pub fn json(report: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(report)?))
}
