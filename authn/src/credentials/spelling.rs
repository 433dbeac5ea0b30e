//! The spellings of a name under which some backend would look for a token, and this filter does not.
//!
//! PHP makes `access_token` of `access.token`, ` access_token`, `access[token` and `access_token[]`, and cuts names at a
//! NUL; ASP.NET and others compare names without their case; many decode the names of cookies; Perl, old Python and old
//! Java separate parameters at semicolons and cookies at commas. A token under such a spelling is one that nobody checked.
use crate::path::PercentDecoded;

/// The name of a query parameter or cookie that holds a token.
#[derive(Debug)]
pub(super) struct SourceName {
    exact: Box<[u8]>,
    folded: Box<[u8]>,
}

impl SourceName {
    pub fn new(name: &str) -> Self {
        Self { exact: name.as_bytes().into(), folded: name.bytes().map(fold).collect() }
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
    pub fn is_read_as(&self, name: &[u8]) -> bool {
        let plus_is_space = |byte| if byte == b'+' { b' ' } else { byte };
        let mut bytes = PercentDecoded(name).map(plus_is_space).skip_while(|byte| is_blank(*byte));
        for own in &self.folded {
            if bytes.next().map(fold) != Some(*own) {
                return false;
            }
        }
        match bytes.next() {
            // An array of that name, or what comes after the end of a C string.
            None | Some(b'[' | 0) => true,
            Some(byte) => is_blank(byte) && bytes.all(is_blank),
        }
    }
}

/// As PHP reads names, and without case.
pub(super) fn fold(byte: u8) -> u8 {
    match byte {
        b'.' | b' ' | b'[' => b'_',
        _ => byte.to_ascii_lowercase(),
    }
}

/// What one backend or another trims off a name.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | 0x7f..)
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
        ] {
            assert!(name.is_read_as(spelling.as_bytes()), "{spelling:?}");
        }
        for other in
            ["", "access", "access_toke", "access_tokens", "accesstoken", "access-token", "xaccess_token", "token"]
        {
            assert!(!name.is_read_as(other.as_bytes()), "{other:?}");
        }
        assert!(SourceName::new("session.id").is_read_as(b"session_id"));
        assert!(SourceName::new("X-Token").is_read_as(b"x-token"));
    }

    #[test]
    fn the_name_itself_is_told_from_its_spellings() {
        let name = SourceName::new("session_id");
        assert!(name.is(b"session_id") && !name.is(b"session%5fid") && !name.is(b"Session_Id"));
        assert!(name.is_encoded(b"session%5fid") && !name.is_encoded(b"Session%5fid"));
    }
}
