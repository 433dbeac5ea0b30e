//! `POST /v1/join`: another region asks for our revocations. Every answer to a request that was made with our join secret has
//! our MAC, also when nothing can be told.
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::DerivedKeys;
use wire::join::{Asked, CONTENT_TYPE, Reply};

use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::regions::{Metrics, ServedResult, Serving};
use crate::http::check::status_of;
use crate::http::feed::body;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
/// From a request's headers to the beginning of its reply. Nobody waits for longer.
pub const REQUEST: Duration = Duration::from_secs(10);
/// Requests in progress. Those beyond what the service answers at once are told so.
pub const MAX_REQUESTS: usize = 256;

/// What answering a region needs.
#[derive(Debug, Clone)]
pub struct AppState {
    pub secrets: Arc<[DerivedKeys]>,
    pub serving: Arc<Serving>,
    pub metrics: Metrics,
    /// Throttles the log of refused requests.
    pub refused: Arc<Throttle>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(join))
}

/// A request of another region: bytes, authenticated in both directions. Only with `--join-secret-file`.
#[utoipa::path(
    post, path = "/v1/join", tag = "check",
    request_body(content_type = "application/vnd.portcullis.join", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/vnd.portcullis.join", body = Vec<u8>),
        (status = 400, description = "not a request of a region"),
        (status = 401, description = "made with another secret"),
        (status = 503, content_type = "application/vnd.portcullis.join", body = Vec<u8>),
    )
)]
async fn join(State(state): State<AppState>, Extension(connection): Extension<Connection>, body: Bytes) -> Response {
    let received = Instant::now();
    let asked = match Asked::read(&state.secrets, &body) {
        Ok(asked) => asked,
        Err(error) => {
            state.metrics.served(ServedResult::Refused);
            if let Some(more) = state.refused.pass(received) {
                tracing::warn!(%error, more, "refused a request to join");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    drop(body);
    connection.authenticate();
    // `secret` is the index of the secret that `read` found among these.
    let Some(derived) = state.secrets.get(asked.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE];
    match state.serving.answer(asked.question(), received).await {
        Ok(content) => {
            state.metrics.served(ServedResult::Answered);
            let reply = asked.reply(derived, &Reply { facts: state.serving.facts(), content });
            (headers, body::sent_in_time(reply.into(), None)).into_response()
        }
        Err(trouble) => {
            state.metrics.served(ServedResult::Trouble);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, headers, asked.trouble(derived, status.as_u16(), trouble)).into_response()
        }
    }
}
