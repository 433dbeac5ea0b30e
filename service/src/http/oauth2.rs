//! The OAuth 2.0 endpoints, for clients that are known: token (RFC 6749 section 6), introspection (RFC 7662), revocation
//! (RFC 7009), and the keys that verify our JWTs (RFC 7517).
//!
//! ```text
//! POST /oauth2/token        grant_type=refresh_token&refresh_token=…[&scope=…]    200 {access_token, refresh_token, …}
//! POST /oauth2/introspect   token=…    200 {active: true, …claims} or {active: false}
//! POST /oauth2/revoke       token=…    200 and no body
//! GET  /.well-known/jwks.json
//! ```
pub mod client;
pub mod error;
pub mod form;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::metrics::OAuthResult;
use crate::app::server::Shared;
use crate::base::connections::Proof;
use crate::domain::audit::Event;
use crate::domain::sessions::Sessions;
use client::{Client, May};
use error::{NO_STORE, OAuthError};
use form::{Form, takes_json};

/// The longest body: the longest token that a filter takes, each byte escaped, and room for the rest.
pub const MAX_BODY: usize = 3 * 64 * 1024 + 8 * 1024;
/// How long a proxy may keep the keys. A key signs a few seconds after it was published, and who meets an unknown one
/// fetches at once.
const KEYS_MAX_AGE: &str = "public, max-age=60";

/// RFC 6749 section 6; with `client_id` and `client_secret` where the client does not use Basic.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the body for the API description; Form reads it")]
struct RefreshForm {
    /// `refresh_token`
    grant_type: String,
    refresh_token: String,
    /// Some of the session's scopes; all of them, without.
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// RFC 7662 section 2.1 and RFC 7009 section 2.1.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the body for the API description; Form reads it")]
struct TokenForm {
    token: String,
    /// Not needed, and not looked at.
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// RFC 7662 section 2.2, and the session's further claims.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the answer for the API description; Sessions::introspect makes it")]
struct Introspection {
    active: bool,
    iss: Option<String>,
    sub: Option<String>,
    sid: Option<String>,
    jti: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    token_type: Option<String>,
    exp: Option<u64>,
    iat: Option<u64>,
    auth_time: Option<u64>,
}

/// RFC 6749 section 5.2.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the answer for the API description; OAuthError makes it")]
struct OAuthProblem {
    error: String,
    error_description: String,
}

pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(token)).routes(routes!(introspect)).routes(routes!(revoke))
}

pub fn key_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// Exchange a refresh token for the next one (RFC 6749 section 6).
#[utoipa::path(
    post, path = "/oauth2/token", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = RefreshForm),
    responses(
        (status = 200, body = crate::domain::sessions::Tokens),
        (status = 400, body = OAuthProblem, description = "RFC 6749 section 5.2"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "the store cannot be asked"),
    )
)]
async fn token(
    State(shared): State<Arc<Shared>>,
    Extension(proof): Extension<Proof>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (sessions, client, form) = known(&shared, &proof, &headers, &body)?;
        if form.must("grant_type", "`grant_type` is missing")? != "refresh_token" {
            return Err(OAuthError::UnsupportedGrantType);
        }
        client.must(May::Refresh)?;
        let refresh_token = form.must("refresh_token", "`refresh_token` is missing")?;
        let tokens = sessions.refresh(&shared, &client, refresh_token, form.get("scope")).await?;
        Ok((NO_STORE, Json(tokens)).into_response())
    };
    finish(&shared, "token", answer.await)
}

/// Say whether an access token is good, and for whom (RFC 7662).
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = TokenForm),
    responses(
        (status = 200, body = Introspection, description = "only `active`, if it is false"),
        (status = 400, body = OAuthProblem, description = "`invalid_request`"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "the store cannot be asked"),
    )
)]
async fn introspect(
    State(shared): State<Arc<Shared>>,
    Extension(proof): Extension<Proof>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (sessions, client, form) = known(&shared, &proof, &headers, &body)?;
        client.must(May::Introspect)?;
        let token = form.must("token", "`token` is missing")?;
        let said = match sessions.introspect(&shared, token).await? {
            Some(claims) => Value::Object(claims),
            None => json!({ "active": false }),
        };
        Ok((NO_STORE, Json(said)).into_response())
    };
    finish(&shared, "introspect", answer.await)
}

