//! The spellings of a name under which some backend would look for a token, and this filter does not.
//!
//! PHP makes `access_token` of `access.token`, ` access_token`, `access[token` and `access_token[]`, and cuts names at a
//! NUL; ASP.NET and others compare names without their case, and some by Unicode's rules; IIS decodes `%uXXXX`; many decode
//! the names of cookies; Perl, old Python and old Java separate parameters at semicolons and cookies at commas. A token under
//! such a spelling is one that nobody checked.
use std::borrow::Cow;

use super::compatible;
use crate::request::hex;
use crate::request::path::PercentDecoded;

/// The name of a query parameter or cookie that holds a token.
#[derive(Debug)]
pub(super) struct SourceName {
    exact: Box<[u8]>,
    folded: Box<[u8]>,
}

impl SourceName {
    pub fn new(name: &str) -> Self {
        Self { exact: name.as_bytes().into(), folded: folded(name) }
    }

    /// Is `name` the configured one, byte by byte?
    pub fn is(&self, name: &[u8]) -> bool {
        *self.exact == *name
    }

    /// Is `name` the configured one once it is decoded, as every backend decodes the names of parameters?
    pub fn is_encoded(&self, name: &[u8]) -> bool {
        PercentDecoded(name).eq(self.exact.iter().copied())
    }

    /// Could some backend read `name` as the configured one?
    pub fn is_read_as(&self, name: &Reading<'_>) -> bool {
        name.begins_with(&self.folded, ends)
    }
}

/// A name as backends decode it, in ASCII but for what none of them reads as ASCII. There are several forms, since some
/// backends decode twice.
///
/// `%61`, `%2561` and `%u0061` (IIS, ASP.NET) are all an `a`. A `%` that is left goes, as in classic ASP. UTF-8 is decoded
/// without regard to length and surrogates, and what is no UTF-8 is Latin-1.
#[derive(Debug)]
pub(super) struct Reading<'n> {
    written: &'n [u8],
    /// As the others, without what is trimmed in front.
    first: Cow<'n, [u8]>,
    others: Vec<Vec<u8>>,
}

impl<'n> Reading<'n> {
    pub fn of(name: &'n [u8]) -> Self {
        #[cfg(test)]
        READINGS.set(READINGS.get().saturating_add(1));
        let mut reading = Self { written: name, first: trimmed(in_ascii(name)), others: Vec::new() };
        // Most names end here.
        if !name.contains(&b'%') {
            return reading;
        }
        let mut decoded = Cow::Borrowed(name);
        for pass in 0..=DECODED_ONCE_MORE {
            let again = unescape(&decoded, pass == DECODED_ONCE_MORE);
            if again == *decoded {
                break;
            }
            reading.others.push(trimmed(in_ascii(&again)).into_owned());
            decoded = Cow::Owned(again);
        }
        reading
    }

    /// Byte by byte.
    pub fn written(&self) -> &'n [u8] {
        self.written
    }

    /// Does the name begin with `own` in one of its forms, but for case, punctuation and what is trimmed, and is what comes
    /// after of that kind?
    pub fn begins_with(&self, own: &[u8], is_end: impl Fn(&[u8]) -> bool) -> bool {
        std::iter::once(&*self.first)
            .chain(self.others.iter().map(Vec::as_slice))
            .any(|form| after(form, own).is_some_and(&is_end))
    }
}

#[cfg(test)]
thread_local! {
    /// How many names were read: a test holds that it does not depend on how many are configured.
    pub(super) static READINGS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Once for all names that it is compared with. Some readers of queries take a question mark off, which others have taken
/// off before.
fn trimmed(form: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let blanks = form.iter().take_while(|byte| is_blank(**byte) || b"+?".contains(byte)).count();
    match form {
        Cow::Borrowed(form) => Cow::Borrowed(form.get(blanks..).unwrap_or_default()),
        Cow::Owned(mut form) => {
            form.drain(..blanks);
            Cow::Owned(form)
        }
    }
}

/// What comes after `own`.
fn after<'f>(form: &'f [u8], own: &[u8]) -> Option<&'f [u8]> {
    let (head, rest) = form.split_at_checked(own.len())?;
    head.iter().map(|byte| fold(*byte)).eq(own.iter().copied()).then_some(rest)
}

/// As [`Reading`] has it, not decoded.
pub(super) fn folded(name: &str) -> Box<[u8]> {
    in_ascii(name.as_bytes()).iter().map(|byte| fold(*byte)).collect()
}

