//! The two endpoints as HTTP: what is read of a request, and how each outcome is answered.
//!
//! Errors of the first are JSON `{error, error_description}` (Back-Channel Logout 1.0 section 2.8, RFC 6749 section 5.2),
//! of the second `{err, description}` (RFC 8935 section 2.3). 503 comes with Retry-After. Nothing is ever cached.
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use crate::app::metrics::SignalResult;
use crate::app::server::Shared;
use crate::base::connections::Proof;
use crate::domain::provider_events::refused::{Failed, Refused, Unavailable};
use crate::domain::provider_events::{Endpoint, Step, Taken, take};
use crate::http::gate::Refusal;

const FORM: &str = "application/x-www-form-urlencoded";
const SET: &str = "application/secevent+jwt";
const PARAMETER: &str = "logout_token";
/// The longest description of an error, in characters.
const MAX_DESCRIPTION: usize = 256;

/// A provider says who logged out (OpenID Connect Back-Channel Logout 1.0 section 2.5).
#[utoipa::path(
    post, path = "/oauth2/backchannel-logout", tag = "signals",
    request_body(content_type = "application/x-www-form-urlencoded", content = LogoutForm),
    responses(
        (status = 200, description = "ended"),
        (status = 400, description = "`error` says what is wrong with the token"),
        (status = 503, description = "it may not have ended: send it again"),
    )
)]
pub async fn logout(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, Endpoint::Logout, request).await
}

/// A provider pushes a security event (RFC 8935 section 2.1).
#[utoipa::path(
    post, path = "/ssf/events", tag = "signals",
    request_body(content_type = "application/secevent+jwt", content = String),
    responses(
        (status = 202, description = "taken"),
        (status = 400, description = "`err` says what is wrong with the event"),
        (status = 503, description = "it may not have been taken: send it again"),
    )
)]
pub async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, Endpoint::Events, request).await
}

/// Back-Channel Logout 1.0 section 2.5.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "only described")]
struct LogoutForm {
    logout_token: String,
}

/// Why there is no success: of the request's transport, or of the token.
enum NotTaken {
    Transport(Refusal),
    Token(Failed),
}

async fn serve(shared: Arc<Shared>, endpoint: Endpoint, request: Request) -> Response {
    let proof = request.extensions().get::<Proof>().cloned();
    let outcome = work(&shared, endpoint, request).await;
    shared.metrics.signal(endpoint, result_of(&outcome));
    match &outcome {
        // Only a provider can have made it, and it works once, so its connection is no stranger's. An event that was
        // taken before proves nothing: whoever captured it can open any number of connections.
        Ok(Taken::Ended(_)) => {
            if let Some(proof) = proof {
                proof.given();
            }
        }
        Ok(Taken::Noted) => {}
        Err(not_taken) => log(&shared, endpoint, not_taken),
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

async fn work(shared: &Arc<Shared>, endpoint: Endpoint, request: Request) -> Result<Taken, NotTaken> {
    let (request, place) = shared.signals.gate.admit(request).await.map_err(NotTaken::Transport)?;
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &()).await.map_err(|_| NotTaken::Transport(Refusal::CutShort))?;
    let token = match endpoint {
        Endpoint::Logout => of_form(&headers, &body),
        Endpoint::Events => of_body(&headers, &body),
    };
    let token = token.map_err(|refused| NotTaken::Token(refused.into()))?;
    // A task of its own: who hangs up leaves no logout half done.
    let task = {
        let shared = Arc::clone(shared);
        shared.work.clone().spawn(async move {
            let step = take(&shared, endpoint, token).await;
            // Who waits for keys keeps nobody from a place.
            drop(place);
            step
        })
    };
    match timeout(shared.signals.limit, task).await {
        Ok(Ok(Step::Done(taken))) => taken.map_err(NotTaken::Token),
        Ok(Ok(Step::Waits(waiting))) => waiting.outcome().await.map_err(NotTaken::Token),
        Ok(Err(_)) => Err(NotTaken::Token(Unavailable::store("the work broke down").into())),
        Err(_) => Err(NotTaken::Token(Unavailable::store("the work took too long").into())),
    }
}

/// Back-Channel Logout 1.0 section 2.5. Other parameters are ignored, as it says.
fn of_form(headers: &HeaderMap, body: &[u8]) -> Result<String, Refused> {
    if !is_of_type(headers, FORM) {
        return Err(Refused::Malformed(format!("the content type must be {FORM}")));
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == PARAMETER);
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(token.into_owned()),
        (None, _) => Err(Refused::Malformed(format!("`{PARAMETER}` is missing"))),
        (Some(_), Some(_)) => Err(Refused::Malformed(format!("`{PARAMETER}` is there twice"))),
    }
}

/// RFC 8935 section 2.1.
fn of_body(headers: &HeaderMap, body: &[u8]) -> Result<String, Refused> {
    if !is_of_type(headers, SET) {
        return Err(Refused::Malformed(format!("the content type must be {SET}")));
    }
    let token = std::str::from_utf8(body).map_err(|_| Refused::Malformed("the body is no token".into()))?;
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
        NotTaken::Token(Failed::Refused(refused)) => {
            let code = match endpoint {
                // Section 2.8 names no codes of its own; RFC 6749 section 5.2 has this one for all of them.
                Endpoint::Logout => "invalid_request",
                Endpoint::Events => refused.set_code(),
            };
            (StatusCode::BAD_REQUEST, code, refused.to_string(), None)
        }
        NotTaken::Token(Failed::Unavailable(unavailable)) => {
            let seconds = unavailable.retry_after.as_secs().saturating_add(1);
            let text = unavailable.text.to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text, Some(seconds))
        }
    };
    let text = printable(&text);
    let body = match endpoint {
        Endpoint::Logout => json!({ "error": code, "error_description": text }),
        Endpoint::Events => json!({ "err": code, "description": text }),
    };
    let mut response = (status, [(header::CONTENT_LANGUAGE, "en")], Json(body)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn result_of(outcome: &Result<Taken, NotTaken>) -> SignalResult {
    match outcome {
        Ok(Taken::Ended(_)) => SignalResult::Ended,
        Ok(Taken::Noted) => SignalResult::Noted,
        Err(NotTaken::Transport(Refusal::Busy) | NotTaken::Token(Failed::Unavailable(_))) => SignalResult::Unavailable,
        Err(NotTaken::Transport(_) | NotTaken::Token(Failed::Refused(_))) => SignalResult::Refused,
    }
}

/// In the characters of RFC 6749 section 5.2, and not endless: some of it repeats what was sent.
fn printable(text: &str) -> String {
    let fit = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
    text.chars().take(MAX_DESCRIPTION).map(fit).collect()
}

/// Without anything that the token says: whoever sent it chose that.
fn log(shared: &Shared, endpoint: Endpoint, not_taken: &NotTaken) {
    let Some(more) = shared.signals.refused.pass(Instant::now()) else { return };
    let endpoint = endpoint.name();
    match not_taken {
        NotTaken::Transport(refusal) => tracing::warn!(endpoint, why = %refusal, more, "refused a request"),
        NotTaken::Token(Failed::Refused(Refused::Malformed(_))) => {
            tracing::warn!(endpoint, why = "malformed", more, "refused a token");
        }
        NotTaken::Token(Failed::Refused(refused)) => tracing::warn!(endpoint, why = %refused, more, "refused a token"),
        NotTaken::Token(Failed::Unavailable(unavailable)) => {
            tracing::warn!(endpoint, why = unavailable.why, more, "could not tell about a token");
        }
    }
}
