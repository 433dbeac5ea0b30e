//! The options about callers of the admin listener.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values;
use crate::app::tls::ListenerTls;
use crate::http::admin::CertificateCallers;

#[derive(Clone, Args)]
#[command(next_help_heading = "Admin listener")]
pub struct AdminOptions {
    /// The admin listener's certificate and its chain (PEM). It turns on TLS. Read again when it changes.
    #[arg(long, env = "PORTCULLIS_ADMIN_TLS_CERT", value_name = "PATH", requires = "admin_tls_key")]
    pub admin_tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_ADMIN_TLS_KEY", value_name = "PATH", requires = "admin_tls_cert")]
    pub admin_tls_key: Option<PathBuf>,
    /// The CA of callers' certificates (PEM). A caller with a valid one needs no admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_CLIENT_CA", value_name = "PATH", requires = "admin_tls_cert")]
    pub admin_client_ca: Option<PathBuf>,
    /// A name that may call by certificate: a DNS name, URI or mail address of its subjectAltName, or `CN=…`.
    /// Repeatable. Default: every name that the CA signed.
    #[arg(
        long = "admin-client-name",
        env = "PORTCULLIS_ADMIN_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "admin_client_ca"
    )]
    pub admin_client_names: Vec<String>,
    /// Refuse callers without a certificate, also those with the admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_REQUIRE_CERTIFICATE", requires = "admin_client_ca")]
    pub admin_require_certificate: bool,
    /// Serve the operator's page at /operator/ on --admin-listen: users, sessions, revocations, audit entries and health, in a
    /// browser. It calls the admin API as the signed-in operator. docs/operator-page.md describes it.
    #[arg(long, env = "PORTCULLIS_OPERATOR_PAGE")]
    pub operator_page: bool,
    /// Requests per second of one caller; more get 429.
    #[arg(long, env = "PORTCULLIS_ADMIN_RATE", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub admin_rate: u32,
    /// How long audit entries are kept.
    #[arg(long, env = "PORTCULLIS_AUDIT_RETENTION", value_name = "TIME", default_value = "90d", value_parser = values::duration)]
    pub audit_retention: Duration,
}

impl AdminOptions {
    /// `None`: the admin listener speaks plain HTTP.
    pub fn tls(&self) -> Option<ListenerTls> {
        Some(ListenerTls {
            certificate: self.admin_tls_cert.clone()?,
            key: self.admin_tls_key.clone()?,
            client_ca: self.admin_client_ca.clone(),
        })
    }

    pub fn certificate_callers(&self) -> Option<CertificateCallers> {
        self.admin_tls_cert.as_ref()?;
        Some(CertificateCallers { names: self.admin_client_names.clone(), required: self.admin_require_certificate })
    }
}
