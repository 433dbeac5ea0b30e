//! Names and values of the headers that the filter sets, and the checks that make them safe.
use std::collections::HashSet;

use crate::request::overrides;

/// The name of a header that carries identity upstream: a lower-case token (RFC 9110 section 5.1) without a meaning for
/// HTTP, Envoy or routing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(Box<str>);

impl HeaderName {
    /// Converts to lower case; the error says what is wrong with the name.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        if name.starts_with(':') {
            return Err("is a pseudo header");
        }
        if !is_token(name.as_bytes()) {
            return Err("is not a header name (RFC 9110 section 5.1)");
        }
        let name = name.to_ascii_lowercase();
        let starts_with = |prefix: &&str| name.get(..prefix.len()).is_some_and(|head| folds_to_same(head, prefix));
        if FORBIDDEN_PREFIXES.iter().any(starts_with) {
            return Err("begins like a header that Envoy or gRPC acts on");
        }
        if CONNECTION.iter().chain(FORBIDDEN).any(|forbidden| folds_to_same(&name, forbidden)) {
            return Err("has its own meaning in HTTP, and must not carry a claim");
        }
        if overrides::ALL.iter().any(|header| folds_to_same(&name, header.name)) {
            return Err("overrides the host, path, method or scheme for some backends, and must not carry a claim");
        }
        Ok(Self(name.into()))
    }

    /// A name that is only removed, never set. None if it is not a header name.
    pub(crate) fn of_request(name: &str) -> Option<Self> {
        is_token(name.as_bytes()).then(|| Self(name.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Could a backend read `other` as this header?
    ///
    /// CGI (RFC 3875 section 4.1.18) and its successors, such as WSGI, Rack and PHP, map `x-jwt-sub` and `x_jwt_sub` to
    /// `HTTP_X_JWT_SUB`, some servers also `x.jwt.sub`. So a client could add to our headers: every match is removed.
    pub fn matches_loosely(&self, other: &[u8]) -> bool {
        folds_to_same_bytes(self.as_bytes(), other)
    }
}

/// Names that each header of each request is compared with.
#[derive(Debug)]
pub struct HeaderNames {
    names: Vec<HeaderName>,
    folded: HashSet<Vec<u8>>,
    /// Whether any name has the [`Shape`]. Most headers have another one, and cost only one look-up.
    shapes: Box<[bool]>,
}

/// Many more than names: a header with a matching shape by chance costs a look-up.
const SHAPES: usize = 4096;

impl HeaderNames {
    pub fn insert(&mut self, name: HeaderName) {
        if !self.names.contains(&name) {
            self.folded.insert(name.as_bytes().iter().map(fold).collect());
            if let Some(seen) = self.shapes.get_mut(Shape::of(name.as_bytes()).0) {
                *seen = true;
            }
            self.names.push(name);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.names.iter()
    }

    /// False for most names that [`HeaderNames::has_loosely`] does not find; costs less.
    pub fn may_have(&self, shape: Shape) -> bool {
        self.shapes.get(shape.0).is_some_and(|seen| *seen)
    }

    /// Could a backend read `other` as one of these? See [`HeaderName::matches_loosely`].
    pub fn has_loosely(&self, other: &[u8]) -> bool {
        self.may_have(Shape::of(other)) && self.folded.contains(&other.iter().map(fold).collect::<Vec<u8>>())
    }
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self { names: Vec::new(), folded: HashSet::new(), shapes: vec![false; SHAPES].into() }
    }
}

/// Of length, third and last byte of a name, below `SHAPES`: the same for all names that fold to the same.
#[derive(Debug, Clone, Copy)]
pub struct Shape(usize);

impl Shape {
    pub fn of(name: &[u8]) -> Self {
        let byte = |byte: Option<&u8>| usize::from(byte.map_or(0, fold));
        let (last, third) = (byte(name.last()), byte(name.get(2)));
        let mixed = name.len().wrapping_mul(37).wrapping_add(last.wrapping_mul(11)).wrapping_add(third);
        Self(mixed & 0xfff)
    }
}

/// Bytes 0x20 to 0x7e, no space at either end: nothing that a parser on the way would trim, split or decode.
pub fn is_safe_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, 0x20..=0x7e)) && value.first() != Some(&b' ') && value.last() != Some(&b' ')
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn fold(byte: &u8) -> u8 {
    const FOLDED: [u8; 256] = folded();
    // Every byte has a place.
    FOLDED.get(usize::from(*byte)).copied().unwrap_or(b'_')
}

