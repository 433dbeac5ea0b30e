//! The HTTP client for requests to one provider: its TLS, its time limit, and no redirects.
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::providers::{Provider, ProvidersError};

/// `limit`: for one request and its answer.
///
/// # Errors
/// The CA file cannot be used.
pub fn new(provider: &Provider, limit: Duration) -> Result<Agent, ProvidersError> {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(roots(provider)?);
    let config = Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        // A redirect could lead to a place that keys and events must not come from, and a bearer token must not go to.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls.build());
    Ok(Agent::new_with_config(config.build()))
}

fn roots(provider: &Provider) -> Result<RootCerts, ProvidersError> {
    let Some(file) = &provider.ca_file else { return Ok(RootCerts::WebPki) };
    let wrong = |message: String| ProvidersError::new("ca_file", message);
    let text = std::fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(wrong(format!("is not PEM: {error}"))),
        }
    }
    match certificates.is_empty() {
        true => Err(wrong("has no certificate".into())),
        false => Ok(RootCerts::from(certificates)),
    }
}
