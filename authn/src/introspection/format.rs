//! What an issuer's opaque tokens look like, and whether two issuers' could be taken for each other.
use wire::opaque_token;

use crate::config::{self, Invalid, OpaqueFormat, TokenAlphabet};

/// The longest token that a shape may have, so that a question stays small.
const MAX_LENGTH: usize = 4096;
/// Shorter ones could be guessed.
const MIN_LENGTH: usize = 8;
const MAX_PREFIX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    prefix: Vec<u8>,
    min: usize,
    max: usize,
    alphabet: TokenAlphabet,
    /// Tokens of our own service end in a checksum.
    is_ours: bool,
}

impl Format {
    pub(crate) fn compile(document: &OpaqueFormat, limits: &config::Limits) -> Result<Self, Invalid> {
        let shape = match document {
            OpaqueFormat::Portcullis => {
                return Ok(Self {
                    prefix: opaque_token::Purpose::Access.prefix().into(),
                    min: opaque_token::LENGTH,
                    max: opaque_token::LENGTH,
                    alphabet: TokenAlphabet::Alphanumeric,
                    is_ours: true,
                });
            }
            OpaqueFormat::Shape(shape) => shape,
        };
        let at = |field: &str| format!("shape.{field}");
        let longest = MAX_LENGTH.min(limits.token_bytes);
        let is_plain = |byte: u8| TokenAlphabet::B64token.admits(byte) && byte != b'=';
        if shape.prefix.len() > MAX_PREFIX || !shape.prefix.bytes().all(is_plain) {
            let message =
                format!("use at most {MAX_PREFIX} of the letters, digits and - . _ ~ + / that a token may have");
            return Err(Invalid::new(at("prefix"), message));
        }
        if shape.prefix.bytes().filter(|byte| *byte == b'.').count() > 1 {
            return Err(Invalid::new(at("prefix"), "a token with two dots is taken for a JWT, so none could match"));
        }
        let least = MIN_LENGTH.max(shape.prefix.len().saturating_add(1));
        if !(least..=longest).contains(&shape.min_length) {
            return Err(Invalid::new(at("min_length"), format!("must be within {least} to {longest}")));
        }
        if !(shape.min_length..=longest).contains(&shape.max_length) {
            let message = format!("must be within `min_length` and {longest}");
            return Err(Invalid::new(at("max_length"), message));
        }
        Ok(Self {
            prefix: shape.prefix.clone().into_bytes(),
            min: shape.min_length,
            max: shape.max_length,
            alphabet: shape.alphabet,
            is_ours: false,
        })
    }

    /// Could the issuer have made this token? What looks like a JWT, with two dots or more, never fits: a JWT that failed
    /// must not get a second chance.
    pub fn fits(&self, token: &[u8]) -> bool {
        if self.is_ours {
            return opaque_token::is_access_token(token);
        }
        if !(self.min..=self.max).contains(&token.len()) || token.iter().filter(|byte| **byte == b'.').count() > 1 {
            return false;
        }
        let Some(rest) = token.strip_prefix(self.prefix.as_slice()) else { return false };
        // `=` is padding: only at the end.
        let padding = rest.iter().rev().take_while(|byte| **byte == b'=').count();
        let (text, _) = rest.split_at_checked(rest.len().saturating_sub(padding)).unwrap_or((rest, &[]));
        (padding == 0 || self.alphabet.admits(b'='))
            && text.iter().all(|byte| *byte != b'=' && self.alphabet.admits(*byte))
    }

    /// Could one token fit both? When in doubt yes: a checksum tells nothing apart.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        if self.max < other.min || other.max < self.min {
            return false;
        }
        let (short, long) = if self.prefix.len() <= other.prefix.len() { (self, other) } else { (other, self) };
        match long.prefix.strip_prefix(short.prefix.as_slice()) {
            None => false,
            // The longer prefix must be text that the other could have after its own.
            Some(rest) => rest.iter().all(|byte| short.alphabet.admits(*byte)),
        }
    }
}

