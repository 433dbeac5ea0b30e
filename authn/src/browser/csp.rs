//! Content security policies (CSP Level 3), with a nonce for each answer.

/// One policy. A page must comply with each policy that it is sent.
#[derive(Debug, Clone)]
pub(crate) struct ContentPolicy {
    /// Between them stands the nonce.
    parts: Vec<String>,
}

const PLACEHOLDER: &str = "{nonce}";
const NONCE_SOURCE: &str = "'nonce-{nonce}'";

impl ContentPolicy {
    /// # Errors
    /// It cannot be one policy in a header.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.trim() != text || !text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return Err("must be printable ASCII without spaces at its ends");
        }
        if text.contains(',') {
            return Err("has a comma, which would begin another policy");
        }
        if text.matches(PLACEHOLDER).count() != text.matches(NONCE_SOURCE).count() {
            return Err("`{nonce}` may only be in `'nonce-{nonce}'`");
        }
        Ok(Self { parts: text.split(PLACEHOLDER).map(str::to_owned).collect() })
    }

    pub(crate) fn has_nonce(&self) -> bool {
        self.parts.len() > 1
    }

    pub(crate) fn restricts_frames(&self) -> bool {
        self.parts.iter().any(|part| has_directive(part.as_bytes(), b"frame-ancestors"))
    }

    /// `None` if it needs a nonce and there is none.
    pub(super) fn with_nonce(&self, nonce: Option<&str>) -> Option<Vec<u8>> {
        match (self.has_nonce(), nonce) {
            (false, _) => Some(self.parts.concat().into_bytes()),
            (true, Some(nonce)) => Some(self.parts.join(nonce).into_bytes()),
            (true, None) => None,
        }
    }
}

/// Does one of the policies of this header's value have the directive?
pub(super) fn has_directive(value: &[u8], name: &[u8]) -> bool {
    let mut directives = value.split(|byte| matches!(byte, b',' | b';'));
    directives.any(|directive| {
        let first = directive.trim_ascii_start().split(u8::is_ascii_whitespace).next();
        first.is_some_and(|first| first.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_put_in_each_of_its_places() {
        let policy = ContentPolicy::parse("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'").unwrap();
        assert_eq!(policy.with_nonce(Some("abc")).unwrap(), b"script-src 'nonce-abc'; style-src 'nonce-abc'");
        assert_eq!(policy.with_nonce(None), None);
        let plain = ContentPolicy::parse("default-src 'self'").unwrap();
        assert_eq!(plain.with_nonce(Some("abc")), plain.with_nonce(None));
    }

    #[test]
    fn what_would_not_be_one_policy_is_refused() {
        for text in ["", " a", "a ", "a\nb", "a\tb", "a\u{e9}", "default-src a, b", "script-src {nonce}", "a '{nonce}'"]
        {
            assert!(ContentPolicy::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_directive_is_found_by_its_whole_name() {
        for value in ["frame-ancestors 'self'", "a;Frame-Ancestors\t*", "a b, frame-ancestors", " frame-ancestors;a"] {
            assert!(has_directive(value.as_bytes(), b"frame-ancestors"), "{value}");
        }
        for value in ["", "frame-ancestors-x a", "default-src frame-ancestors", "xframe-ancestors a"] {
            assert!(!has_directive(value.as_bytes(), b"frame-ancestors"), "{value}");
        }
    }
}
