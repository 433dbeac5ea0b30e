//! `POST /v1/check`: the filter's question, answered or refused. Whatever was asked with our secret is answered with
//! our MAC, troubles too.
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire::check::{Asked, CONTENT_TYPE, QuestionError, Trouble};

use crate::connections::Proof;
use crate::metrics::CheckResult;
use crate::server::Shared;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

pub async fn check(State(shared): State<Arc<Shared>>, Extension(proof): Extension<Proof>, body: Bytes) -> Response {
    let asked = match Asked::read(&shared.secrets, &body) {
        Ok(asked) => asked,
        Err(error) => {
            shared.metrics.check(CheckResult::Refused);
            if let Some(more) = shared.refused.pass(Instant::now()) {
                tracing::warn!(%error, more, "refused a check");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    proof.given();
    // `secret` is the place of the one that `read` found among these.
    let Some(derived) = shared.secrets.get(asked.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    shared.metrics.keys_per_check.observe(asked.keys().len() as f64);
    let answered = if u64::from(asked.retention_seconds()) > shared.options.retention_seconds() {
        Err(Trouble::RetentionTooShort)
    } else {
        shared.store.check(asked.keys()).await
    };
    let (status, body) = match answered {
        Ok(answers) => {
            shared.metrics.check(CheckResult::Answered);
            (StatusCode::OK, asked.answers(derived, &answers))
        }
        Err(trouble) => {
            shared.metrics.check(CheckResult::Trouble);
            shared.metrics.trouble(trouble);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, asked.trouble(derived, status.as_u16(), trouble))
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE], body).into_response()
}

fn status_of(error: QuestionError) -> StatusCode {
    match error {
        QuestionError::Malformed | QuestionError::Count => StatusCode::BAD_REQUEST,
        QuestionError::UnknownSecret | QuestionError::Forged => StatusCode::UNAUTHORIZED,
    }
}
