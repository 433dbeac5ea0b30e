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
    assert_eq!(user_agent_matches(THUMBPRINT, Some(b""), &Fingerprint::Sha256), Ok(()));
    assert!(user_agent_matches(THUMBPRINT, Some(b" "), &Fingerprint::Sha256).is_err());
    assert!(user_agent_matches(THUMBPRINT, None, &Fingerprint::Sha256).is_err());
    assert!(user_agent_matches("", Some(b""), &Fingerprint::Sha256).is_err());
}
