//! How each outcome is answered.
//!
//! Errors of logouts and revocation requests are JSON `{error, error_description}` (Back-Channel Logout 1.0 section 2.8, RFC
//! 6749 section 5.2), of events `{err, description}` (RFC 8935 section 2.3). 503 comes with Retry-After. Nothing is ever
//! cached.
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::provider_events::error::{EventError, RejectReason, SubjectFault};
use crate::domain::provider_events::{Endpoint, Outcome};
use crate::http::gate::Refusal;

/// The longest description of an error, in characters.
const MAX_DESCRIPTION: usize = 256;

/// Back-Channel Logout 1.0 section 2.8.
#[derive(Serialize, ToSchema)]
pub struct LogoutProblem {
    error: &'static str,
    error_description: String,
}

/// RFC 8935 section 2.3.
#[derive(Serialize, ToSchema)]
pub struct EventProblem {
    err: &'static str,
    description: String,
}

/// Why there is no success: an error of the request, or of the token.
pub enum NotTaken {
    Transport(Refusal),
    /// A revocation request without a JWT.
    Unauthenticated,
    Token(EventError),
}

struct Answer {
    status: StatusCode,
    code: &'static str,
    text: String,
    retry_after: Option<u64>,
}

pub fn answer(endpoint: Endpoint, outcome: Result<Outcome, NotTaken>) -> Response {
    let mut response = match (outcome, endpoint) {
        (Ok(_), Endpoint::Logout) => StatusCode::OK.into_response(),
        (Ok(_), Endpoint::Events) => StatusCode::ACCEPTED.into_response(),
        (Ok(_), Endpoint::GlobalRevocation) => StatusCode::NO_CONTENT.into_response(),
        (Err(not_taken), endpoint) => refuse(endpoint, &not_taken),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refuse(endpoint: Endpoint, not_taken: &NotTaken) -> Response {
    let Answer { status, code, text, retry_after } = refusal(endpoint, not_taken);
    let text = printable(&text);
    let language = [(header::CONTENT_LANGUAGE, "en")];
    let mut response = match endpoint {
        Endpoint::Logout | Endpoint::GlobalRevocation => {
            (status, language, Json(LogoutProblem { error: code, error_description: text })).into_response()
        }
        Endpoint::Events => (status, language, Json(EventProblem { err: code, description: text })).into_response(),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 section 3.1: no code if there was no token.
        let challenge = match not_taken {
            NotTaken::Unauthenticated => "Bearer realm=\"portcullis\"",
            _ => "Bearer realm=\"portcullis\", error=\"invalid_token\"",
        };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn refusal(endpoint: Endpoint, not_taken: &NotTaken) -> Answer {
    let of = |status, code, text: String| Answer { status, code, text, retry_after: None };
    match not_taken {
        NotTaken::Transport(Refusal::Busy) => {
            let answer = of(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", Refusal::Busy.to_string());
            Answer { retry_after: Some(1), ..answer }
        }
        NotTaken::Transport(refusal) => of(refusal.status(), "invalid_request", refusal.to_string()),
        NotTaken::Unauthenticated => {
            of(StatusCode::UNAUTHORIZED, "invalid_request", "a JWT is needed: Authorization: Bearer".into())
        }
        NotTaken::Token(EventError::Rejected(refused)) => {
            let (status, code) = match endpoint {
                // Section 2.8 defines no codes of its own; RFC 6749 section 5.2 has this one for all of them.
                Endpoint::Logout => (StatusCode::BAD_REQUEST, "invalid_request"),
                Endpoint::Events => (StatusCode::BAD_REQUEST, refused.set_code()),
                Endpoint::GlobalRevocation => of_revocation(refused),
            };
            of(status, code, refused.to_string())
        }
        NotTaken::Token(EventError::Unavailable(unavailable)) => {
            let seconds = unavailable.retry_after.as_secs().saturating_add(1);
            let answer = of(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", unavailable.text.to_owned());
            Answer { retry_after: Some(seconds), ..answer }
        }
    }
}

/// Section 3.4.2 of the draft. It defines no codes in the body, so these are RFC 6750's where there is one.
fn of_revocation(refused: &RejectReason) -> (StatusCode, &'static str) {
    match refused {
        RejectReason::Body(_) | RejectReason::Subject(SubjectFault::Malformed | SubjectFault::Unsupported, _) => {
            (StatusCode::BAD_REQUEST, "invalid_request")
        }
        RejectReason::Caller | RejectReason::Subject(SubjectFault::Foreign, _) => {
            (StatusCode::FORBIDDEN, "insufficient_scope")
        }
        RejectReason::Subject(SubjectFault::Unknown, _) => (StatusCode::NOT_FOUND, "user_not_found"),
        RejectReason::Subject(SubjectFault::Unending, _) => (StatusCode::UNPROCESSABLE_ENTITY, "unable_to_log_out"),
        RejectReason::Malformed(_)
        | RejectReason::Issuer
        | RejectReason::Audience
        | RejectReason::Algorithm
        | RejectReason::UnknownKey
        | RejectReason::Signature
        | RejectReason::Type(_)
        | RejectReason::Claim(..)
        | RejectReason::Replayed
        | RejectReason::Events(_) => (StatusCode::UNAUTHORIZED, "invalid_token"),
    }
}

/// In the characters of RFC 6749 section 5.2, and bounded: parts of it repeat what was sent.
fn printable(text: &str) -> String {
    let fit = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
    text.chars().take(MAX_DESCRIPTION).map(fit).collect()
}
