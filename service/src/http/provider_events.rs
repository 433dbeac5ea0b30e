//! The two endpoints for providers: what is read of a request, and how each outcome is answered.
//!
//! ```text
//! POST /oauth2/backchannel-logout   form, logout_token=…         200 | 400 | 503
//! POST /ssf/events                  application/secevent+jwt     202 | 400 | 503
//! ```
//! Errors of the first are JSON `{error, error_description}` (Back-Channel Logout 1.0 section 2.8, RFC 6749 section 5.2),
//! of the second `{err, description}` (RFC 8935 section 2.3). 503 comes with Retry-After. Nothing is ever cached.
mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::provider_events::error::{EventError, RejectReason};
use crate::domain::provider_events::{Endpoint, MAX_TOKEN_BYTES, Outcome, ProviderEvents};
use crate::http::gate::{Gate, Refusal};
use metrics::EventResult;
pub use metrics::Metrics;

/// Requests in progress here. Others wait for a place, and those beyond are answered 503 at once. Checks have places of
/// their own.
const MAX_IN_PROGRESS: usize = 64;
const MAX_QUEUED: usize = 512;
const QUEUED: Duration = Duration::from_secs(3);
/// The longest body: a token, and what a form may have beside it.
const MAX_BODY_BYTES: usize = MAX_TOKEN_BYTES + 4096;
const FORM: &str = "application/x-www-form-urlencoded";
const SET: &str = "application/secevent+jwt";
const PARAMETER: &str = "logout_token";
/// The longest description of an error, in characters.
const MAX_DESCRIPTION: usize = 256;

/// What the endpoints for providers need.
#[derive(Debug, Clone)]
pub struct AppState {
    events: Arc<ProviderEvents>,
    gate: Gate,
    metrics: Metrics,
    /// Refusals, as they are logged: strangers cause them.
    refused: Arc<Throttle>,
}

impl AppState {
    pub fn new(events: Arc<ProviderEvents>, metrics: Metrics) -> Self {
        let gate = Gate::new(MAX_IN_PROGRESS, MAX_BODY_BYTES).with_queue(MAX_QUEUED, QUEUED);
        Self { events, gate, metrics, refused: Arc::default() }
    }
}

/// All endpoints, for the API description.
pub fn all_routes() -> OpenApiRouter<AppState> {
    routes(|_| true)
}

/// The endpoints that a provider may send to.
pub fn routes(serves: impl Fn(Endpoint) -> bool) -> OpenApiRouter<AppState> {
    let mut routes = OpenApiRouter::new();
    if serves(Endpoint::Logout) {
        routes = routes.routes(routes!(logout));
    }
    if serves(Endpoint::Events) {
        routes = routes.routes(routes!(events));
    }
    routes
}

/// A provider reports a logout (OpenID Connect Back-Channel Logout 1.0 section 2.5).
#[utoipa::path(
    post, path = "/oauth2/backchannel-logout", tag = "provider events",
    request_body(content_type = "application/x-www-form-urlencoded", content = LogoutForm),
    responses(
        (status = 200, description = "ended"),
        (status = 400, body = LogoutProblem, description = "`error` says what is wrong with the token"),
        (status = 503, body = LogoutProblem, description = "it may not have ended: send it again"),
    )
)]
async fn logout(State(state): State<AppState>, request: Request) -> Response {
    serve(state, Endpoint::Logout, request).await
}

/// A provider pushes a security event (RFC 8935 section 2.1).
#[utoipa::path(
    post, path = "/ssf/events", tag = "provider events",
    request_body(content_type = "application/secevent+jwt", content = String),
    responses(
        (status = 202, description = "taken"),
        (status = 400, body = EventProblem, description = "`err` says what is wrong with the event"),
        (status = 503, body = EventProblem, description = "it may not have been taken: send it again"),
    )
)]
async fn events(State(state): State<AppState>, request: Request) -> Response {
    serve(state, Endpoint::Events, request).await
}

/// Back-Channel Logout 1.0 section 2.5.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described")]
struct LogoutForm {
    logout_token: String,
}

/// Back-Channel Logout 1.0 section 2.8.
#[derive(Serialize, ToSchema)]
struct LogoutProblem {
    error: &'static str,
    error_description: String,
}

/// RFC 8935 section 2.3.
#[derive(Serialize, ToSchema)]
struct EventProblem {
    err: &'static str,
    description: String,
}

/// Why there is no success: of the request's transport, or of the token.
enum NotTaken {
    Transport(Refusal),
    Token(EventError),
}

