//! The last step of the filter's build: `link IN.wasm OUT.wasm [--names]`. `exports` does the work.
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

mod exports;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("link: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut names = false;
    let mut paths = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--names") => names = true,
            Some(flag) if flag.starts_with('-') => bail!("unknown flag {flag}"),
            _ => paths.push(PathBuf::from(argument)),
        }
    }
    let [from, to] = paths.as_slice() else { bail!("usage: link IN.wasm OUT.wasm [--names]") };

    let built = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let linked = exports::rewrite(&built, names).with_context(|| from.display().to_string())?;
    // Renamed into place: an Envoy that starts meanwhile reads either the old module or the new one.
    let part = to.with_extension("part");
    std::fs::write(&part, linked).with_context(|| format!("writing {}", part.display()))?;
    std::fs::rename(&part, to).with_context(|| format!("writing {}", to.display()))
}
