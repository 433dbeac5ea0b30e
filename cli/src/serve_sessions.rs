//! The options of `portcullis serve` for sessions and for the callers of the admin listener.
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use service::{AdminTls, KeySource, ListenerTls, SessionOptions};
use wire::{Secret, parse_duration};

use crate::serve::read;

#[derive(Args)]
#[command(next_help_heading = "Admin listener")]
pub struct AdminArgs {
    /// The admin listener's certificate and its chain (PEM). It turns on TLS. Read again when it changes.
    #[arg(long, env = "PORTCULLIS_ADMIN_TLS_CERT", value_name = "PATH", requires = "admin_tls_key")]
    admin_tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_ADMIN_TLS_KEY", value_name = "PATH", requires = "admin_tls_cert")]
    admin_tls_key: Option<PathBuf>,
    /// The CA of callers' certificates (PEM). A caller with a valid one needs no admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_CLIENT_CA", value_name = "PATH", requires = "admin_tls_cert")]
    admin_client_ca: Option<PathBuf>,
    /// A name that may call by certificate: a DNS name, URI or mail address of its subjectAltName, or `CN=…`.
    /// Repeatable. Default: every name that the CA signed.
    #[arg(
        long = "admin-client-name",
        env = "PORTCULLIS_ADMIN_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "admin_client_ca"
    )]
    admin_client_names: Vec<String>,
    /// Refuse callers without a certificate, also those with the admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_REQUIRE_CERTIFICATE", requires = "admin_client_ca")]
    admin_require_certificate: bool,
    /// Requests per second of one caller; more get 429.
    #[arg(long, env = "PORTCULLIS_ADMIN_RATE", value_name = "N", default_value_t = 200)]
    pub admin_rate: u32,
    /// How long audit entries are kept.
    #[arg(long, env = "PORTCULLIS_AUDIT_RETENTION", value_name = "TIME", default_value = "90d", value_parser = parse_duration)]
    pub audit_retention: Duration,
}

#[derive(Args)]
#[command(next_help_heading = "Sessions")]
pub struct SessionArgs {
    /// Issue sessions, whose tokens have this `iss`. Without it the service only keeps revocations.
    #[arg(long, env = "PORTCULLIS_SESSION_ISSUER", value_name = "URL")]
    session_issuer: Option<String>,
    /// The default `aud` of tokens. Repeatable.
    #[arg(
        long = "session-audience",
        env = "PORTCULLIS_SESSION_AUDIENCES",
        value_name = "AUD",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    session_audiences: Vec<String>,
    /// The default time from login to the end of a session; at most --max-lifetime.
    #[arg(long, env = "PORTCULLIS_SESSION_LIFETIME", value_name = "TIME", default_value = "12h", value_parser = parse_duration)]
    session_lifetime: Duration,
    /// The default lifetime of an access token of a session with a refresh token.
    #[arg(long, env = "PORTCULLIS_ACCESS_LIFETIME", value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    access_lifetime: Duration,
    /// During this time after a refresh, the replaced token gets an error that it lost a race. After that its use ends
    /// the session.
    #[arg(long, env = "PORTCULLIS_REFRESH_GRACE", value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    refresh_grace: Duration,
    /// A key for sessions with JWTs: RSA signs RS256, P-256 ES256, Ed25519 EdDSA. Either a file, PKCS#8 in PEM, read
    /// again when it changes; or a key in an HSM, by its PKCS#11 URI (RFC 7512):
    /// pkcs11:token=T;object=K?module-path=/….so&pin-source=file:/… . Repeatable: the first signs, all are published.
    #[arg(
        long = "signing-key",
        env = "PORTCULLIS_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "PATH|URI",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    signing_keys: Vec<String>,
    /// Open sessions of each key in an HSM, which is the number of concurrent signatures. 64 more requests wait,
    /// further ones get 503.
    #[arg(long, env = "PORTCULLIS_SIGNING_SESSIONS", value_name = "N", default_value_t = 4)]
    signing_sessions: usize,
    /// The longest time for a signature of an HSM; after that the caller gets 503. At most 4s.
    #[arg(long, env = "PORTCULLIS_SIGNING_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    signing_timeout: Duration,
    /// A JSON file with the clients that may introspect, refresh and revoke. Read again when it changes.
    #[arg(long, env = "PORTCULLIS_CLIENTS_FILE", value_name = "PATH", requires = "session_issuer")]
    clients_file: Option<PathBuf>,
    /// A file with a secret, at least 32 bytes, that encrypts sessions and the audit stream and authenticates tokens.
    /// Repeat it during a rotation; the first is used for new data. Default: the shared secrets, which every proxy has.
    #[arg(
        long = "session-secret-file",
        env = "PORTCULLIS_SESSION_SECRET_FILES",
        value_name = "PATH",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    session_secret_files: Vec<PathBuf>,
}

impl AdminArgs {
    pub fn tls(&self) -> Option<AdminTls> {
        Some(AdminTls {
            files: ListenerTls {
                certificate: self.admin_tls_cert.clone()?,
                key: self.admin_tls_key.clone()?,
                client_ca: self.admin_client_ca.clone(),
            },
            client_names: self.admin_client_names.clone(),
            require_certificate: self.admin_require_certificate,
        })
    }
}

impl SessionArgs {
    pub fn options(self) -> Result<Option<SessionOptions>> {
        let Some(issuer) = self.session_issuer else { return Ok(None) };
        let secrets = self.session_secret_files.iter().map(|path| {
            Secret::new(&read(path)?).with_context(|| format!("the session secret file {}", path.display()))
        });
        // Not by clap: its error message would contain the text, which may include a PIN.
        let signing_keys =
            self.signing_keys.iter().enumerate().map(|(at, text)| {
                KeySource::from_str(text).with_context(|| format!("--signing-key, the {}. one", at + 1))
            });
        Ok(Some(SessionOptions {
            signing_keys: signing_keys.collect::<Result<_>>()?,
            token_sessions: self.signing_sessions,
            token_timeout: self.signing_timeout,
            issuer,
            audience: self.session_audiences,
            lifetime: self.session_lifetime,
            access_lifetime: self.access_lifetime,
            refresh_grace: self.refresh_grace,
            clients: self.clients_file,
            secrets: secrets.collect::<Result<_>>()?,
        }))
    }
}
