//! URIs of requests in one form: RFC 9449 section 4.3 compares `htu` after the normalisation of RFC 3986 sections 6.2.2
//! and 6.2.3, without query and fragment.
use std::fmt;
use std::net::Ipv6Addr;

/// Scheme and authority of requests, normalised: `https://api.example`, `http://[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    text: String,
    host: std::ops::Range<usize>,
}

/// An absolute `http` or `https` URI, normalised, without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUri(String);

impl Origin {
    /// `scheme://host[:port]`, with nothing behind it but perhaps one slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (origin, path) = split(text)?;
        matches!(path, "" | "/").then_some(origin)
    }

    /// Without its port.
    pub fn host(&self) -> &str {
        self.text.get(self.host.clone()).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TargetUri {
    /// `None` if it is not an absolute URI of HTTP, or has user information.
    pub fn parse(text: &str) -> Option<Self> {
        let (origin, rest) = split(text)?;
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        Self::new(&origin, path)
    }

    /// The URI of a request: `path` is as in its request line, with or without query. `None` if it has bytes that no URI
    /// has.
    pub fn new(origin: &Origin, path: &str) -> Option<Self> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut uri = origin.text.clone();
        uri.push_str(&normalise_path(path)?);
        Some(Self(uri))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The origin, and what follows it: nothing, or from the first `/`, `?` or `#`.
fn split(text: &str) -> Option<(Origin, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = match scheme {
        scheme if scheme.eq_ignore_ascii_case("https") => "https",
        scheme if scheme.eq_ignore_ascii_case("http") => "http",
        _ => return None,
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets is part of an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let host = normalise_host(host)?;
    let mut origin = format!("{scheme}://");
    let start = origin.len();
    origin.push_str(&host);
    let host = start..origin.len();
    let port = normalise_port(port)?;
    if let Some(port) = port.filter(|port| !matches!((scheme, port), ("https", 443) | ("http", 80))) {
        origin.push_str(&format!(":{port}"));
    }
    Some((Origin { text: origin, host }, rest))
}

/// An empty port is the scheme's own (RFC 3986 section 6.2.3).
fn normalise_port(port: &str) -> Option<Option<u16>> {
    if port.is_empty() {
        return Some(None);
    }
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    port.parse().ok().filter(|_| is_plain).map(Some)
}

/// In lower case, with unreserved characters decoded. A name with anything but letters, digits, `-`, `_` and single dots
/// within is refused: no host is named so, and `@` would begin another one.
fn normalise_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let host = decode_unreserved(host)?.to_ascii_lowercase();
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    host.split('.').all(is_label).then_some(host)
}

/// RFC 3986 sections 6.2.2.1 to 6.2.2.3; an empty path is `/` (section 6.2.3).
fn normalise_path(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("/".to_owned());
    }
    let path = decode_unreserved(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    Some(format!("/{}", kept.join("/")))
}

/// Decodes encoded unreserved characters, and writes other encodings in upper case. `None` for a `%` that begins no
/// encoding, and for bytes that no URI has.
fn decode_unreserved(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                let byte = high.checked_shl(4)? | low;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
            0..=b' ' | b'\\' | 0x7f.. => return None,
            byte => out.push(char::from(byte)),
        }
    }
    Some(out)
}
