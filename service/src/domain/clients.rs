//! The clients of the OAuth 2.0 endpoints: read from a file, and again when it changes, and authenticated by their secrets
//! (RFC 6749 section 2.3.1).
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use serde::Deserialize;
use tokio::time::sleep;

/// As for every secret of ours: a shorter one can be guessed, also from its digest.
const MIN_SECRET_BYTES: usize = 32;
const MAX_CLIENTS: usize = 10_000;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum May {
    Introspect,
    Refresh,
    Revoke,
}

/// A client whose secret was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    may: Vec<May>,
}

/// All clients of the file as last read.
#[derive(Debug, Default)]
pub struct Clients(RwLock<Arc<HashMap<String, Known>>>);

struct Known {
    /// More than one during a rotation.
    secrets: Vec<[u8; 32]>,
    may: Vec<May>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clients: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    client_id: String,
    #[serde(default)]
    secret_sha256: Vec<String>,
    #[serde(default)]
    secret_files: Vec<PathBuf>,
    may: Vec<May>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the clients file {path} cannot be used: {source}")]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("the clients file has more than {MAX_CLIENTS} clients")]
    TooMany,
    #[error("client `{id}`: {what}")]
    Client { id: String, what: &'static str },
}

impl Client {
    pub fn may(&self, what: May) -> bool {
        self.may.contains(&what)
    }
}

impl Clients {
    /// # Errors
    /// The first error.
    pub async fn load(&self, path: &Path) -> Result<(), ClientsError> {
        let file = parse(path, &read(path).await?)?;
        let directory = directory_of(path);
        let mut clients = HashMap::new();
        for listed in file.clients {
            let id = listed.client_id.clone();
            let wrong = |what| ClientsError::Client { id: id.clone(), what };
            if id.is_empty() || !id.bytes().all(|c| (0x20..=0x7e).contains(&c)) {
                return Err(wrong("`client_id` must be printable ASCII (RFC 6749 appendix A.1)"));
            }
            let mut secrets = Vec::new();
            for text in &listed.secret_sha256 {
                secrets.push(from_hex(text).ok_or(wrong("`secret_sha256` must be 64 hexadecimal digits"))?);
            }
            for secret in &listed.secret_files {
                let bytes = read(&directory.join(secret)).await?;
                let secret = bytes.trim_ascii();
                if secret.len() < MIN_SECRET_BYTES || !secret.iter().all(|c| (0x20..=0x7e).contains(c)) {
                    return Err(wrong("a secret must be at least 32 characters of printable ASCII"));
                }
                secrets.push(sha256(secret));
            }
            if secrets.is_empty() {
                return Err(wrong("`secret_sha256` or `secret_files` is needed"));
            }
            if clients.insert(listed.client_id, Known { secrets, may: listed.may }).is_some() {
                return Err(wrong("is given twice"));
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(clients);
        Ok(())
    }

    /// `None`: the client is not known, or this is not its secret. Both take the same time.
    pub fn verify(&self, id: &str, secret: &[u8]) -> Option<Client> {
        let clients = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let offered = sha256(secret);
        let known = clients.get(id);
        let nobody = Known { secrets: vec![[0; 32]], may: Vec::new() };
        let compared = known.unwrap_or(&nobody);
        let is_right = compared
            .secrets
            .iter()
            .fold(false, |right, kept| right | constant_time::verify_slices_are_equal(kept, &offered).is_ok());
        let known = known.filter(|_| is_right)?;
        Some(Client { id: id.to_owned(), may: known.may.clone() })
    }

    /// May this client refresh? An unknown one may not.
    pub fn may_refresh(&self, id: &str) -> bool {
        let clients = self.0.read().unwrap_or_else(PoisonError::into_inner);
        clients.get(id).is_some_and(|known| known.may.contains(&May::Refresh))
    }
}

/// The files with secrets of clients that the file at `path` names.
///
/// # Errors
/// As for [`Clients::load`].
pub fn secret_files(path: &Path) -> Result<Vec<PathBuf>, ClientsError> {
    let bytes = std::fs::read(path).map_err(|source| ClientsError::Read { path: path.to_path_buf(), source })?;
    let files = parse(path, &bytes)?.clients.into_iter().flat_map(|client| client.secret_files);
    Ok(files.map(|file| directory_of(path).join(file)).collect())
}

/// Reads the file again at intervals, as long as `clients` is in use elsewhere: secrets may be in other files.
pub async fn watch(clients: Arc<Clients>, path: PathBuf) {
    let mut said = String::new();
    while Arc::strong_count(&clients) > 1 {
        sleep(PAUSE).await;
        match clients.load(&path).await {
            Ok(()) => said.clear(),
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(%error, "the clients are unchanged");
                    said = error;
                }
            }
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("may", &self.may).finish_non_exhaustive()
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<File, ClientsError> {
    let form = |source| ClientsError::Form { path: path.to_path_buf(), source };
    let file: File = serde_json::from_slice(bytes).map_err(form)?;
    match file.clients.len() > MAX_CLIENTS {
        true => Err(ClientsError::TooMany),
        false => Ok(file),
    }
}

/// Secrets may be named relative to the file.
fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

async fn read(path: &Path) -> Result<Vec<u8>, ClientsError> {
    tokio::fs::read(path).await.map_err(|source| ClientsError::Read { path: path.to_path_buf(), source })
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
pub mod tests;