fn in_ascii(name: &[u8]) -> Cow<'_, [u8]> {
    if name.is_ascii() && !name.contains(&b'%') {
        return Cow::Borrowed(name);
    }
    let mut read = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((code_point, after)) = split_code_point(rest) {
        rest = after;
        match u8::try_from(code_point) {
            Ok(b'%') => {}
            Ok(byte) if byte.is_ascii() => read.push(byte),
            _ if compatible::is_ignored(code_point) => {}
            _ => read.extend_from_slice(compatible::ascii(code_point).map_or(&[NOT_ASCII], str::as_bytes)),
        }
    }
    Cow::Owned(read)
}

/// May the name end before `rest`? So it does before an array's index, a NUL, where a C string ends, and what is trimmed.
pub(super) fn ends(rest: &[u8]) -> bool {
    matches!(rest.first(), Some(b'[' | 0)) || rest.iter().all(|byte| is_blank(*byte) || *byte == b'+')
}

/// As PHP reads names, and without case.
pub(super) fn fold(byte: u8) -> u8 {
    match byte {
        b'.' | b' ' | b'+' | b'[' => b'_',
        _ => byte.to_ascii_lowercase(),
    }
}

/// What one backend or another trims off a name.
fn is_blank(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | 0x7f..)
}

/// A character that no backend reads as ASCII.
const NOT_ASCII: u8 = 0x80;

/// After so many times, all escapes are decoded that decoding makes.
const DECODED_ONCE_MORE: usize = 3;

/// Without `%XX` and `%uXXXX`. With `all`, also without those that decoding makes; each step is done at the end of what was
/// read so far, so the time depends on the length only.
fn unescape(name: &[u8], all: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    // What comes before was decoded, and is not decoded again.
    let mut done = 0usize;
    for byte in name {
        out.push(*byte);
        while let Some((length, code_point)) = escape_at_end(out.get(done..).unwrap_or_default()) {
            out.truncate(out.len().saturating_sub(length));
            match u8::try_from(code_point) {
                // A byte of a character, or one of ASCII.
                Ok(byte) if length == PERCENT || byte.is_ascii() => out.push(byte),
                _ => push_utf8(&mut out, code_point),
            }
            if !all {
                done = out.len();
            }
        }
    }
    out
}

/// The lengths of `%XX` and `%uXXXX`.
const PERCENT: usize = 3;
const PERCENT_U: usize = 6;

fn escape_at_end(bytes: &[u8]) -> Option<(usize, u16)> {
    match bytes {
        [.., b'%', high, low] => Some((PERCENT, u16::from(hex::byte(*high, *low)?))),
        [.., b'%', b'u' | b'U', a, b, c, d] => {
            Some((PERCENT_U, u16::from_be_bytes([hex::byte(*a, *b)?, hex::byte(*c, *d)?])))
        }
        _ => None,
    }
}

/// Surrogates too, each as if it were a character.
fn push_utf8(out: &mut Vec<u8>, code_point: u16) {
    let [high, low] = code_point.to_be_bytes();
    out.extend([0xe0 | (high >> 4), 0x80 | ((high & 0xf) << 2) | (low >> 6), 0x80 | (low & 0x3f)]);
}

/// The first code point of what is meant to be UTF-8, and the rest.
fn split_code_point(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = split_unit(bytes)?;
    if let 0xd800..=0xdbff = first
        && let Some((second @ 0xdc00..=0xdfff, rest)) = split_unit(rest)
    {
        return Some((0x1_0000 | ((first & 0x3ff) << 10).saturating_add(second & 0x3ff), rest));
    }
    Some((first, rest))
}

