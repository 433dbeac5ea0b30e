//! The host of a request, in the one form that rules compare: lower case, without port and trailing dot.
use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::reject::{Cause, Rejection};

/// A DNS name or an IPv4 address of at most 253 bytes, or an IPv6 address in brackets (in its RFC 5952 form).
#[derive(Clone, Copy)]
pub struct Host {
    bytes: [u8; MAX_HOST],
    length: usize,
}

impl Host {
    /// From `:authority`. REQUEST_MALFORMED for user information, a port that is none, or a name which no DNS host has:
    /// the backend could see another host in it than we do.
    pub fn parse(authority: &[u8]) -> Result<Self, Rejection> {
        let (host, port) = split_port(authority).map_err(Rejection::new)?;
        // An empty port is the scheme's own (RFC 3986 section 3.2.3).
        if port.is_some_and(|port| !port.is_empty() && !is_port(port)) {
            return Err(Cause::AuthorityPort.into());
        }
        Self::from_name(host).map_err(Rejection::new)
    }

    /// From a host without a port.
    pub(crate) fn from_name(name: &[u8]) -> Result<Self, Cause> {
        let mut host = Self { bytes: [0; MAX_HOST], length: 0 };
        if let [b'[', address @ .., b']'] = name {
            let address = std::str::from_utf8(address).ok().and_then(|address| address.parse::<Ipv6Addr>().ok());
            let address = address.ok_or(Cause::HostNotIpv6)?;
            let mut rest = host.bytes.as_mut_slice();
            write!(rest, "[{address}]").map_err(|_| Cause::HostTooLong)?;
            host.length = MAX_HOST.saturating_sub(rest.len());
            return Ok(host);
        }
        let name = name.strip_suffix(b".").unwrap_or(name);
        let place = host.bytes.get_mut(..name.len()).ok_or(Cause::HostTooLong)?;
        let mut last = b'.';
        for (to, from) in place.iter_mut().zip(name) {
            match from {
                b'.' if last == b'.' => return Err(Cause::HostEmpty),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => *to = from.to_ascii_lowercase(),
                _ => return Err(Cause::HostCharacters),
            }
            last = *from;
        }
        if last == b'.' {
            return Err(Cause::HostEmpty);
        }
        host.length = name.len();
        if ends_in_number(host.as_bytes()) && !host.is_v4() {
            return Err(Cause::HostOddNumber);
        }
        Ok(host)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Is it an address? One has no names below it.
    pub(crate) fn is_address(&self) -> bool {
        self.as_bytes().first() == Some(&b'[') || self.is_v4()
    }

    /// Four decimal numbers up to 255, without leading zeros.
    fn is_v4(&self) -> bool {
        std::str::from_utf8(self.as_bytes()).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.as_bytes().escape_ascii())
    }
}

/// Host and port of `host[:port]`, brackets kept; neither is judged.
pub(crate) fn split_port(authority: &[u8]) -> Result<(&[u8], Option<&[u8]>), Cause> {
    if authority.contains(&b'@') {
        return Err(Cause::AuthorityUserInformation);
    }
    let from = match authority.first() {
        Some(b'[') => authority.iter().position(|byte| *byte == b']').ok_or(Cause::AuthorityBracket)?,
        _ => 0,
    };
    let colon = authority.iter().skip(from).position(|byte| *byte == b':').map(|at| at.saturating_add(from));
    Ok(match colon.and_then(|colon| authority.split_at_checked(colon)) {
        Some((host, port)) => (host, port.get(1..)),
        None => (authority, None),
    })
}

/// The URL standard, "ends in a number": many readers take such a host for an IPv4 address, in other forms than four decimal
/// numbers too (`127.1`, `2130706433`, `0x7f.1`, `017700000001`). No name in the DNS ends so, since there is no such
/// top-level domain.
fn ends_in_number(name: &[u8]) -> bool {
    let last = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    match last {
        [b'0', b'x', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

fn is_port(port: &[u8]) -> bool {
    let number = std::str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok());
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && number.is_some()
}

/// RFC 1035 section 2.3.4, as text and without the last dot.
const MAX_HOST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::RejectReason;

    fn parse(authority: impl AsRef<[u8]>) -> Option<String> {
        match Host::parse(authority.as_ref()) {
            Ok(host) => Some(String::from_utf8(host.as_bytes().to_vec()).unwrap()),
            Err(rejection) => {
                assert_eq!(rejection.reason, RejectReason::RequestMalformed);
                None
            }
        }
    }

    #[test]
    fn case_port_and_one_trailing_dot_do_not_count() {
        for authority in
            ["api.example", "API.Example", "api.example:8443", "api.example.", "Api.Example.:1", "api.example:"]
        {
            assert_eq!(parse(authority).as_deref(), Some("api.example"), "{authority}");
        }
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(parse("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(parse("[2001:DB8:0:0:0:0:0:1]").as_deref(), Some("[2001:db8::1]"));
        assert_eq!(parse("10.0.0.1:80").as_deref(), Some("10.0.0.1"));
        assert!(Host::parse(b"[::1]").unwrap().is_address() && Host::parse(b"10.0.0.1").unwrap().is_address());
        assert!(!Host::parse(b"10.0.0.example").unwrap().is_address());
    }

    #[test]
    fn an_authority_that_could_name_another_host_is_refused() {
        for authority in [
            "",
            ".",
            ":80",
            "a..b",
            ".a",
            "a.example..",
            "user@api.example",
            "api.example@evil.example",
            "a.example,b.example",
            "a.example b.example",
            "a.example/b",
            "a.example\\b",
            "a.example%00",
            "a.example\0",
            "a.example#",
            "a.example?",
            "a.example:80:90",
            "a.example:http",
            "a.example:+80",
            "a.example:123456",
            "a.example:65536",
            "a.example:99999",
            "a.example:000080",
            "a.example:-1",
            "a.example: 80",
            "a.example:80 ",
            "::1",
            "[::1",
            "[::1]x",
            "[]",
            "[a.example]",
            "[fe80::1%25eth0]",
            "b\u{fc}cher.example",
            "*.example",
        ] {
            assert_eq!(parse(authority), None, "{authority:?}");
        }
    }

    #[test]
    fn an_address_of_version_4_is_four_decimal_numbers() {
        for authority in ["127.0.0.1", "0.0.0.0", "255.255.255.255:80", "10.0.0.1."] {
            assert!(parse(authority).is_some(), "{authority}");
        }
        for authority in [
            "127.1",
            "127.0.1",
            "127.0.0.1.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0x7f.0.0.0x1",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.256",
            "1.2.3.08",
            "0",
            "0.",
            "0x",
            "127.0.0.0x",
            "a.example.0x",
            "a.example.1",
            "a.example.0xff:80",
            "1",
            "999999999999",
        ] {
            assert_eq!(parse(authority), None, "{authority}");
        }
        for authority in
            ["1.example", "0x7f.example", "1a", "0xg", "127.0.0.1a", "127.0.0.1.nip.io", "a.0x1g", "-1", "x0"]
        {
            assert_eq!(parse(authority).as_deref(), Some(authority));
        }
    }

    #[test]
    fn a_name_has_at_most_253_bytes() {
        let longest = ["a"; 127].join(".");
        assert_eq!(longest.len(), 253);
        assert_eq!(parse(&longest), Some(longest.clone()));
        assert_eq!(parse(format!("{longest}.:80")), Some(longest.clone()));
        assert_eq!(parse(format!("a{longest}")), None);
    }
}
