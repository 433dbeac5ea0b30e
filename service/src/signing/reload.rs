//! Opens the keys in files and tokens, and reads the files again when they change. A file that cannot be used leaves the keys
//! as they are.
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::pkcs11::{self, Limits, Pkcs11Uri, TokenError, TokenKey, UriError};
use super::{KeyError, Signing, SigningKey};

/// How often the files are checked for changes.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// PKCS#8 in PEM.
    File(PathBuf),
    /// Signs inside the token; the key stays there.
    Token(Pkcs11Uri),
}

/// A [`KeySource`] whose token was found.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    Token(Arc<SigningKey>),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the signing key {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the signing key {path} cannot be used: {source}")]
    Key { path: PathBuf, source: KeyError },
    #[error("the signing key in a token, the {nth}. of all, cannot be used: {source}")]
    Token { nth: usize, source: TokenError },
}

impl FromStr for KeySource {
    type Err = UriError;

    /// A path or a PKCS#11 URI.
    fn from_str(text: &str) -> Result<Self, UriError> {
        match Pkcs11Uri::is_one(text) {
            true => Ok(Self::Token(text.parse()?)),
            false => Ok(Self::File(text.into())),
        }
    }
}

/// Opens the keys in tokens; each is tested periodically from now on.
///
/// # Errors
/// The first that does not sign.
pub async fn open(given: &[KeySource], limits: Limits) -> Result<Vec<Source>, ReadError> {
    let mut sources = Vec::new();
    for (at, source) in given.iter().enumerate() {
        sources.push(match source {
            KeySource::File(path) => Source::File(path.clone()),
            KeySource::Token(uri) => {
                let opened = TokenKey::open(uri.clone(), limits).await;
                let key = opened.map_err(|source| ReadError::Token { nth: at + 1, source })?;
                tracing::info!(
                    kid = key.public().kid(),
                    alg = key.public().algorithm().name(),
                    "a token signs with this key"
                );
                tokio::spawn(pkcs11::tend(Arc::downgrade(&key)));
                Source::Token(Arc::new(SigningKey::from_token(key)))
            }
        });
    }
    Ok(sources)
}

/// The texts of all files, and all keys.
pub async fn read(sources: &[Source]) -> Result<(Vec<String>, Vec<Arc<SigningKey>>), ReadError> {
    let (mut texts, mut keys) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            Source::Token(key) => keys.push(Arc::clone(key)),
            Source::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|source| ReadError::Read { path: path.clone(), source })?;
                keys.push(Arc::new(key(path, &text)?));
                texts.push(text);
            }
        }
    }
    Ok((texts, keys))
}

fn key(path: &Path, text: &str) -> Result<SigningKey, ReadError> {
    SigningKey::from_pem(text).map_err(|source| ReadError::Key { path: path.to_path_buf(), source })
}

/// Runs as long as `signing` is in use elsewhere.
pub async fn watch(signing: Arc<Signing>, sources: Vec<Source>, mut texts: Vec<String>) {
    let mut said = String::new();
    loop {
        sleep(PAUSE).await;
        if Arc::strong_count(&signing) == 1 {
            return;
        }
        match read(&sources).await {
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
                    tracing::error!(%error, "the signing keys are unchanged");
                    said = error;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_as_a_uri_is_never_shown_as_a_path() {
        assert_eq!(KeySource::from_str("/etc/key.pem"), Ok(KeySource::File("/etc/key.pem".into())));
        let uri = "pkcs11:object=a?module-path=/m.so&pin-source=/p";
        assert!(matches!(KeySource::from_str(uri), Ok(KeySource::Token(_))));
        // Environment files of containers leave such spaces.
        for text in [format!("\"{uri}&pin-value=12345678\""), format!(" {uri}"), format!("'{uri}'")] {
            let error = KeySource::from_str(&text).unwrap_err().to_string();
            assert!(error.contains("`pkcs11:`") && !error.contains("12345678"), "{text} gave {error}");
        }
    }
}