impl TokenAlphabet {
    fn admits(self, byte: u8) -> bool {
        match self {
            TokenAlphabet::Hex => byte.is_ascii_hexdigit(),
            TokenAlphabet::Alphanumeric => byte.is_ascii_alphanumeric(),
            TokenAlphabet::Base64url => byte.is_ascii_alphanumeric() || b"-_".contains(&byte),
            TokenAlphabet::B64token => byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, TokenShape};

    fn shape(prefix: &str, min_length: usize, max_length: usize, alphabet: TokenAlphabet) -> OpaqueFormat {
        OpaqueFormat::Shape(TokenShape { prefix: prefix.into(), min_length, max_length, alphabet })
    }

    fn compiled(document: &OpaqueFormat) -> Format {
        Format::compile(document, &Limits::default()).unwrap()
    }

    fn refused(document: &OpaqueFormat) -> String {
        Format::compile(document, &Limits::default()).unwrap_err().field
    }

    #[test]
    fn a_token_fits_by_prefix_length_and_alphabet_alone() {
        let format = compiled(&shape("ory_at_", 12, 14, TokenAlphabet::Hex));
        for fits in ["ory_at_abcde", "ory_at_0123456", "ory_at_ABCDEF"] {
            assert!(format.fits(fits.as_bytes()), "{fits}");
        }
        for not in ["ory_at_abcd", "ory_at_01234567", "ory_at_abcdg", "ory_rt_abcde", "Ory_at_abcde", "abcde", ""] {
            assert!(!format.fits(not.as_bytes()), "{not}");
        }
        for byte in 0..=u8::MAX {
            let token = [b"ory_at_abcd".as_slice(), &[byte]].concat();
            assert_eq!(format.fits(&token), byte.is_ascii_hexdigit(), "{byte}");
        }
    }

    #[test]
    fn what_looks_like_a_jwt_never_fits_even_where_dots_do() {
        let format = compiled(&shape("", 8, 64, TokenAlphabet::B64token));
        assert!(format.fits(b"abcdefgh"));
        assert!(format.fits(b"abcd.efgh"));
        assert!(!format.fits(b"ab.cd.efgh"));
        assert!(!format.fits(b"a.b.c.d.e"));
        assert!(format.fits(b"abcdefg=="));
        assert!(!format.fits(b"abc=defgh"));
        assert!(!format.fits(b"=======\n"));
    }

    #[test]
    fn our_own_tokens_fit_by_their_checksum() {
        let format = compiled(&OpaqueFormat::Portcullis);
        let token = opaque_token::OpaqueToken {
            purpose: opaque_token::Purpose::Access,
            sid: [1; 16],
            random: [2; 32],
            tag: [3; 16],
        };
        let mut text = token.write().into_bytes();
        assert!(format.fits(&text));
        let last = text.last_mut().unwrap();
        *last = if *last == b'0' { b'1' } else { b'0' };
        assert!(!format.fits(&text));
        let refresh = opaque_token::OpaqueToken { purpose: opaque_token::Purpose::Refresh, ..token };
        assert!(!format.fits(refresh.write().as_bytes()));
    }

    #[test]
    fn shapes_that_could_match_nothing_or_anything_are_refused_by_field() {
        use TokenAlphabet::Base64url;
        assert_eq!(refused(&shape("a b", 20, 30, Base64url)), "shape.prefix");
        assert_eq!(refused(&shape("a.b.", 20, 30, Base64url)), "shape.prefix");
        assert_eq!(refused(&shape(&"p".repeat(65), 80, 90, Base64url)), "shape.prefix");
        assert_eq!(refused(&shape("", 7, 30, Base64url)), "shape.min_length");
        assert_eq!(refused(&shape("prefix_", 7, 30, Base64url)), "shape.min_length");
        assert_eq!(refused(&shape("longer_prefix", 13, 30, Base64url)), "shape.min_length");
        assert_eq!(refused(&shape("", 20, 19, Base64url)), "shape.max_length");
        assert_eq!(refused(&shape("", 20, 4097, Base64url)), "shape.max_length");
        compiled(&shape("longer_prefix", 14, 4096, Base64url));
        let small = Limits { token_bytes: 256, ..Limits::default() };
        assert!(Format::compile(&shape("", 20, 257, Base64url), &small).is_err());
    }

    #[test]
    fn formats_overlap_unless_length_or_prefix_tells_them_apart() {
        use TokenAlphabet::{Base64url, Hex};
        let overlap = |one: &OpaqueFormat, other: &OpaqueFormat| {
            let (one, other) = (compiled(one), compiled(other));
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap(&shape("", 20, 30, Hex), &shape("", 30, 40, Base64url)));
        assert!(!overlap(&shape("", 20, 30, Hex), &shape("", 31, 40, Base64url)));
        assert!(!overlap(&shape("a_", 20, 30, Base64url), &shape("b_", 20, 30, Base64url)));
        assert!(overlap(&shape("a_", 20, 30, Base64url), &shape("a_b_", 20, 30, Base64url)));
        // Hexadecimal digits never spell `pcs_`.
        assert!(!overlap(&shape("", 20, 200, Hex), &OpaqueFormat::Portcullis));
        assert!(overlap(&shape("", 20, 200, Base64url), &OpaqueFormat::Portcullis));
        assert!(!overlap(&shape("", 20, 95, Base64url), &OpaqueFormat::Portcullis));
    }
}
