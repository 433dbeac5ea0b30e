//! The HTTP client for requests to one provider: its TLS, its time limit, and no redirects.
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::providers::{Provider, ProvidersError};

/// The most of an error about an answer that is logged, in characters: it can repeat what was sent.
const MAX_ERROR: usize = 200;

/// An error about an answer, for the log.
pub fn bounded(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_repeat_an_answer_of_any_length() {
        let answer = format!("{:?}", "ä".repeat(1_000_000));
        let error = serde_json::from_str::<Vec<u8>>(&answer).unwrap_err();
        assert!(error.to_string().len() > 1_000_000);
        let said = bounded(error);
        assert!(said.starts_with("invalid type: string") && said.ends_with("ä..."), "{said}");
        assert_eq!(said.chars().count(), MAX_ERROR + 3);
        assert_eq!(bounded("short"), "short");
    }
}
