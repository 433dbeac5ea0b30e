//! How a client authenticates: by HTTP Basic, or by `client_id` and `client_secret` in the body (RFC 6749 section 2.3.1).
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::OAuthError;
use super::form::Form;
use crate::domain::clients::{Client, Clients};

/// # Errors
/// `invalid_client`, or `invalid_request` for two ways at once.
pub fn authenticate(clients: &Clients, headers: &HeaderMap, form: &Form) -> Result<Client, OAuthError> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (id, secret, by_header) = match (lines.next(), lines.next()) {
        (Some(line), None) => {
            if form.get("client_secret").is_some() {
                return Err(OAuthError::InvalidRequest("the client authenticates in two ways at once"));
            }
            let (id, secret) = basic(line.as_bytes()).ok_or(OAuthError::InvalidClient { challenge: true })?;
            if form.get("client_id").is_some_and(|other| other != id) {
                return Err(OAuthError::InvalidRequest("`client_id` is not the client that authenticates"));
            }
            (id, secret, true)
        }
        (Some(_), Some(_)) => return Err(OAuthError::InvalidRequest("there is more than one Authorization")),
        (None, _) => match (form.get("client_id"), form.get("client_secret")) {
            (Some(id), Some(secret)) => (id.to_owned(), secret.to_owned(), false),
            _ => return Err(OAuthError::InvalidClient { challenge: true }),
        },
    };
    clients.verify(&id, secret.as_bytes()).ok_or(OAuthError::InvalidClient { challenge: by_header })
}

/// Both halves are form-encoded before they are joined (RFC 6749 section 2.3.1).
fn basic(line: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = line.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decoded(id)?, decoded(secret)?))
}

fn decoded(text: &str) -> Option<String> {
    // One value without a name: characters that could end a value are refused before.
    if text.contains(['&', '=']) {
        return None;
    }
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    Some(pairs.next().map(|(name, _)| name.into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
