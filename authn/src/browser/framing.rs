//! Which pages may embed an answer: `frame-ancestors` beside the older X-Frame-Options.
use super::csp::has_directive;
use crate::request::Pair;

/// What X-Frame-Options can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameOptions {
    Deny,
    SameOrigin,
}

impl FrameOptions {
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::SameOrigin => "SAMEORIGIN",
        }
    }

    pub(super) fn policy(self) -> &'static str {
        match self {
            Self::Deny => "frame-ancestors 'none'",
            Self::SameOrigin => "frame-ancestors 'self'",
        }
    }
}

/// The upstream's X-Frame-Options, unless it counts for nothing: browsers ignore it where a policy has `frame-ancestors`.
pub(super) fn effective(headers: &[Pair<'_>]) -> Option<FrameOptions> {
    let values = |wanted: &'static str| {
        let named = move |(name, _): &&Pair<'_>| name.eq_ignore_ascii_case(wanted.as_bytes());
        headers.iter().filter(named).map(|(_, value)| *value)
    };
    if values("content-security-policy").any(|value| has_directive(value, b"frame-ancestors")) {
        return None;
    }
    // HTML standard, section 7.7.2: several different values are DENY if one of them is known.
    let mut words: Vec<Vec<u8>> = values("x-frame-options")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|word| word.trim_ascii().to_ascii_lowercase())
        .collect();
    words.sort();
    words.dedup();
    let is_known = |word: &Vec<u8>| matches!(word.as_slice(), b"deny" | b"sameorigin" | b"allowall");
    match words.as_slice() {
        [word] if word == b"deny" => Some(FrameOptions::Deny),
        [word] if word == b"sameorigin" => Some(FrameOptions::SameOrigin),
        [] | [_] => None,
        several if several.iter().any(is_known) => Some(FrameOptions::Deny),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_values_are_read_as_browsers_read_them() {
        let read = |values: &[&'static str]| {
            let headers: Vec<Pair<'_>> =
                values.iter().map(|value| (&b"x-frame-options"[..], value.as_bytes())).collect();
            effective(&headers)
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["deny"]), Some(FrameOptions::Deny));
        assert_eq!(read(&["SameOrigin, sameorigin"]), Some(FrameOptions::SameOrigin));
        assert_eq!(read(&["SAMEORIGIN", "SAMEORIGIN"]), Some(FrameOptions::SameOrigin));
        assert_eq!(read(&["SAMEORIGIN", "ALLOWALL"]), Some(FrameOptions::Deny));
        assert_eq!(read(&["ALLOW-FROM https://a.example"]), None);
        assert_eq!(read(&["", "x"]), None);
    }

    #[test]
    fn a_policy_of_the_upstream_makes_it_count_for_nothing() {
        let xfo: Pair<'_> = (b"x-frame-options", b"DENY");
        assert_eq!(effective(&[xfo, (b"content-security-policy", b"frame-ancestors https://a.example")]), None);
        assert_eq!(effective(&[xfo, (b"content-security-policy", b"default-src 'self'")]), Some(FrameOptions::Deny));
    }
}
