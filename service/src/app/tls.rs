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
const PAUSE: Duration = Duration::from_secs(5);

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

/// What new connections of a listener use: a new one each time the files have changed, or others are named.
#[derive(Debug)]
pub struct ListenerConfig {
    listener: Listener,
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

impl ListenerTls {
    /// # Errors
    /// The file that cannot be used.
    pub fn config(&self, listener: Listener) -> Result<ServerConfig, TlsError> {
        let pair = |source| TlsError::Pair { listener, source };
        let authority = |why: String| TlsError::ClientCa { listener, why };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
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
        let mut config = builder.with_single_cert(certificates(&self.certificate)?, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Sends a new configuration each time the files have changed, until the receiver is gone.
    async fn watch(self, listener: Listener, say: Arc<watch::Sender<Arc<ServerConfig>>>) {
        let mut read = self.texts().await;
        loop {
            tokio::select! {
                () = say.closed() => return,
                () = sleep(PAUSE) => {}
            }
            let found = self.texts().await;
            if found == read {
                continue;
            }
            match self.config(listener) {
                Ok(config) => {
                    tracing::info!(%listener, "the certificate files have changed");
                    say.send_replace(Arc::new(config));
                }
                Err(error) => tracing::error!(%error, %listener, "the certificates are unchanged"),
            }
            read = found;
        }
    }

    async fn texts(&self) -> Vec<Option<Vec<u8>>> {
        let mut texts = Vec::new();
        for path in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            texts.push(tokio::fs::read(path).await.ok());
        }
        texts
    }
}

impl ListenerConfig {
    /// # Errors
    /// The file that cannot be used.
    pub fn of(files: ListenerTls, listener: Listener) -> Result<Self, TlsError> {
        let (say, hear) = watch::channel(Arc::new(files.config(listener)?));
        let say = Arc::new(say);
        let watching = tokio::spawn(files.watch(listener, Arc::clone(&say)));
        Ok(Self { listener, say, hear, watching })
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.hear.clone()
    }

    /// `config` is what was read from these files.
    pub fn replace(&mut self, files: ListenerTls, config: ServerConfig) {
        self.watching.abort();
        self.say.send_replace(Arc::new(config));
        self.watching = tokio::spawn(files.watch(self.listener, Arc::clone(&self.say)));
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(TlsError::Read { path: path.to_path_buf(), why: "there is no certificate in it".into() });
    }
    Ok(found)
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Read { path: path.to_path_buf(), why: error.to_string() }
}