/// End the session that a token belongs to (RFC 7009).
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = "oauth2", security(("client" = [])),
    request_body(content_type = "application/x-www-form-urlencoded", content = TokenForm),
    responses(
        (status = 200, description = "it is not good any more, or never was"),
        (status = 400, body = OAuthProblem, description = "RFC 6749 section 5.2"),
        (status = 401, body = OAuthProblem, description = "`invalid_client`"),
        (status = 503, body = OAuthProblem, description = "it may still be good: ask again"),
    )
)]
async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(proof): Extension<Proof>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let (sessions, client, form) = known(&shared, &proof, &headers, &body)?;
        client.must(May::Revoke)?;
        let token = form.must("token", "`token` is missing")?;
        // What is not a token of ours, or not any more, is no error (section 2.2).
        let Some(kept) = sessions.session_of(&shared, token).await? else { return Ok(NO_STORE.into_response()) };
        if kept.data.client_id.as_deref() != Some(&client.id) {
            return Err(OAuthError::InvalidGrant("the token was issued to another client"));
        }
        let by = format!("client:{}", client.id);
        let ended = sessions.end(&shared, &kept, Some("revoked by its client"), &by).await;
        let outcome = if ended.is_ok() { "done" } else { "not confirmed" };
        let event = Event {
            from: Some(proof.address().to_string()),
            iss: Some(kept.data.iss.clone()),
            sub: Some(kept.data.sub.clone()),
            sid: Some(kept.data.sid.clone()),
            client_id: kept.data.client_id.clone(),
            ..Event::new(&by, "session.end", outcome)
        };
        shared.audit.write(event).await;
        ended?;
        Ok(NO_STORE.into_response())
    };
    finish(&shared, "revoke", answer.await)
}

/// The public keys of the service's JWTs (RFC 7517 section 5).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "oauth2", 
    responses((status = 200, content_type = "application/jwk-set+json", body = Value)))]
async fn jwks(State(shared): State<Arc<Shared>>) -> Response {
    let Some(sessions) = &shared.sessions else { return StatusCode::NOT_FOUND.into_response() };
    let kind = (header::CONTENT_TYPE, "application/jwk-set+json");
    let keys = sessions.signing.jwks().to_string();
    ([kind, (header::CACHE_CONTROL, KEYS_MAX_AGE)], keys).into_response()
}

/// The client, by its secret, and what it asks.
fn known<'a>(
    shared: &'a Shared,
    proof: &Proof,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(&'a Sessions, Client, Form), OAuthError> {
    let sessions = shared.sessions.as_ref().ok_or(OAuthError::Internal)?;
    if !takes_json(headers) {
        return Err(OAuthError::NotAcceptable);
    }
    let form = Form::read(headers, body)?;
    match sessions.clients.authenticate(headers, &form) {
        Ok(client) => {
            proof.given();
            Ok((sessions, client, form))
        }
        Err(error) => {
            refused(shared, proof.address(), error);
            Err(error)
        }
    }
}

/// One line a second: strangers can cause it.
fn refused(shared: &Shared, peer: IpAddr, error: OAuthError) {
    if let Some(more) = shared.refused.pass(Instant::now()) {
        tracing::warn!(%peer, error = error.code(), more, "refused a client");
    }
}

fn finish(shared: &Shared, endpoint: &'static str, answer: Result<Response, OAuthError>) -> Response {
    match answer {
        Ok(response) => {
            shared.metrics.oauth(endpoint, OAuthResult::Done);
            response
        }
        Err(error) => {
            shared.metrics.oauth(endpoint, OAuthResult::of(error));
            error.into_response()
        }
    }
}
