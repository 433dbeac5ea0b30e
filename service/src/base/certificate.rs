//! The names in a client's certificate.
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// In the extensions of each request of a client that proved to have this certificate: its names.
#[derive(Debug, Clone)]
pub struct Certificate(pub Arc<[String]>);

impl Certificate {
    pub fn of(der: &CertificateDer<'_>) -> Self {
        Self(names(der).into())
    }
}

/// Every name of a certificate that was verified: subjectAltName first, `CN=…` last.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
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
