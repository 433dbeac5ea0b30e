//! Which callers the admin listener knows.
use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::base::certificate::Certificate;

/// The name of a caller with the bearer secret.
const BEARER: &str = "admin";

#[derive(Debug)]
pub struct Callers {
    pub token: AdminToken,
    /// `None`: no certificate is asked for.
    pub certificates: Option<CertificateCallers>,
}

#[derive(Debug)]
pub struct CertificateCallers {
    /// DNS names, URIs and mail addresses of a certificate's subjectAltName, or `CN=…`. Empty: every certificate that the
    /// authority signed.
    pub names: Vec<String>,
    /// The bearer secret alone is not enough.
    pub required: bool,
}

/// The bearer secret of the admin listener.
#[derive(Clone)]
pub struct AdminToken(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminTokenError {
    #[error("the admin token has {0} bytes, and at least {min} are needed", min = AdminToken::MIN_BYTES)]
    TooShort(usize),
    #[error("the admin token must be printable ASCII without white space, since it travels in a header")]
    Form,
}

impl Callers {
    /// By certificate where the connection has a good one, else by the bearer secret where that is enough.
    pub fn identify(&self, certificate: Option<&Certificate>, headers: &HeaderMap) -> Option<Arc<str>> {
        if let (Some(Certificate(names)), Some(known)) = (certificate, &self.certificates)
            && let Some(name) = known.allowed(names)
        {
            return Some(format!("certificate:{name}").into());
        }
        if self.certificates.as_ref().is_some_and(|known| known.required) {
            return None;
        }
        bearer(headers).filter(|token| self.token.is(token)).map(|_| BEARER.into())
    }
}

impl CertificateCallers {
    /// The one of a certificate's `names` by which it may call.
    fn allowed<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let mut known = names.iter().filter(|name| self.names.is_empty() || self.names.contains(name));
        known.next().map(String::as_str)
    }
}

impl AdminToken {
    pub const MIN_BYTES: usize = 32;

    /// White space at the ends is dropped, so that a file's last newline is not part of the token.
    ///
    /// # Errors
    /// Too short, or not fit for a header.
    pub fn new(text: &str) -> Result<Self, AdminTokenError> {
        let text = text.trim_ascii();
        if text.len() < Self::MIN_BYTES {
            return Err(AdminTokenError::TooShort(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AdminTokenError::Form);
        }
        Ok(Self(text.to_owned()))
    }

    /// In constant time for tokens of one length; the length is no secret.
    fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    // Two credentials: it is not clear which one was checked.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_token_is_long_printable_and_redacted() {
        assert_eq!(AdminToken::new(&"x".repeat(31)).unwrap_err(), AdminTokenError::TooShort(31));
        assert_eq!(AdminToken::new(&"x y".repeat(20)).unwrap_err(), AdminTokenError::Form);
        let token = AdminToken::new(&format!("{}\n", "x".repeat(32))).unwrap();
        assert!(token.is(&[b'x'; 32]) && !token.is(&[b'x'; 31]) && !token.is(&[b'y'; 32]));
        assert_eq!(format!("{token:?}"), "AdminToken(redacted)");
    }
}
