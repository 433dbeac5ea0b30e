//! Errors of the admin API, by RFC 9457.
use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wire::check::StoreError;

use crate::domain::revocations::RevokeError;
use crate::domain::sessions::{IssueError, SessionError};
use crate::domain::status_lists::PlaceError;
use crate::http::gate::Refusal;
use crate::model::field_error::FieldError;
use crate::model::json::JsonError;
use crate::signing::SignError;
use store::{ListError, WriteError};

/// RFC 9457.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    title: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Whether a revocation may be in force although it was not acknowledged: yes, no or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status, title, code, field: None, detail: None, written: None }
    }

    /// An invalid field, and its requirement.
    pub fn field(field: &str, detail: &str) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid_field").detail(format!("`{field}` {detail}"));
        problem.field = Some(field.to_owned());
        problem
    }

    pub fn body(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body").detail(detail.to_owned())
    }

    pub fn no_revocation() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").detail("there is no revocation under this key".into())
    }

    pub fn no_session() -> Self {
        let why = "there is no such session, or it has ended; tokens of a session that was lost can be ended with \
             a revocation of kind `session`";
        Self::new(StatusCode::NOT_FOUND, "not_found").detail(why.into())
    }

    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal")
    }

    pub fn detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    pub fn written(mut self, written: &'static str) -> Self {
        self.written = Some(written);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.name())
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::field(&error.field, &error.detail)
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Field(error) => error.into(),
            JsonError::Body(_) => Self::body(&error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::TooLong | Refusal::CutShort => "invalid_body",
            Refusal::TooSlow => "slow_body",
            Refusal::Busy => "busy",
        };
        Self::new(refusal.status(), code).detail(refusal.to_string())
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::InvalidCursor => Self::field("cursor", "must be the cursor of an earlier page"),
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        let (code, written) = match error {
            WriteError::NotWritten(error) => (error.name(), "no"),
            WriteError::Unknown(error) => (error.name(), "unknown"),
            WriteError::Unconfirmed(_) => ("not_confirmed", "yes"),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code).detail(detail).written(written)
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Unknown(unknown) => Self::field(unknown.field(), &unknown.detail()),
            RevokeError::Unchecked(error) => Self::from(error).written("no"),
            RevokeError::Write(error) => error.into(),
            RevokeError::Note | RevokeError::NotAsked => Self::internal(),
        }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Field(error) => error.into(),
            SessionError::TooMany(_) => Self::new(StatusCode::CONFLICT, "too_many_sessions").detail(error.to_string()),
            SessionError::Store(error) => error.into(),
            SessionError::Write(error) => error.into(),
            SessionError::Issue(IssueError::Place(PlaceError::Full)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "status_lists_full").detail(error.to_string())
            }
            SessionError::Issue(IssueError::Place(PlaceError::Store(error))) => error.into(),
            SessionError::Issue(IssueError::Sign(SignError::Token(_))) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "signing_unavailable")
                    .detail(format!("{error}; the service's log says why"))
            }
            SessionError::Issue(IssueError::Sign(SignError::NoKey | SignError::Failed)) | SessionError::Randomness => {
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
