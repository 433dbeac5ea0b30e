//! Paths that every reader reads alike. A path which a backend could take for another one never reaches the rules.
use std::borrow::Cow;
use std::fmt;

use crate::reject::{Cause, Rejection};
use crate::request::hex;

/// A path in plain form, and its query.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainPath<'a> {
    raw: &'a [u8],
    /// What is left percent-encoded in a plain path stands for exactly one byte which divides nothing, so decoding is
    /// unambiguous. Rules see this form: `/u/a%40b` and `/u/a@b` are one resource to most backends.
    decoded: Cow<'a, [u8]>,
    query: Option<&'a [u8]>,
}

impl<'a> PlainPath<'a> {
    /// PATH_SUSPICIOUS unless the path is absolute and has one reading only. The query is judged for bytes that end or
    /// break a request line, and for nothing else.
    pub fn check(path_with_query: &'a [u8]) -> Result<Self, Rejection> {
        Self::parse(path_with_query).map_err(Rejection::new)
    }

    /// As `check`, with the cause in words that also fit a configuration error.
    pub(crate) fn parse(path_with_query: &'a [u8]) -> Result<Self, Cause> {
        let (raw, query) = split_query(path_with_query);
        if raw.first() != Some(&b'/') {
            return Err(Cause::PathNotAbsolute);
        }
        if query.is_some_and(|query| query.iter().any(|byte| matches!(byte, 0..=b' ' | b'#' | 0x7f))) {
            return Err(Cause::QueryCharacters);
        }
        let encoded = check_bytes(raw)?;
        check_segments(raw)?;
        let decoded = if encoded { Cow::Owned(PercentDecoded(raw).collect()) } else { Cow::Borrowed(raw) };
        Ok(Self { raw, decoded, query })
    }

    /// As it came, without the query.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What rules are matched against.
    pub fn decoded(&self) -> &[u8] {
        &self.decoded
    }

    /// What follows the first `?`; empty and absent differ.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.query
    }
}

/// Without the query: it may hold a token.
impl fmt::Debug for PlainPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlainPath({})", self.raw.escape_ascii())
    }
}

/// The bytes for which `%XX` stands; a `%` without two digits is itself.
pub(crate) struct PercentDecoded<'a>(pub &'a [u8]);

impl Iterator for PercentDecoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some((byte, rest)) = split_encoded(self.0) {
            self.0 = rest;
            return Some(byte);
        }
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }
}

pub(crate) fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = path.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}

/// The byte for which a `%XX` at the start stands, and the rest.
fn split_encoded(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = bytes else { return None };
    Some((hex::byte(*high, *low)?, rest))
}

/// Is anything percent-encoded?
fn check_bytes(path: &[u8]) -> Result<bool, Cause> {
    let mut encoded = false;
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                encoded = true;
                check_encoded(rest)?
            }
            0..=b' ' | 0x7f => return Err(Cause::PathControl),
            0x80.. => return Err(Cause::PathNotAscii),
            b'\\' => return Err(Cause::PathBackslash),
            b';' => return Err(Cause::PathSemicolon),
            b'#' => return Err(Cause::PathHash),
            _ => after,
        };
    }
    Ok(encoded)
}

/// What follows the encoded character at the start of `bytes`.
fn check_encoded(bytes: &[u8]) -> Result<&[u8], Cause> {
    let (byte, rest) = split_encoded(bytes).ok_or(Cause::PathBrokenPercent)?;
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Err(Cause::PathNeedlesslyEncoded),
        b'/' | b'\\' | b';' | b'#' | b'?' | b'%' => Err(Cause::PathEncodedDivider),
        0..=0x1f | 0x7f => Err(Cause::PathEncodedControl),
        0x80.. => check_encoded_utf8(byte, rest),
        _ => Ok(rest),
    }
}

/// Overlong UTF-8 is the old way to smuggle a slash (`%c0%af`), and other broken UTF-8 is repaired by each backend in its
/// own way.
fn check_encoded_utf8(lead: u8, mut rest: &[u8]) -> Result<&[u8], Cause> {
    const BROKEN: Cause = Cause::PathNotUtf8;
    let length = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(BROKEN),
    };
    let mut buffer = [lead; 4];
    let character = buffer.get_mut(..length).ok_or(BROKEN)?;
    for place in character.iter_mut().skip(1) {
        let (byte, after) = split_encoded(rest).ok_or(BROKEN)?;
        *place = byte;
        rest = after;
    }
    let character = std::str::from_utf8(character).map_err(|_| BROKEN)?;
    if character.contains(char::is_control) { Err(Cause::PathEncodedControl) } else { Ok(rest) }
}

