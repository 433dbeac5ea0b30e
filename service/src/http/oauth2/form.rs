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
            // A parameter without a value counts as left out.
            if value.is_empty() {
                continue;
            }
            if pairs.len() >= MAX_PARAMETERS {
                return Err(OAuthError::InvalidRequest("there are too many parameters"));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(OAuthError::InvalidRequest("a parameter is there twice"));
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

/// Whether the answer, which is JSON, is one that the sender takes (RFC 9110 section 12.5.1).
pub fn takes_json(headers: &HeaderMap) -> bool {
    let mut named = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        for range in text.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            named |= !kind.is_empty();
            let refused = parts.any(|part| {
                let weight = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
                weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>() == Ok(0.0))
            });
            if !refused
                && ["*/*", "application/*", "application/json"].iter().any(|ours| kind.eq_ignore_ascii_case(ours))
            {
                return true;
            }
        }
    }
    !named
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

    #[test]
    fn json_is_taken_unless_something_else_is_named() {
        assert!(takes_json(&HeaderMap::new()));
        for good in ["application/json", "*/*", "text/html, application/*;q=0.1", "", "APPLICATION/JSON; charset=utf-8"]
        {
            assert!(takes_json(&with(header::ACCEPT, good)), "{good}");
        }
        for bad in
            ["text/html", "application/token-introspection+jwt", "application/json;q=0", "application/json; q=0.0"]
        {
            assert!(!takes_json(&with(header::ACCEPT, bad)), "{bad}");
        }
    }
}
