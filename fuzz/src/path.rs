//! A path that is accepted has one reading, whatever a backend does to it.
use authn::request::path::PlainPath;

use crate::target::owned;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    owned(&[
        b"/",
        b"/a/b.c/...",
        b"/a?b=c&d",
        b"/u/a%40b",
        b"/%c3%a9",
        b"/a/../b",
        b"/a//b",
        b"/a;b",
        b"/a\\b",
        b"/%2e%2e/b",
        b"/a%2fb",
        b"/%c0%af",
        b"/a%00",
        b"/%25%32%65",
        b"/a#b",
        b"/.",
        b"/a/.",
        b"/..;/",
        b"/?%ZZ",
        b"/%E2%82%AC/\xff",
    ])
}

pub fn path(input: &[u8]) {
    let Ok(path) = PlainPath::check(input) else { return };
    let rebuilt = [path.raw(), path.query().map_or(&b""[..], |_| b"?"), path.query().unwrap_or_default()].concat();
    assert_eq!(rebuilt, input, "nothing is lost");
    let decoded = path.decoded();
    assert_eq!(percent_decoded(path.raw()), decoded);
    assert_eq!(percent_decoded(decoded), decoded, "decoded twice");
    assert_eq!(path.raw().split(|byte| *byte == b'/').count(), decoded.split(|byte| *byte == b'/').count());
    assert!(std::str::from_utf8(decoded).is_ok_and(|text| !text.contains(char::is_control)));
    for reading in [path.raw(), decoded] {
        assert!(reading.starts_with(b"/"));
        assert!(!reading.iter().any(|byte| matches!(byte, b'\\' | b';' | b'#' | b'?')));
        assert_eq!(without_dots_and_empty_segments(reading), reading, "normalised");
    }
}

/// RFC 3986 section 2.1, by somebody who passes on what is broken.
fn percent_decoded(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let pair = path.get(at + 1..at + 3).and_then(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?));
        let byte = if path[at] == b'%' { pair } else { None };
        decoded.push(byte.unwrap_or(path[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    decoded
}

/// RFC 3986 section 5.2.4, and slashes merged.
fn without_dots_and_empty_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        match *segment {
            b"." => {}
            b".." => drop(kept.pop()),
            b"" if at + 1 < segments.len() => {}
            _ => kept.push(segment),
        }
    }
    kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect()
}
