//! TLS on the listeners.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How often the files are checked for changes.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// The files of a listener that speaks TLS; read again when they change.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// The chain in PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that signs client certificates. `None`: no client certificate is asked for.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// A client without a certificate, where one is asked for, gets no connection.
    Data,
    /// A client without one is answered 401 where one is needed, and may still ask for /healthz.
    Admin,
}

/// The files as they were read once, and what they make. What is watched for changes begins with the same texts, so no change
/// in between is missed.
#[derive(Debug)]
pub struct ReadTls {
    files: ListenerTls,
    listener: Listener,
    texts: Texts,
    config: Arc<ServerConfig>,
}

/// The content of a file, or why it cannot be read.
type Text = Result<Vec<u8>, String>;

#[derive(PartialEq, Eq)]
struct Texts {
    certificate: Text,
    key: Text,
    client_ca: Option<Text>,
}

/// What new connections of a listener use: a new one each time the files have changed, or others are named.
#[derive(Debug)]
pub struct ListenerConfig {
    say: Arc<watch::Sender<Arc<ServerConfig>>>,
    /// The files are watched as long as there is a receiver: also before the first listener has one.
    hear: watch::Receiver<Arc<ServerConfig>>,
    watching: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {why}")]
    Read { path: PathBuf, why: String },
    #[error("the certificate and key of the {listener} listener cannot be used: {source}")]
    Pair { listener: Listener, source: rustls::Error },
    #[error("the client CA of the {listener} listener cannot be used: {why}")]
    ClientCa { listener: Listener, why: String },
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Listener::Data => "data",
            Listener::Admin => "admin",
        })
    }
}

/// One of them is a private key.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Texts")
    }
}

impl ListenerTls {
    /// `None`: the listener does not speak TLS.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn read_all(files: Option<Self>, listener: Listener) -> Result<Option<ReadTls>, TlsError> {
        files.map(|files| files.read(listener)).transpose()
    }

    fn read(self, listener: Listener) -> Result<ReadTls, TlsError> {
        let texts = self.texts();
        let config = self.config(listener, &texts)?;
        Ok(ReadTls { files: self, listener, texts, config: Arc::new(config) })
    }

    fn config(&self, listener: Listener, texts: &Texts) -> Result<ServerConfig, TlsError> {
        let pair = |source| TlsError::Pair { listener, source };
        let authority = |why: String| TlsError::ClientCa { listener, why };
        let key = PrivateKeyDer::from_pem_slice(bytes(&self.key, &texts.key)?);
        let key = key.map_err(|error| unreadable(&self.key, &error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match self.client_ca.as_deref().zip(texts.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, text)) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path, text)? {
                    roots.add(root).map_err(|error| authority(error.to_string()))?;
                }
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match listener {
                    Listener::Data => verifier,
                    Listener::Admin => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| authority(error.to_string()))?)
            }
        };
        let chain = certificates(&self.certificate, &texts.certificate)?;
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn texts(&self) -> Texts {
        let text = |path: &PathBuf| std::fs::read(path).map_err(|error| error.to_string());
        Texts {
            certificate: text(&self.certificate),
            key: text(&self.key),
            client_ca: self.client_ca.as_ref().map(text),
        }
    }
}

impl ReadTls {
    /// Sends a new configuration each time the files differ from those that were read last, until the receiver is gone.
    async fn watch(self, say: Arc<watch::Sender<Arc<ServerConfig>>>) {
        let Self { files, listener, mut texts, .. } = self;
        loop {
            tokio::select! {
                () = say.closed() => return,
                () = sleep(PAUSE) => {}
            }
            let reading = files.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || reading.texts()).await else { continue };
            if found == texts {
                continue;
            }
            match files.config(listener, &found) {
                Ok(config) => {
                    tracing::info!(%listener, "the certificate files have changed");
                    say.send_replace(Arc::new(config));
                }
                Err(error) => tracing::error!(%error, %listener, "the certificates are unchanged"),
            }
            texts = found;
        }
    }
}

impl ListenerConfig {
    pub fn of(read: ReadTls) -> Self {
        let (say, hear) = watch::channel(Arc::clone(&read.config));
        let say = Arc::new(say);
        let watching = tokio::spawn(read.watch(Arc::clone(&say)));
        Self { say, hear, watching }
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.hear.clone()
    }

    pub fn replace(&mut self, read: ReadTls) {
        self.watching.abort();
        self.say.send_replace(Arc::clone(&read.config));
        self.watching = tokio::spawn(read.watch(Arc::clone(&self.say)));
    }
}

fn certificates(path: &Path, text: &Text) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(bytes(path, text)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(path, &error.to_string()))?;
    if found.is_empty() {
        return Err(unreadable(path, "there is no certificate in it"));
    }
    Ok(found)
}

fn bytes<'t>(path: &Path, text: &'t Text) -> Result<&'t [u8], TlsError> {
    text.as_deref().map_err(|why| unreadable(path, why))
}

fn unreadable(path: &Path, why: &str) -> TlsError {
    TlsError::Read { path: path.to_path_buf(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path) {
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
            .args(["-subj", "/CN=a", "-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(directory)
            .output();
        assert!(made.unwrap().status.success());
    }

    /// A regression: they were read once for the listener, and once more as what later changes are compared with.
    #[tokio::test]
    async fn a_change_between_the_first_reading_and_the_watch_is_not_missed() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        let files = ListenerTls {
            certificate: directory.path().join("certificate.pem"),
            key: directory.path().join("key.pem"),
            client_ca: None,
        };
        let read = ListenerTls::read_all(Some(files), Listener::Data).unwrap().unwrap();
        write(directory.path());
        let mut hear = ListenerConfig::of(read).hear;
        tokio::time::timeout(PAUSE * 100, hear.changed()).await.unwrap().unwrap();
    }
}
