//! Bodies of the OAuth 2.0 endpoints: `application/x-www-form-urlencoded`, each parameter once (RFC 6749 section 3.2).
use axum::http::{HeaderMap, header};

use super::error::OAuthError;

/// No endpoint has more parameters, and unknown ones must not cost.
const MAX_PARAMETERS: usize = 32;

pub struct Form(Vec<(String, String)>);

impl Form {
    /// # Errors
    /// `invalid_request`.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let named = types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let plain = named.split(';').next().unwrap_or_default().trim();
        if types.next().is_some() || !plain.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthError::InvalidRequest("the body must be application/x-www-form-urlencoded"));
        }
        Self::parse(body)
    }

    /// # Errors
    /// `invalid_request`.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            // A parameter without a value counts as absent.
            if value.is_empty() {
                continue;
            }
            if pairs.len() >= MAX_PARAMETERS {
                return Err(OAuthError::InvalidRequest("there are too many parameters"));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(OAuthError::InvalidRequest("a parameter is given twice"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// `invalid_request`, if it is missing.
    pub fn must(&self, name: &str, missing: &'static str) -> Result<&str, OAuthError> {
        self.get(name).ok_or(OAuthError::InvalidRequest(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn each_parameter_is_there_once() {
        let form = Form::parse(b"token=a%20b&x=&token_type_hint=access_token&x=").unwrap();
        assert_eq!((form.get("token"), form.get("x")), (Some("a b"), None));
        assert!(Form::parse(b"token=a&token=b").is_err());
        let many: String = (0..40).map(|n| format!("p{n}=1&")).collect();
        assert!(Form::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn only_forms_are_read() {
        for good in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"] {
            assert!(Form::read(&with(header::CONTENT_TYPE, good), b"a=b").is_ok());
        }
        for bad in ["application/json", "text/plain", "", "application/x-www-form-urlencodedx"] {
            assert!(Form::read(&with(header::CONTENT_TYPE, bad), b"a=b").is_err());
        }
        assert!(Form::read(&HeaderMap::new(), b"a=b").is_err());
    }
}
