//! The OAuth 2.0 endpoints, for known clients: token (RFC 6749 section 6), introspection (RFC 7662), revocation (RFC
//! 7009), and the keys that verify our JWTs (RFC 7517).
//!
//! ```text
//! POST /oauth2/token        grant_type=refresh_token&refresh_token=…[&scope=…]    200 {access_token, refresh_token, …}
//! POST /oauth2/introspect   token=…    200 {active: true, …claims} or {active: false}
//! POST /oauth2/revoke       token=…    200 and no body
//! GET  /.well-known/jwks.json
//! ```
mod client;
mod error;
mod form;
mod metrics;
mod proof;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::audit::{Audit, Event};
use crate::domain::clients::{Client, May};
use crate::domain::sessions::{ActiveToken, Sessions, Tokens};
use crate::http::accept::takes;
use crate::model::session::Audience;
use crate::signing::JwkSet;
use client::authenticate;
use error::{NO_STORE, OAuthError, OAuthProblem};
use form::Form;
pub use metrics::Metrics;
use store::ReplayGuard;

/// The longest body: the longest token that a filter accepts, each byte escaped, and the other parameters.
pub const MAX_BODY: usize = 3 * 64 * 1024 + 8 * 1024;
/// How long a proxy may cache the keys. A key signs a few seconds after it was published, and a proxy that meets an unknown
/// key fetches at once.
const KEYS_MAX_AGE: &str = "public, max-age=60";

/// RFC 6749 section 6; with `client_id` and `client_secret` if the client does not use Basic.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the body for the API description; Form reads it")]
struct RefreshForm {
    /// `refresh_token`
    grant_type: String,
    refresh_token: String,
    /// A subset of the session's scopes; default: all.
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// RFC 7662 section 2.1 and RFC 7009 section 2.1.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the body for the API description; Form reads it")]
struct TokenForm {
    token: String,
    /// Ignored.
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// RFC 7662 section 2.2. Only `active`, if it is false.
#[derive(Serialize, ToSchema, Default)]
struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Audience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// `Bearer`, or `DPoP` for a token that is bound to a key
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// Unix seconds, as `iat` and `auth_time` are.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    /// For so many seconds a filter that follows the feed of revocations may keep this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    portcullis_keep_for: Option<u64>,
    /// The session's further claims.
    #[serde(flatten)]
    further: Map<String, Value>,
}

impl From<ActiveToken> for Introspection {
    fn from(token: ActiveToken) -> Self {
        let mut claims = token.claims;
        claims.further.remove("portcullis_keep_for");
        let token_type = claims.token_type();
        Self {
            active: true,
            iss: Some(claims.iss),
            sub: Some(claims.sub),
            aud: claims.aud,
            sid: Some(claims.sid),
            jti: Some(token.jti),
            client_id: claims.client_id,
            scope: claims.scope,
            token_type: Some(token_type),
            exp: Some(token.exp),
            iat: Some(token.iat),
            auth_time: Some(claims.auth_time),
            portcullis_keep_for: Some(token.keep_for),
            further: claims.further,
        }
    }
}

/// What the endpoints for clients need.
#[derive(Debug, Clone)]
pub struct AppState {
    pub sessions: Arc<Sessions>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub audit: Arc<Audit>,
    pub metrics: Metrics,
    /// Clients refused, as they are logged.
    pub refused: Arc<Throttle>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(token)).routes(routes!(introspect)).routes(routes!(revoke))
}

pub fn key_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// Exchange a refresh token for the next one (RFC 6749 section 6). With a proof in the header `DPoP`, the access token is bound
/// to its key (RFC 9449 section 5).
#[utoipa::path(
    post, path = "/oauth2/token", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = RefreshForm),
    responses(
        (status = 200, body = Tokens),
        (status = 400, body = OAuthProblem, description = "RFC 6749 section 5.2"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "the store cannot be read"),
    )
)]
async fn token(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (client, form) = read(&state, &connection, &headers, &body)?;
        if form.must("grant_type", "`grant_type` is missing")? != "refresh_token" {
            return Err(OAuthError::UnsupportedGrantType);
        }
        must(&client, May::Refresh)?;
        let refresh_token = form.must("refresh_token", "`refresh_token` is missing")?;
        let url = state.sessions.config.token_url.as_ref();
        let key = proof::proved_key(url, &headers, &*state.replay_guard).await?;
        let tokens = state.sessions.refresh(&client, refresh_token, form.get("scope"), key).await?;
        Ok((NO_STORE, Json(tokens)).into_response())
    };
    finish(&state, "token", answer.await)
}

