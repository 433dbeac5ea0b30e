//! The endpoints for providers: what is read of a request. `answers` has how each outcome is answered.
//!
//! ```text
//! POST /oauth2/backchannel-logout        form, logout_token=…              200 | 400 | 503
//! POST /ssf/events                       application/secevent+jwt          202 | 400 | 503
//! POST /oauth2/global-token-revocation   Bearer JWT, {"sub_id": …}         204 | 400 | 401 | 403 | 404 | 422 | 503
//! ```
mod answers;
mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::provider_events::error::{EventError, RejectReason};
use crate::domain::provider_events::{Endpoint, MAX_TOKEN_BYTES, Message, Outcome, ProviderEvents};
use crate::http::gate::{Gate, Refusal};
use answers::{EventProblem, LogoutProblem, NotTaken};
use metrics::EventResult;
pub use metrics::Metrics;

/// Requests in progress here. Others wait for a place, and those beyond are answered 503 at once. Checks have places of
/// their own.
const MAX_IN_PROGRESS: usize = 64;
const MAX_QUEUED: usize = 512;
const QUEUED: Duration = Duration::from_secs(3);
/// The longest body: a token, and other parameters of a form.
const MAX_BODY_BYTES: usize = MAX_TOKEN_BYTES + 4096;
const FORM: &str = "application/x-www-form-urlencoded";
const SET: &str = "application/secevent+jwt";
const JSON: &str = "application/json";
const PARAMETER: &str = "logout_token";

/// What the endpoints for providers need.
#[derive(Debug, Clone)]
pub struct AppState {
    events: Arc<ProviderEvents>,
    gate: Gate,
    metrics: Metrics,
    /// Throttles the log of refusals, which unauthenticated senders cause.
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
    if serves(Endpoint::GlobalRevocation) {
        routes = routes.routes(routes!(revoke_all));
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

/// A provider asks to end all sessions of a user (draft-parecki-oauth-global-token-revocation section 3).
#[utoipa::path(
    post, path = "/oauth2/global-token-revocation", tag = "provider events",
    request_body(content_type = "application/json", content = GlobalRevocationRequest),
    security(("bearer" = [])),
    responses(
        (status = 204, description = "ended"),
        (status = 400, body = LogoutProblem, description = "the body is wrong, or its format of subjects is not supported"),
        (status = 401, body = LogoutProblem, description = "the JWT is missing or wrong, or was used before"),
        (status = 403, body = LogoutProblem, description = "this caller may not end this user"),
        (status = 404, body = LogoutProblem, description = "there is no such user"),
        (status = 422, body = LogoutProblem, description = "the subject is understood, but cannot be ended"),
        (status = 503, body = LogoutProblem, description = "it may not have ended: send it again with a new JWT"),
    )
)]
async fn revoke_all(State(state): State<AppState>, request: Request) -> Response {
    serve(state, Endpoint::GlobalRevocation, request).await
}

/// Section 3.2 of the draft.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described")]
struct GlobalRevocationRequest {
    /// A subject identifier (RFC 9493).
    sub_id: std::collections::BTreeMap<String, String>,
}

/// Back-Channel Logout 1.0 section 2.5.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described")]
struct LogoutForm {
    logout_token: String,
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
    answers::answer(endpoint, outcome)
}

async fn work(state: &AppState, endpoint: Endpoint, request: Request) -> Result<Outcome, NotTaken> {
    let (request, permit) = state.gate.admit(request).await.map_err(NotTaken::Transport)?;
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &()).await.map_err(|_| NotTaken::Transport(Refusal::CutShort))?;
    let message = match endpoint {
        Endpoint::Logout => of_form(&headers, &body),
        Endpoint::Events => of_body(&headers, &body),
        Endpoint::GlobalRevocation => of_header(&headers, &body)?,
    };
    let message = message.map_err(|rejected| NotTaken::Token(rejected.into()))?;
    // A request that waits for keys has left its place to others.
    state.events.take(message, permit).await.map_err(NotTaken::Token)
}

/// Back-Channel Logout 1.0 section 2.5. Other parameters are ignored, as specified.
fn of_form(headers: &HeaderMap, body: &[u8]) -> Result<Message, RejectReason> {
    if !is_of_type(headers, FORM) {
        return Err(RejectReason::Malformed(format!("the content type must be {FORM}")));
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == PARAMETER);
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(message(Endpoint::Logout, &token, None)),
        (None, _) => Err(RejectReason::Malformed(format!("`{PARAMETER}` is missing"))),
        (Some(_), Some(_)) => Err(RejectReason::Malformed(format!("`{PARAMETER}` is given twice"))),
    }
}

/// RFC 8935 section 2.1.
fn of_body(headers: &HeaderMap, body: &[u8]) -> Result<Message, RejectReason> {
    if !is_of_type(headers, SET) {
        return Err(RejectReason::Malformed(format!("the content type must be {SET}")));
    }
    let token = std::str::from_utf8(body).map_err(|_| RejectReason::Malformed("the body is not a token".into()))?;
    Ok(message(Endpoint::Events, token.trim_ascii(), None))
}

/// The JWT is in the header, as in RFC 6750 section 2.1. Whether it is missing is told before the body is read.
fn of_header(headers: &HeaderMap, body: &[u8]) -> Result<Result<Message, RejectReason>, NotTaken> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return Err(NotTaken::Unauthenticated);
    };
    let Some((scheme, token)) = value.split_once(' ') else { return Err(NotTaken::Unauthenticated) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(NotTaken::Unauthenticated);
    }
    let body = std::str::from_utf8(body).ok().filter(|_| is_of_type(headers, JSON));
    let body = body.ok_or(RejectReason::Body(format!("must be of the type {JSON}")));
    Ok(body.map(|body| message(Endpoint::GlobalRevocation, token.trim_ascii(), Some(body.to_owned()))))
}

fn message(endpoint: Endpoint, token: &str, body: Option<String>) -> Message {
    Message { endpoint, token: token.to_owned(), body }
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return false;
    };
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim_ascii().eq_ignore_ascii_case(wanted)
}

fn result_of(outcome: &Result<Outcome, NotTaken>) -> EventResult {
    match outcome {
        Ok(Outcome::Ended(_)) => EventResult::Ended,
        Ok(Outcome::Noted) => EventResult::Noted,
        Err(NotTaken::Transport(Refusal::Busy) | NotTaken::Token(EventError::Unavailable(_))) => {
            EventResult::Unavailable
        }
        Err(NotTaken::Transport(_) | NotTaken::Unauthenticated | NotTaken::Token(EventError::Rejected(_))) => {
            EventResult::Refused
        }
    }
}

/// Without anything that the token says: its sender chose that.
fn log(state: &AppState, endpoint: Endpoint, not_taken: &NotTaken) {
    let Some(more) = state.refused.pass(Instant::now()) else { return };
    let endpoint = endpoint.name();
    match not_taken {
        NotTaken::Transport(refusal) => tracing::warn!(endpoint, why = %refusal, more, "refused a request"),
        NotTaken::Unauthenticated => tracing::warn!(endpoint, why = "no bearer token", more, "refused a request"),
        NotTaken::Token(EventError::Rejected(RejectReason::Malformed(_) | RejectReason::Body(_))) => {
            tracing::warn!(endpoint, why = "malformed", more, "refused a token");
        }
        NotTaken::Token(EventError::Rejected(refused)) => {
            tracing::warn!(endpoint, why = %refused, more, "refused a token")
        }
        NotTaken::Token(EventError::Unavailable(unavailable)) => {
            tracing::warn!(endpoint, why = unavailable.why, more, "could not decide on a token");
        }
    }
}
