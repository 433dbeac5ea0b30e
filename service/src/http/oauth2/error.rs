//! Errors of the OAuth 2.0 endpoints (RFC 6749 section 5.2, RFC 7009 section 2.2.1, RFC 7662 section 2.3).
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wire::check::StoreError;

use crate::domain::sessions::RefreshError;
use crate::signing::SignError;
use store::WriteError;

/// The time before a retry if the store could not be read, in seconds.
const RETRY_AFTER: &str = "1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthError {
    InvalidRequest(&'static str),
    /// `challenge`: the client used, or should have used, the Authorization header.
    InvalidClient {
        challenge: bool,
    },
    InvalidGrant(&'static str),
    InvalidScope,
    /// RFC 9449 section 5.
    InvalidDpopProof(&'static str),
    UnauthorizedClient,
    UnsupportedGrantType,
    NotAcceptable,
    /// It cannot be decided.
    Unavailable(StoreError),
    /// The token (HSM) with the signing key does not sign now.
    SigningUnavailable,
    /// No status list has room for the token.
    ListsFull,
    Internal,
}

/// RFC 6749 section 5.2.
#[derive(Serialize, ToSchema)]
pub struct OAuthProblem {
    error: &'static str,
    error_description: &'static str,
}

impl OAuthError {
    /// The name in logs, metrics and the answer.
    pub fn code(self) -> &'static str {
        match self {
            OAuthError::InvalidRequest(_) | OAuthError::NotAcceptable => "invalid_request",
            OAuthError::InvalidClient { .. } => "invalid_client",
            OAuthError::InvalidGrant(_) => "invalid_grant",
            OAuthError::InvalidScope => "invalid_scope",
            OAuthError::InvalidDpopProof(_) => "invalid_dpop_proof",
            OAuthError::UnauthorizedClient => "unauthorized_client",
            OAuthError::UnsupportedGrantType => "unsupported_grant_type",
            OAuthError::Unavailable(_) | OAuthError::SigningUnavailable | OAuthError::ListsFull => {
                "temporarily_unavailable"
            }
            OAuthError::Internal => "server_error",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            OAuthError::InvalidRequest(_)
            | OAuthError::InvalidGrant(_)
            | OAuthError::InvalidScope
            | OAuthError::InvalidDpopProof(_)
            | OAuthError::UnauthorizedClient
            | OAuthError::UnsupportedGrantType => StatusCode::BAD_REQUEST,
            OAuthError::InvalidClient { .. } => StatusCode::UNAUTHORIZED,
            OAuthError::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            OAuthError::Unavailable(_) | OAuthError::SigningUnavailable | OAuthError::ListsFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            OAuthError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn description(self) -> &'static str {
        match self {
            OAuthError::InvalidRequest(what) | OAuthError::InvalidGrant(what) | OAuthError::InvalidDpopProof(what) => {
                what
            }
            OAuthError::InvalidClient { .. } => "the client is unknown, or did not authenticate",
            OAuthError::InvalidScope => "a scope is malformed, or was not granted to the session",
            OAuthError::UnauthorizedClient => "the client may not do this",
            OAuthError::UnsupportedGrantType => "only `refresh_token` is supported",
            OAuthError::NotAcceptable => "the answer is application/json, which `Accept` excludes",
            OAuthError::Unavailable(trouble) => trouble.name(),
            OAuthError::SigningUnavailable => "signing_unavailable",
            OAuthError::ListsFull => "status_lists_full",
            OAuthError::Internal => "the service failed",
        }
    }
}

impl From<StoreError> for OAuthError {
    fn from(trouble: StoreError) -> Self {
        OAuthError::Unavailable(trouble)
    }
}

impl From<WriteError> for OAuthError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotWritten(trouble) | WriteError::Unknown(trouble) => OAuthError::Unavailable(trouble),
            WriteError::Unconfirmed(_) => OAuthError::Unavailable(StoreError::StoreUnsafe),
        }
    }
}

impl From<RefreshError> for OAuthError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::InvalidGrant(why) => OAuthError::InvalidGrant(why),
            RefreshError::InvalidScope => OAuthError::InvalidScope,
            RefreshError::InvalidDpopProof(why) => OAuthError::InvalidDpopProof(why),
            RefreshError::Unavailable(error) => OAuthError::Unavailable(error),
            RefreshError::ListsFull => OAuthError::ListsFull,
            RefreshError::Sign(SignError::Token(_)) => OAuthError::SigningUnavailable,
            RefreshError::Sign(SignError::NoKey | SignError::Failed) | RefreshError::Internal => OAuthError::Internal,
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = OAuthProblem { error: self.code(), error_description: self.description() };
        let mut response = (self.status(), NO_STORE, Json(body)).into_response();
        if self == (OAuthError::InvalidClient { challenge: true }) {
            let challenge = header::HeaderValue::from_static("Basic realm=\"portcullis\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if matches!(self, OAuthError::Unavailable(_) | OAuthError::SigningUnavailable | OAuthError::ListsFull) {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

/// RFC 6749 section 5.1; answers about tokens are as sensitive.
pub const NO_STORE: [(header::HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
