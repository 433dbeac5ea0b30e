//! TLS on the admin listener, and who a client's certificate says that it is.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::time::sleep;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// How often the files are looked at.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct AdminTls {
    /// The chain in PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs certificates of callers; none are asked for, without.
    pub client_ca: Option<PathBuf>,
    /// The names of callers: DNS names, URIs and mail addresses of the certificate's subjectAltName, or `CN=…`. Whoever
    /// the authority signed for, if empty.
    pub client_names: Vec<String>,
    /// The bearer secret alone is not enough.
    pub require_certificate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {why}")]
    Read { path: PathBuf, why: String },
    #[error("the certificate and key of the admin listener cannot be used: {0}")]
    Pair(rustls::Error),
    #[error("the authority of clients cannot be used: {0}")]
    ClientCa(String),
}

impl AdminTls {
    /// The one of a certificate's `names` by which it may call.
    pub fn allowed<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let mut known = names.iter().filter(|name| self.client_names.is_empty() || self.client_names.contains(name));
        known.next().map(String::as_str)
    }

    /// # Errors
    /// The file that cannot be used.
    pub fn config(&self) -> Result<ServerConfig, TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
                    roots.add(root).map_err(|error| TlsError::ClientCa(error.to_string()))?;
                }
                // Who comes without one is told 401 where one is needed, and may still ask for /healthz.
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::ClientCa(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(certificates(&self.certificate)?, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Gives a new configuration whenever the files have changed, until nobody wants one.
    pub async fn watch(self, say: watch::Sender<Arc<ServerConfig>>) {
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
            match self.config() {
                Ok(config) => {
                    tracing::info!("the admin listener's certificate files have changed");
                    say.send_replace(Arc::new(config));
                }
                Err(error) => tracing::error!(%error, "the admin listener keeps its certificates"),
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

/// Every name of a certificate that was verified: subjectAltName first, `CN=…` last.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
                    names.push((*name).to_owned());
                }
                _ => {}
            }
        }
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common.map(|name| format!("CN={name}")));
    names
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
