//! `POST /v1/sightings`: a filter's report of from where sessions are used. Every answer to a report that was made with our secret
//! has our MAC.
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::DerivedKeys;
use wire::sightings::{CONTENT_TYPE, Reported};

use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::hijack::{Hijack, Metrics, ReportResult};
use crate::http::check::status_of;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// What taking a report needs.
#[derive(Debug, Clone)]
pub struct AppState {
    pub secrets: Arc<[DerivedKeys]>,
    pub hijack: Arc<Hijack>,
    pub metrics: Metrics,
    /// Throttles the log of refused reports.
    pub refused: Arc<Throttle>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(report))
}

/// A filter's report of from where sessions are used: bytes, authenticated in both directions. Only with --sightings-file.
#[utoipa::path(
    post, path = "/v1/sightings", tag = "check",
    request_body(content_type = "application/vnd.portcullis.sightings", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/vnd.portcullis.sightings", body = Vec<u8>),
        (status = 400, description = "not a report"),
        (status = 401, description = "made with another secret"),
        (status = 503, content_type = "application/vnd.portcullis.sightings", body = Vec<u8>),
    )
)]
async fn report(State(state): State<AppState>, Extension(connection): Extension<Connection>, body: Bytes) -> Response {
    let reported = match Reported::read(&state.secrets, &body) {
        Ok(reported) => reported,
        Err(error) => {
            state.metrics.reported(ReportResult::Refused);
            if let Some(more) = state.refused.pass(Instant::now()) {
                tracing::warn!(%error, more, "refused a report of sightings");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    connection.authenticate();
    // `secret` is the index of the secret that `read` found among these.
    let Some(derived) = state.secrets.get(reported.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let is_taken = state.hijack.take(&reported).await;
    let status = if is_taken { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = reported.reply(derived, status.as_u16(), is_taken);
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE], body).into_response()
}
