//! Texts that a command takes from standard input when it is given `-`.
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};

pub fn read() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// A file, or standard input for `-`.
pub fn read_file(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        return read();
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// An argument, or standard input for `-` without white space around it.
pub fn argument(given: &str) -> Result<String> {
    if given == "-" { read().map(|text| text.trim_ascii().to_owned()) } else { Ok(given.to_owned()) }
}
