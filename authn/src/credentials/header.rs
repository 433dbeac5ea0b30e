//! A request header that may hold a token, alone or after a scheme.
use std::sync::Arc;

use crate::config::{HeaderSource, Invalid};
use crate::reject::{Cause, Rejection};
use crate::request::headers::{CONNECTION, is_token, is_token_byte};
use crate::request::scan;

#[derive(Debug)]
pub(super) struct HeaderToken {
    /// Lower case.
    pub name: Arc<[u8]>,
    scheme: Option<Box<[u8]>>,
}

impl HeaderToken {
    pub fn compile(source: &HeaderSource) -> Result<Self, Invalid> {
        let name = source.name.to_ascii_lowercase();
        if !is_token(name.as_bytes()) {
            return Err(Invalid::new("name", "is not a header name (RFC 9110 section 5.1)"));
        }
        if name == "cookie" || name == "set-cookie" {
            return Err(Invalid::new("name", "tokens in cookies are configured under `cookies`"));
        }
        if CONNECTION.contains(&name.as_str()) {
            return Err(Invalid::new("name", "belongs to the connection and never contains a token"));
        }
        let scheme = source.scheme.as_deref().map(str::as_bytes);
        if scheme.is_some_and(|scheme| !is_token(scheme)) {
            return Err(Invalid::new("scheme", "is not an authentication scheme (RFC 9110 section 11.1)"));
        }
        Ok(Self { name: name.into_bytes().into(), scheme: scheme.map(Box::from) })
    }

    /// Could both find a token in one header's value?
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_scheme = match (&self.scheme, &other.scheme) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            _ => true,
        };
        self.name == other.name && same_scheme
    }

    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub fn has_scheme(&self, scheme: &[u8]) -> bool {
        self.scheme.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(scheme))
    }

    /// Could a reader take this value for a token, valid or not?
    pub fn may_hold(&self, value: &[u8]) -> bool {
        !matches!(self.look(value), Ok(None))
    }

    /// The value in the token's place, not judged. None: this header is about something else.
    pub fn look<'a>(&self, value: &'a [u8]) -> Result<Option<&'a [u8]>, Rejection> {
        // Envoy joins a repeated header with commas (RFC 9110 section 5.3), which no token contains.
        let has_comma = scan::has_byte(value, b',');
        let first = match self.scheme {
            None => Some(value),
            Some(_) => self.after_scheme(value),
        };
        let is_ours = |part: &[u8]| self.after_scheme(part).is_some();
        match first {
            None if !has_comma || !value.split(|byte| *byte == b',').any(is_ours) => return Ok(None),
            _ if has_comma => {
                return Err(Rejection::new(Cause::HeaderSeveralValues));
            }
            _ => {}
        }
        let after = first.unwrap_or_default();
        if self.scheme.is_none() {
            return Ok(Some(after));
        }
        // RFC 9110 section 11.4: 1*SP, and no other delimiter. Only blanks may precede the scheme.
        let begins = value.trim_ascii_start().first().is_some_and(|byte| is_token_byte(*byte));
        let is_spaced = begins && after.first() == Some(&b' ');
        let start = after.iter().position(|byte| *byte != b' ');
        Ok(Some(start.filter(|_| is_spaced).and_then(|start| after.get(start..)).unwrap_or_default()))
    }

    /// The text after the scheme, if the value begins with it as a whole word. Characters before the scheme do not hide
    /// it unless they are part of a word: a backend may trim characters that we do not, such as a no-break space.
    fn after_scheme<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let scheme = self.scheme.as_deref()?;
        let start = value.iter().position(|byte| is_token_byte(*byte))?;
        let (word, after) = value.get(start..)?.split_at_checked(scheme.len())?;
        let ends = after.first().is_none_or(|byte| !is_token_byte(*byte));
        (ends && word.eq_ignore_ascii_case(scheme)).then_some(after)
    }
}
