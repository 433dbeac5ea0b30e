//! Compares a token's binding with the client: address, certificate, user agent.
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use super::Fingerprint;
use crate::reject::Cause;
use crate::request::hex;

/// Envoy's `source.address`: `1.2.3.4:5678`, `[::1]:5678`. None for anything else, for example a Unix socket's path.
pub fn client_address(property: &[u8]) -> Option<IpAddr> {
    let address: SocketAddr = std::str::from_utf8(property).ok()?.parse().ok()?;
    Some(address.ip().to_canonical())
}

/// `cnf."x5t#S256"` (RFC 8705 section 3.1: base64url of the SHA-256 of the certificate's DER) against Envoy's
/// `connection.sha256_peer_certificate_digest` (the same in hexadecimal; empty without a certificate).
pub fn certificate_matches(claim: &str, peer_digest: &[u8]) -> Result<(), Cause> {
    if peer_digest.is_empty() {
        return Err(Cause::NoClientCertificate);
    }
    let presented = parse_hex(peer_digest).ok_or(Cause::CertificateUnreadable)?;
    let expected = parse_thumbprint(claim).ok_or(Cause::ThumbprintUnreadable)?;
    if bool::from(expected.ct_eq(&presented)) { Ok(()) } else { Err(Cause::OtherCertificate) }
}

/// A claim with the base64url fingerprint of the User-Agent's bytes.
pub fn user_agent_matches(claim: &str, user_agent: Option<&[u8]>, by: &Fingerprint) -> Result<(), Cause> {
    let user_agent = user_agent.ok_or(Cause::NoUserAgent)?;
    let expected = parse_thumbprint(claim).ok_or(Cause::ThumbprintUnreadable)?;
    let presented = by.of(user_agent);
    if bool::from(expected.ct_eq(&presented)) { Ok(()) } else { Err(Cause::OtherUserAgent) }
}

pub fn parse_thumbprint(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    // 43 characters are 32 bytes and two bits, which must be zero: base64 checks that.
    (text.len() == 43 && URL_SAFE_NO_PAD.decode_slice(text, &mut digest) == Ok(32)).then_some(digest)
}

fn parse_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = hex::byte(high, low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
