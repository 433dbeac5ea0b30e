//! Reads the key files, and again whenever they change. A file that cannot be used leaves the keys as they are.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{KeyError, Signing, SigningKey};

/// How often the files are looked at.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the signing key {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the signing key {path} cannot be used: {source}")]
    Key { path: PathBuf, source: KeyError },
}

/// The texts of all files, and the keys in them.
pub async fn read(paths: &[PathBuf]) -> Result<(Vec<String>, Vec<SigningKey>), ReadError> {
    let (mut texts, mut keys) = (Vec::new(), Vec::new());
    for path in paths {
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|source| ReadError::Read { path: path.clone(), source })?;
        keys.push(key(path, &text)?);
        texts.push(text);
    }
    Ok((texts, keys))
}

fn key(path: &Path, text: &str) -> Result<SigningKey, ReadError> {
    SigningKey::from_pem(text).map_err(|source| ReadError::Key { path: path.to_path_buf(), source })
}

/// Runs for as long as `signing` is used by somebody else.
pub async fn watch(signing: Arc<Signing>, paths: Vec<PathBuf>, mut texts: Vec<String>) {
    let mut said = String::new();
    loop {
        sleep(PAUSE).await;
        if Arc::strong_count(&signing) == 1 {
            return;
        }
        match read(&paths).await {
            Ok((found, keys)) if found != texts => {
                tracing::info!(keys = keys.len(), "the signing keys have changed");
                signing.load(keys, Instant::now());
                texts = found;
                said.clear();
            }
            Ok(_) => signing.advance(Instant::now()),
            Err(error) => {
                signing.advance(Instant::now());
                let error = error.to_string();
                if error != said {
                    tracing::error!(%error, "the signing keys stay as they were");
                    said = error;
                }
            }
        }
    }
}