fn check_segments(path: &[u8]) -> Result<(), Cause> {
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            [] if segments.peek().is_some() => return Err(Cause::PathDoubleSlash),
            b"." | b".." => return Err(Cause::PathDotSegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::RejectReason;

    fn is_plain(path: impl AsRef<[u8]>) -> bool {
        match PlainPath::check(path.as_ref()) {
            Ok(_) => true,
            Err(rejection) => {
                assert_eq!(rejection.reason, RejectReason::PathSuspicious);
                false
            }
        }
    }

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c/...",
            "/a/.well-known/x",
            "/a..b/..c/d..",
            "/u/a@b:c,d=e&f+g!h$i'j(k)*l~m_n-o",
            "/a?",
            "/a?b",
        ] {
            assert!(is_plain(path), "{path}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        for path in ["", "*", "a", "?a", "http://api.example/a", ".", "%2fa"] {
            assert!(!is_plain(path), "{path:?}");
        }
    }

    #[test]
    fn ways_round_a_prefix_are_refused() {
        for path in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/a/.",
            "/a/..",
            "/a/../admin",
            "/a/./b",
            "/a\\b",
            "/a\\..\\admin",
            "/a;x=1/b",
            "/..;/admin",
            "/a#b",
            "/a?b#c",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn each_byte_of_a_path_is_judged() {
        for byte in 0..=u8::MAX {
            let plain = matches!(byte, 0x21..=0x7e) && !b"%\\;#".contains(&byte);
            // Between letters, so that neither slash nor question mark is special.
            assert_eq!(is_plain([b'/', b'a', byte, b'b']), plain, "{byte:#x}");
        }
    }

    #[test]
    fn each_encoded_byte_is_judged_in_either_case_of_hexadecimal() {
        for byte in 0..0x80u8 {
            let refused = byte < 0x20
                || byte == 0x7f
                || byte.is_ascii_alphanumeric()
                || b"-._~".contains(&byte)
                || b"/\\;#?%".contains(&byte);
            assert_eq!(is_plain(format!("/a%{byte:02x}b")), !refused, "{byte:#x}");
            assert_eq!(is_plain(format!("/a%{byte:02X}b")), !refused, "{byte:#x}");
        }
        for byte in 0x80..=u8::MAX {
            assert!(!is_plain(format!("/a%{byte:02x}b")), "half a character: {byte:#x}");
        }
    }

    #[test]
    fn malformed_and_double_encoding_are_refused() {
        for path in ["/%", "/%2", "/%zz", "/%+1", "/%2 f", "/%u002f", "/a%", "/%252f", "/%25", "/%%32%66", "/%2%66"] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn encoded_utf8_passes_and_overlong_or_broken_utf8_does_not() {
        for path in ["/%c3%a9", "/%E2%82%AC/x", "/%f0%9f%98%80", "/%c2%a0"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/%c0%af",
            "/%c0%ae%c0%ae/",
            "/%c1%9c",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/%c3",
            "/%c3a",
            "/%c3%28",
            "/%c3/%a9",
            "/%a9",
            "/%ed%a0%80",
            "/%f4%90%80%80",
            "/%f5%80%80%80",
            "/%c2%85",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn the_query_is_judged_for_breaks_only() {
        for path in ["/a?b=//..;%2f%zz\\", "/a?b?c", "/a?\u{e9}"] {
            assert!(is_plain(path), "{path}");
        }
        for path in ["/a?b c", "/a?b\0", "/a?b\r\n", "/a?b\t", "/a?b\x7f", "/a?#"] {
            assert!(!is_plain(path), "{path:?}");
        }
    }

    #[test]
    fn path_and_query_are_told_apart() {
        let path = PlainPath::check(b"/a%40b?c=%2f?d").unwrap();
        assert_eq!(path.raw(), b"/a%40b");
        assert_eq!(path.decoded(), b"/a@b");
        assert_eq!(path.query(), Some(&b"c=%2f?d"[..]));
        assert_eq!(PlainPath::check(b"/a?").unwrap().query(), Some(&b""[..]));
        assert_eq!(PlainPath::check(b"/a").unwrap().query(), None);
    }

    #[test]
    fn a_path_prints_without_its_query() {
        assert_eq!(format!("{:?}", PlainPath::check(b"/a?access_token=secret").unwrap()), "PlainPath(/a)");
    }
}
