//! The service of the mesh, in this process, with its store in a file.
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use clap::{Args as _, FromArgMatches as _};
use service::{Options, Service};

use super::folder::{Folder, ISSUER};
use crate::log_filter;

/// What the service logs goes to this file.
pub fn log_to(path: &Path) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(log_filter::parse(None)?)
        .with_writer(Mutex::new(file))
        .init();
    Ok(())
}

pub async fn bind(folder: &Folder, listen: SocketAddr, admin: SocketAddr) -> Result<Service> {
    let file = |name: &str| folder.file(name).display().to_string();
    let arguments = [
        "serve".to_owned(),
        format!("--store=file:{}", file("store")),
        // A folder of a try is made by this command alone.
        "--create-store".to_owned(),
        "--operator-page".to_owned(),
        format!("--secret-file={}", file("shared-secret")),
        format!("--admin-token-file={}", file("admin-token")),
        format!("--listen={listen}"),
        format!("--admin-listen={admin}"),
        format!("--issuer={ISSUER}"),
    ];
    // Variables that are meant for another service must not change this one.
    let command = Options::augment_args(clap::Command::new("serve")).mut_args(|argument| argument.env(None::<&str>));
    let options = Options::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
    Ok(Service::bind(options).await?)
}