async fn serve(state: AppState, endpoint: Endpoint, request: Request) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let outcome = work(&state, endpoint, request).await;
    state.metrics.answered(endpoint, result_of(&outcome));
    match &outcome {
        // Only a provider can have made the token, and it works once, so the connection is no stranger's. An event that was
        // taken before proves nothing: a stranger who captured it can open any number of connections.
        Ok(Outcome::Ended(_)) => {
            if let Some(connection) = connection {
                connection.authenticate();
            }
        }
        Ok(Outcome::Noted) => {}
        Err(not_taken) => log(&state, endpoint, not_taken),
    }
    let mut response = match outcome {
        Ok(_) => match endpoint {
            Endpoint::Logout => StatusCode::OK.into_response(),
            Endpoint::Events => StatusCode::ACCEPTED.into_response(),
        },
        Err(not_taken) => refuse(endpoint, &not_taken),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn work(state: &AppState, endpoint: Endpoint, request: Request) -> Result<Outcome, NotTaken> {
    let (request, permit) = state.gate.admit(request).await.map_err(NotTaken::Transport)?;
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &()).await.map_err(|_| NotTaken::Transport(Refusal::CutShort))?;
    let token = match endpoint {
        Endpoint::Logout => of_form(&headers, &body),
        Endpoint::Events => of_body(&headers, &body),
    };
    let token = token.map_err(|rejected| NotTaken::Token(rejected.into()))?;
    // A request that waits for keys has left its place to others.
    state.events.take(endpoint, token, permit).await.map_err(NotTaken::Token)
}

/// Back-Channel Logout 1.0 section 2.5. Other parameters are ignored, as it says.
fn of_form(headers: &HeaderMap, body: &[u8]) -> Result<String, RejectReason> {
    if !is_of_type(headers, FORM) {
        return Err(RejectReason::Malformed(format!("the content type must be {FORM}")));
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == PARAMETER);
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(token.into_owned()),
        (None, _) => Err(RejectReason::Malformed(format!("`{PARAMETER}` is missing"))),
        (Some(_), Some(_)) => Err(RejectReason::Malformed(format!("`{PARAMETER}` is there twice"))),
    }
}

/// RFC 8935 section 2.1.
fn of_body(headers: &HeaderMap, body: &[u8]) -> Result<String, RejectReason> {
    if !is_of_type(headers, SET) {
        return Err(RejectReason::Malformed(format!("the content type must be {SET}")));
    }
    let token = std::str::from_utf8(body).map_err(|_| RejectReason::Malformed("the body is no token".into()))?;
    Ok(token.trim_ascii().to_owned())
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return false;
    };
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim_ascii().eq_ignore_ascii_case(wanted)
}

fn refuse(endpoint: Endpoint, not_taken: &NotTaken) -> Response {
    let (status, code, text, retry_after) = match not_taken {
        NotTaken::Transport(Refusal::Busy) => {
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", Refusal::Busy.to_string(), Some(1))
        }
        NotTaken::Transport(refusal) => (refusal.status(), "invalid_request", refusal.to_string(), None),
        NotTaken::Token(EventError::Rejected(refused)) => {
            let code = match endpoint {
                // Section 2.8 names no codes of its own; RFC 6749 section 5.2 has this one for all of them.
                Endpoint::Logout => "invalid_request",
                Endpoint::Events => refused.set_code(),
            };
            (StatusCode::BAD_REQUEST, code, refused.to_string(), None)
        }
        NotTaken::Token(EventError::Unavailable(unavailable)) => {
            let seconds = unavailable.retry_after.as_secs().saturating_add(1);
            let text = unavailable.text.to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text, Some(seconds))
        }
    };
    let text = printable(&text);
    let language = [(header::CONTENT_LANGUAGE, "en")];
    let mut response = match endpoint {
        Endpoint::Logout => {
            (status, language, Json(LogoutProblem { error: code, error_description: text })).into_response()
        }
        Endpoint::Events => (status, language, Json(EventProblem { err: code, description: text })).into_response(),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn result_of(outcome: &Result<Outcome, NotTaken>) -> EventResult {
    match outcome {
        Ok(Outcome::Ended(_)) => EventResult::Ended,
        Ok(Outcome::Noted) => EventResult::Noted,
        Err(NotTaken::Transport(Refusal::Busy) | NotTaken::Token(EventError::Unavailable(_))) => {
            EventResult::Unavailable
        }
        Err(NotTaken::Transport(_) | NotTaken::Token(EventError::Rejected(_))) => EventResult::Refused,
    }
}

/// In the characters of RFC 6749 section 5.2, and not endless: some of it repeats what was sent.
fn printable(text: &str) -> String {
    let fit = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
    text.chars().take(MAX_DESCRIPTION).map(fit).collect()
}

/// Without anything that the token says: its sender chose that.
fn log(state: &AppState, endpoint: Endpoint, not_taken: &NotTaken) {
    let Some(more) = state.refused.pass(Instant::now()) else { return };
    let endpoint = endpoint.name();
    match not_taken {
        NotTaken::Transport(refusal) => tracing::warn!(endpoint, why = %refusal, more, "refused a request"),
        NotTaken::Token(EventError::Rejected(RejectReason::Malformed(_))) => {
            tracing::warn!(endpoint, why = "malformed", more, "refused a token");
        }
        NotTaken::Token(EventError::Rejected(refused)) => {
            tracing::warn!(endpoint, why = %refused, more, "refused a token")
        }
        NotTaken::Token(EventError::Unavailable(unavailable)) => {
            tracing::warn!(endpoint, why = unavailable.why, more, "could not tell about a token");
        }
    }
}
