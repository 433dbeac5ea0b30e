//! The certificates of servers that are reached over TLS. They are read whether they are trusted or not; whether they are,
//! the requests to these servers show.
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::finding::{Finding, Report, Severity};
use super::machine;
use crate::instant::date;

const WAIT: Duration = Duration::from_secs(5);
const DAY: i64 = 86_400;

/// `url`: https:// or rediss://. `soon`: how long before its end a certificate is a warning.
pub fn look(report: &mut Report, url: &str, soon: Duration) {
    let Some((scheme, rest)) = url.split_once("://") else { return };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let port = if scheme == "rediss" { 6379 } else { 443 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, digits.parse().unwrap_or(port))
        }
        _ => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match chain(host, port) {
        Ok(chain) => {
            for (position, certificate) in chain.iter().enumerate() {
                let whose =
                    if position == 0 { format!("{host}:{port}") } else { format!("{host}:{port}, CA {position}") };
                if let Ok((_, certificate)) = X509Certificate::from_der(certificate) {
                    expiry(report, &whose, certificate.validity().not_after.timestamp(), soon);
                }
            }
        }
        Err(why) => report.skipped("certificates", format!("{host}:{port}: {why}")),
    }
}

/// `ends`: Unix seconds.
pub fn expiry(report: &mut Report, whose: &str, ends: i64, soon: Duration) {
    let left = ends.saturating_sub(machine::millis() / 1000);
    let when = date(u64::try_from(ends).unwrap_or_default());
    if left > i64::try_from(soon.as_secs()).unwrap_or(i64::MAX) {
        return report.passed("certificates", format!("{whose}: until {when}, for {} more days", left / DAY));
    }
    let (severity, what) = match left {
        ..=0 => (Severity::Error, format!("the certificate of {whose} expired at {when}")),
        _ => (Severity::Warning, format!("the certificate of {whose} expires at {when}, in {} h", left / 3600)),
    };
    report.found(Finding {
        name: "certificate_expiry",
        severity,
        what,
        why: "peers refuse an expired certificate: checks fail, and requests get 503",
        mend: "renew it; the service and Envoy's SDS read a new file without a restart".to_owned(),
        link: "docs/operations.md#the-doctor".to_owned(),
    });
}

fn chain(host: &str, port: u16) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let address = (host, port).to_socket_addrs().map_err(|error| text(&error))?.next().ok_or("no address")?;
    let mut tcp = TcpStream::connect_timeout(&address, WAIT).map_err(|error| text(&error))?;
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&tcp, Some(WAIT)).map_err(|error| text(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Seen { chain: Mutex::default(), provider: Arc::clone(&provider) });
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&seen) as _;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| text(&error))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|error| text(&error))?;
    let shook: io::Result<()> = (|| {
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(())
    })();
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    match shook {
        // A server may require a client certificate, after it has shown its own.
        _ if !chain.is_empty() => Ok(chain),
        Ok(()) => Err("it has shown no certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Accepts every certificate, and keeps it. No data is sent over such a connection.
#[derive(Debug)]
struct Seen {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|one| one.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