/// A table, since this is asked for bytes of every header.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn folded() -> [u8; 256] {
    let mut table = [b'_'; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

fn folds_to_same(one: &str, other: &str) -> bool {
    folds_to_same_bytes(one.as_bytes(), other.as_bytes())
}

fn folds_to_same_bytes(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}

/// Headers that frame the message or belong to one hop: never a source of tokens, never set.
pub(crate) const CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that others read as credentials, addresses, routes or the type of the body. A claim in one of these would
/// let the author of the claim's value act as the proxy.
const FORBIDDEN: &[&str] = &[
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "set-cookie",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

const FORBIDDEN_PREFIXES: &[&str] = &["x-envoy-", "grpc-", "sec-", "access-control-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lowered() {
        assert_eq!(HeaderName::parse("X-JWT-Sub").unwrap().as_str(), "x-jwt-sub");
    }

    #[test]
    fn refuses_what_is_no_header_name() {
        for name in ["", ":path", "a b", "a:b", "a\r\nb", "naïve", "a\0", "a(b"] {
            assert!(HeaderName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn refuses_names_that_mean_something_to_http_or_envoy_in_any_spelling() {
        for name in [
            "host",
            "Content-Length",
            "content_length",
            "transfer-encoding",
            "connection",
            "TE",
            "upgrade",
            "authorization",
            "cookie",
            "x-forwarded-for",
            "x-envoy-original-dst-host",
            "X_Envoy_Retry_On",
            "grpc-timeout",
        ] {
            assert!(HeaderName::parse(name).is_err(), "{name}");
        }
        for name in ["x-envoy", "x-user", "tenant", "x-hosting"] {
            assert!(HeaderName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_backend_that_folds_names_cannot_be_given_a_second_identity() {
        let name = HeaderName::parse("x-jwt-sub").unwrap();
        for spoof in ["x-jwt-sub", "x_jwt_sub", "X-Jwt_Sub", "x.jwt.sub"] {
            assert!(name.matches_loosely(spoof.as_bytes()), "{spoof}");
        }
        for other in ["x-jwt-su", "x-jwt-subs", "xjwtsub", "x--jwt-sub", "", "x-jwt1sub"] {
            assert!(!name.matches_loosely(other.as_bytes()), "{other}");
        }
        assert!(HeaderName::parse("x_jwt_sub").unwrap().matches_loosely(b"x-jwt-sub"));
    }

    #[test]
    fn a_set_finds_what_one_of_its_names_matches_and_nothing_else() {
        let names = ["x-jwt-sub", "x-user-id", "x-original-url", "x_user.scope"];
        let mut set = HeaderNames::default();
        assert!(!set.has_loosely(b"") && !set.has_loosely(b"x-jwt-sub"));
        for name in names.into_iter().chain(names) {
            set.insert(HeaderName::of_request(name).unwrap());
        }
        assert_eq!(set.iter().map(HeaderName::as_str).collect::<Vec<_>>(), names);
        for name in [
            "x-jwt-sub",
            "X_JWT.SUB",
            "x-user-id",
            "X-Original_URL",
            "x-user-scope",
            "x-jwt-su",
            "x-jwt-suc",
            "sub",
            "",
        ] {
            let matches = names.iter().any(|own| HeaderName::of_request(own).unwrap().matches_loosely(name.as_bytes()));
            assert_eq!(set.has_loosely(name.as_bytes()), matches, "{name}");
        }
        assert!(set.has_loosely(b"X_JWT.SUB") && !set.has_loosely(b"x-jwt-suc"));
    }

    #[test]
    fn a_value_is_safe_from_space_to_tilde() {
        assert!(is_safe_value(b"a b~!"));
        assert!(is_safe_value(b""));
        for value in [&b" a"[..], b"a ", b" ", b"a\x1f", b"a\x7f", b"a\tb", b"a\r\nb", b"a\0", b"\xc3\xa9"] {
            assert!(!is_safe_value(value), "{value:?}");
        }
    }
}
