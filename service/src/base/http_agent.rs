//! The HTTP client for requests to others: its TLS, its proxy, its time limit, its bearer token, and no redirects.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, RequestBuilder};

/// The most of an error about an answer that is logged, in characters: it can repeat what was sent.
const MAX_ERROR: usize = 200;
/// The longest bearer token, in bytes.
const MAX_BEARER: usize = 16 * 1024;

/// A client. Requests to `https://` go through the proxy of the environment (`ALL_PROXY`, `HTTPS_PROXY` or `HTTP_PROXY`, apart from
/// the hosts in `NO_PROXY`), which sees the host and no content. Requests to `http://` never do: the proxy would see their content, and
/// most of them are for this host.
#[derive(Debug, Clone)]
pub struct HttpAgent {
    proxied: Agent,
    direct: Agent,
    /// The digest of the CA file.
    roots: Option<[u8; 32]>,
}

impl HttpAgent {
    /// `limit`: for one request and its answer. Without `ca_file` the CAs of the web count.
    ///
    /// # Errors
    /// Why the CA file cannot be used.
    pub fn new(ca_file: Option<&Path>, limit: Duration) -> Result<Self, String> {
        let text = ca_file.map(std::fs::read).transpose().map_err(|error| format!("cannot be read: {error}"))?;
        let roots = text.as_deref().map_or(Ok(RootCerts::WebPki), roots)?;
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(roots)
            .build();
        let config = || {
            Agent::config_builder()
                .timeout_global(Some(limit))
                .http_status_as_error(false)
                // A redirect could lead to a place that keys and events must not come from, and a bearer token must not go to.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .tls_config(tls.clone())
        };
        Ok(Self {
            proxied: Agent::new_with_config(config().build()),
            direct: Agent::new_with_config(config().proxy(None).build()),
            roots: text.and_then(|text| digest(&SHA256, &text).as_ref().try_into().ok()),
        })
    }

    pub fn get(&self, url: &str) -> RequestBuilder<WithoutBody> {
        self.of(url).get(url)
    }

    pub fn post(&self, url: &str) -> RequestBuilder<WithBody> {
        self.of(url).post(url)
    }

    /// Whether both trust the same CAs.
    pub fn has_same_roots(&self, other: &Self) -> bool {
        self.roots == other.roots
    }

    fn of(&self, url: &str) -> &Agent {
        match url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https")) {
            true => &self.proxied,
            false => &self.direct,
        }
    }
}

/// A URL for the log: its query may be a secret.
pub fn without_query(url: &str) -> &str {
    url.split_once(['?', '#']).map_or(url, |(url, _)| url)
}

/// An error about an answer, for the log.
pub fn bounded(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The bearer token (RFC 6750) in a file.
///
/// # Errors
/// Why there is none, without its content.
pub fn bearer(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let token = text.trim_ascii();
    match token.len() {
        0 => Err("is empty".into()),
        1..=MAX_BEARER if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.to_owned()),
        _ => Err("must have one token of printable ASCII".into()),
    }
}

/// Does the URL begin with `https://`, or lead to this host?
pub fn is_protected(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let is_here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    uri.host().is_some() && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_here))
}

fn roots(text: &[u8]) -> Result<RootCerts, String> {
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("is not PEM: {error}")),
        }
    }
    match certificates.is_empty() {
        true => Err("has no certificate".into()),
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

    #[test]
    fn a_request_in_clear_goes_through_no_proxy() {
        let agent = HttpAgent::new(None, Duration::from_secs(1)).unwrap();
        let is_direct = |url: &str| std::ptr::eq(agent.of(url), &raw const agent.direct);
        assert!(agent.direct.config().proxy().is_none());
        assert!(is_direct("http://localhost:1/jwks") && is_direct("HTTP://localhost/") && is_direct("no url"));
        assert!(!is_direct("https://siem.example/") && !is_direct("HTTPS://siem.example/"));
    }

    #[test]
    fn a_secret_in_a_query_stays_out_of_the_log() {
        for url in ["https://siem.example/a", "https://siem.example/a?token=secret", "https://siem.example/a#b?c"] {
            assert_eq!(without_query(url), "https://siem.example/a");
        }
    }

    #[test]
    fn what_is_not_encrypted_stays_on_this_host() {
        for url in ["https://siem.example/events", "http://localhost:1/", "http://127.0.0.1/x", "http://[::1]:8/"] {
            assert!(is_protected(url), "{url}");
        }
        for url in ["", "siem", "http://siem.example/", "ftp://localhost/", "http://localhost.example/", "https://"] {
            assert!(!is_protected(url), "{url}");
        }
    }
}