fn split_unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let bits = |byte: &u8| u32::from(byte & 0x3f);
    Some(match bytes {
        [lead @ 0xc0..=0xdf, a @ 0x80..=0xbf, rest @ ..] => ((u32::from(lead & 0x1f) << 6) | bits(a), rest),
        [lead @ 0xe0..=0xef, a @ 0x80..=0xbf, b @ 0x80..=0xbf, rest @ ..] => {
            ((u32::from(lead & 0xf) << 12) | (bits(a) << 6) | bits(b), rest)
        }
        [lead @ 0xf0..=0xf7, a @ 0x80..=0xbf, b @ 0x80..=0xbf, c @ 0x80..=0xbf, rest @ ..] => {
            ((u32::from(lead & 0x7) << 18) | (bits(a) << 12) | (bits(b) << 6) | bits(c), rest)
        }
        [byte, rest @ ..] => (u32::from(*byte), rest),
        [] => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_spellings_of_a_name() {
        let name = SourceName::new("access_token");
        for spelling in [
            "access_token",
            "Access_Token",
            "ACCESS_TOKEN",
            "access.token",
            "access token",
            "access+token",
            "access%20token",
            "access[token",
            "access%5Btoken",
            "%20access_token",
            " access_token",
            "+access_token",
            "\taccess_token ",
            "\u{a0}access_token",
            "access%5Ftoken",
            "%61ccess_token",
            "access_token[]",
            "access_token%5B0%5D",
            "access_token%00",
            "access_token%00x",
            "\"access_token\"",
            "\u{b}access_token",
            "access_token\u{b}",
            "%09%0b%0c%0d%0aaccess_token",
            "?access_token",
            "access_token[0][1]",
            "access_token+",
            "access%2Btoken",
            "access%2btoken%2b",
            "access_token%C2%A0",
            // Twice and more.
            "%2561ccess_token",
            "%252561ccess_token",
            "%25%36%31ccess_token",
            "%%361ccess_token",
            "%2%35%36%31ccess_token",
            "%%61ccess_token",
            "%25%2561ccess_token",
            "%25252525252561ccess_token",
            "access%255Ftoken",
            "access_token%2500x",
            "access_token%255b%255d",
            // As IIS and ASP.NET decode.
            "%u0061ccess_token",
            "%U0061ccess_token",
            "%u0041CCESS_TOKEN",
            "access%u005Ftoken",
            "access%u005btoken",
            "%25u0061ccess_token",
            "%u0025u0061ccess_token",
            "%u002561ccess_token",
            "access_token%u0000x",
            "%u0020access_token",
            "%u00a0access_token",
            "acc%ess_token",
            "access_token%",
            // In overlong UTF-8.
            "%c1%a1ccess_token",
            "%e0%81%a1ccess_token",
            "%f0%80%81%a1ccess_token",
            // By case folding and compatibility forms, as UTF-8, percent-encoded and as UTF-16.
            "acce\u{17f}\u{17f}_token",
            "acce%C5%BF%C5%BF_token",
            "acce%u017f%u017F_token",
            "acce\u{df}_token",
            "acce%df_token",
            "ACCE\u{1e9e}_TOKEN",
            "access_to\u{212a}en",
            "access_to%E2%84%AAen",
            "\u{ff21}ccess_token",
            "%EF%BC%A1ccess_token",
            "%uff41ccess%uFF3ftoken",
            "%25uff41ccess_token",
            "access\u{ff0e}token",
            "access\u{ff3b}token",
            "access_token\u{ff3b}\u{ff3d}",
            "\u{ff41}\u{ff43}\u{ff43}\u{ff45}\u{ff53}\u{ff53}\u{ff3f}\u{ff54}\u{ff4f}\u{ff4b}\u{ff45}\u{ff4e}",
            "\u{1d4b6}ccess_token",
            "%uD835%uDCB6ccess_token",
            "%ED%A0%B5%ED%B2%B6ccess_token",
            "\u{24d0}ccess_token",
            "acc\u{e9}ss_token",
            "acce\u{301}ss_token",
            "access\u{200b}_token",
            "access_token%u200b",
            "access\u{3000}token",
        ] {
            assert!(name.is_read_as(&Reading::of(spelling.as_bytes())), "{spelling:?}");
        }
        for other in [
            "",
            "access",
            "access_toke",
            "access_tokens",
            "accesstoken",
            "access-token",
            "xaccess_token",
            "token",
            "%",
            "%61",
            "%u0061",
            "%u006",
            "access_token%61",
            "access_token\u{ff41}",
            "access_token_hint",
            "%u0430ccess_token",
            "\u{30a2}\u{30af}\u{30bb}\u{30b9}",
            "acces\u{17f}_token\u{212a}",
        ] {
            assert!(!name.is_read_as(&Reading::of(other.as_bytes())), "{other:?}");
        }
        let is_read_as = |own: &str, name: &str| SourceName::new(own).is_read_as(&Reading::of(name.as_bytes()));
        assert!(is_read_as("session.id", "session_id"));
        assert!(is_read_as("X-Token", "x-token"));
        assert!(is_read_as("session", "\u{17f}e\u{17f}\u{17f}\u{131}on"));
        assert!(is_read_as("session", "%53es%73%49on"));
        assert!(is_read_as("__Host-session", "%5f%5Fhost%2Dse\u{df}ion"));
        assert!(is_read_as("caf\u{e9}", "cafe"));
    }

    #[test]
    fn decoding_takes_time_by_length_only() {
        let nested = format!("{}61z", "%25".repeat(20_000));
        assert_eq!(unescape(nested.as_bytes(), true).len(), 20_001);
        let nested = format!("{}{}", "%".repeat(20_000), "25".repeat(20_000));
        assert_eq!(unescape(nested.as_bytes(), true).len(), 20_000);
        assert_eq!(Reading::of(nested.as_bytes()).others.len(), 1 + DECODED_ONCE_MORE);
    }

    #[test]
    fn the_name_itself_is_told_from_its_spellings() {
        let name = SourceName::new("session_id");
        assert!(name.is(b"session_id") && !name.is(b"session%5fid") && !name.is(b"Session_Id"));
        assert!(name.is_encoded(b"session%5fid") && !name.is_encoded(b"Session%5fid"));
    }
}
