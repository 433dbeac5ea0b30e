//! Whether a client is the one that a token is bound to. Which claim says so, and what a mismatch means, is for the rule.
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::reject::Cause;
use crate::request::hex;

/// Envoy's `source.address`: `1.2.3.4:5678`, `[::1]:5678`. None for anything else, a Unix socket's path for one.
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

/// A claim that holds the base64url SHA-256 of the User-Agent's bytes.
pub fn user_agent_matches(claim: &str, user_agent: Option<&[u8]>) -> Result<(), Cause> {
    let user_agent = user_agent.ok_or(Cause::NoUserAgent)?;
    let expected = parse_thumbprint(claim).ok_or(Cause::ThumbprintUnreadable)?;
    let presented: [u8; 32] = Sha256::digest(user_agent).into();
    if bool::from(expected.ct_eq(&presented)) { Ok(()) } else { Err(Cause::OtherUserAgent) }
}

fn parse_thumbprint(text: &str) -> Option<[u8; 32]> {
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
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_the_hosts_address_property() {
        assert_eq!(client_address(b"1.2.3.4:5678"), Some(ip("1.2.3.4")));
        assert_eq!(client_address(b"[::1]:5678"), Some(ip("::1")));
        assert_eq!(client_address(b"[::ffff:1.2.3.4]:5678"), Some(ip("1.2.3.4")));
        for other in [&b""[..], b"1.2.3.4", b"::1", b"/var/run/x.sock", b"1.2.3.4:99999", b"\xff", b"@abstract"] {
            assert_eq!(client_address(other), None, "{other:?}");
        }
    }

    const HEX: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const THUMBPRINT: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn the_certificate_of_the_claim_is_accepted_in_either_case_of_hexadecimal() {
        assert_eq!(certificate_matches(THUMBPRINT, HEX), Ok(()));
        assert_eq!(certificate_matches(THUMBPRINT, &HEX.to_ascii_uppercase()), Ok(()));
    }

    #[test]
    fn another_certificate_or_none_is_refused() {
        let mut other = HEX.to_vec();
        other[63] = b'4';
        assert!(certificate_matches(THUMBPRINT, &other).is_err());
        for digest in [&b""[..], &HEX[..62], &HEX[1..], b"zz"] {
            assert!(certificate_matches(THUMBPRINT, digest).is_err());
        }
        let mut sign = HEX.to_vec();
        sign[0] = b'+';
        assert!(certificate_matches(THUMBPRINT, &sign).is_err());
    }

    #[test]
    fn a_thumbprint_has_one_spelling() {
        let padded = format!("{THUMBPRINT}=");
        let loose_bits = THUMBPRINT.replace("SuFU", "SuFV");
        let standard_alphabet = THUMBPRINT.replace('-', "+").replace('_', "/");
        for claim in ["", "47DE", &padded, &loose_bits, &standard_alphabet] {
            assert!(certificate_matches(claim, HEX).is_err(), "{claim}");
        }
    }

    #[test]
    fn the_user_agent_is_compared_by_its_digest() {
        assert_eq!(user_agent_matches(THUMBPRINT, Some(b"")), Ok(()));
        assert!(user_agent_matches(THUMBPRINT, Some(b" ")).is_err());
        assert!(user_agent_matches(THUMBPRINT, None).is_err());
        assert!(user_agent_matches("", Some(b"")).is_err());
    }
}
