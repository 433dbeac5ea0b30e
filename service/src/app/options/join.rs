//! The options about other regions.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wire::Secret;

use super::{OptionsError, secret_files, values};
use crate::domain::regions::{Peer, PeerError, PeerTls};

#[derive(Clone, Args)]
#[command(next_help_heading = "Regions")]
pub struct JoinOptions {
    /// Another region: the URL in front of its services' --listen, for example https://eu.example.com. Its revocations are
    /// followed and merged into our store. Repeat it for each other region. docs/regions.md says what it promises.
    #[arg(
        long = "join",
        env = "PORTCULLIS_JOIN",
        value_name = "URL",
        value_delimiter = ',',
        requires = "join_secret_files"
    )]
    pub join: Vec<String>,
    /// A file with a secret that the services of all regions share and no filter has, at least 32 bytes. With it, other
    /// regions may follow this one at POST /v1/join of --listen. Repeat it during a rotation; requests are made with the
    /// first.
    #[arg(long = "join-secret-file", env = "PORTCULLIS_JOIN_SECRET_FILES", value_name = "PATH", value_delimiter = ',')]
    pub join_secret_files: Vec<PathBuf>,
    /// The CA of the other regions' certificates (PEM). Default: the CAs of the web.
    #[arg(long, env = "PORTCULLIS_JOIN_CA", value_name = "PATH", requires = "join")]
    pub join_ca: Option<PathBuf>,
    /// Our client certificate for other regions and its chain (PEM), if they require one.
    #[arg(long, env = "PORTCULLIS_JOIN_CERT", value_name = "PATH", requires = "join_key")]
    pub join_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_JOIN_KEY", value_name = "PATH", requires = "join_cert")]
    pub join_key: Option<PathBuf>,
    /// How often all revocations of each other region are compared with ours. They are compared after each outage too.
    #[arg(long, env = "PORTCULLIS_JOIN_COMPARE", value_name = "TIME", default_value = "10m", value_parser = values::compare)]
    pub join_compare: Duration,
}

impl JoinOptions {
    /// # Errors
    /// A file that cannot be used.
    pub fn secrets(&self) -> Result<Vec<Secret>, OptionsError> {
        secret_files::read_secrets("join-secret-file", &self.join_secret_files)
    }

    /// The other regions, to be asked with this secret.
    ///
    /// # Errors
    /// A URL or a file that cannot be used.
    pub fn peers(&self, secret: &Secret) -> Result<Vec<Peer>, PeerError> {
        let tls = PeerTls { ca: self.join_ca.clone(), certificate: self.join_cert.clone().zip(self.join_key.clone()) };
        Peer::all(&self.join, &tls, &secret.derive())
    }
}