/// Whether an access token is active, and its claims (RFC 7662).
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = TokenForm),
    responses(
        (status = 200, body = Introspection, description = "only `active`, if it is false"),
        (status = 400, body = OAuthProblem, description = "`invalid_request`"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "the store cannot be read"),
    )
)]
async fn introspect(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (client, form) = read(&state, &connection, &headers, &body)?;
        must(&client, May::Introspect)?;
        let token = form.must("token", "`token` is missing")?;
        let active = state.sessions.introspect(token).await?;
        Ok((NO_STORE, Json(active.map(Introspection::from).unwrap_or_default())).into_response())
    };
    finish(&state, "introspect", answer.await)
}

/// End the session that a token belongs to (RFC 7009).
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = TokenForm),
    responses(
        (status = 200, description = "it is no longer valid, or never was"),
        (status = 400, body = OAuthProblem, description = "RFC 6749 section 5.2"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "it may still be valid: try again"),
    )
)]
async fn revoke(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (client, form) = read(&state, &connection, &headers, &body)?;
        must(&client, May::Revoke)?;
        let token = form.must("token", "`token` is missing")?;
        // An unknown token is no error (section 2.2).
        let Some(kept) = state.sessions.session_of(token).await? else { return Ok(NO_STORE.into_response()) };
        if kept.data.client_id.as_deref() != Some(&client.id) {
            return Err(OAuthError::InvalidGrant("the token was issued to another client"));
        }
        let by = format!("client:{}", client.id);
        let ended = state.sessions.end(&kept, Some("revoked by its client"), &by).await;
        let outcome = if ended.is_ok() { "done" } else { "not confirmed" };
        let event = Event {
            from: Some(connection.address().to_string()),
            iss: Some(kept.data.iss.clone()),
            sub: Some(kept.data.sub.clone()),
            sid: Some(kept.data.sid.clone()),
            client_id: kept.data.client_id.clone(),
            ..Event::new(&by, "session.end", outcome)
        };
        state.audit.write(event).await;
        ended?;
        Ok(NO_STORE.into_response())
    };
    finish(&state, "revoke", answer.await)
}

/// The public keys of the service's JWTs (RFC 7517 section 5).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "oauth2", 
    responses((status = 200, content_type = "application/jwk-set+json", body = JwkSet)))]
async fn jwks(State(state): State<AppState>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, KEYS_MAX_AGE)];
    (headers, serde_json::to_string(&state.sessions.signing.jwks()).unwrap_or_default()).into_response()
}

/// The client, by its secret, and its request.
fn read(
    state: &AppState,
    connection: &Connection,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Client, Form), OAuthError> {
    if !takes(headers, "application/json") {
        return Err(OAuthError::NotAcceptable);
    }
    let form = Form::read(headers, body)?;
    match authenticate(&state.sessions.clients, headers, &form) {
        Ok(client) => {
            connection.authenticate();
            Ok((client, form))
        }
        Err(error) => {
            // One line a second: strangers can cause it.
            if let Some(more) = state.refused.pass(Instant::now()) {
                tracing::warn!(peer = %connection.address(), error = error.code(), more, "refused a client");
            }
            Err(error)
        }
    }
}

fn must(client: &Client, may: May) -> Result<(), OAuthError> {
    if client.may(may) { Ok(()) } else { Err(OAuthError::UnauthorizedClient) }
}

fn finish(state: &AppState, endpoint: &'static str, answer: Result<Response, OAuthError>) -> Response {
    state.metrics.answered(endpoint, answer.as_ref().err());
    answer.unwrap_or_else(IntoResponse::into_response)
}
