//! `GET /status/{list}`: the Status List Tokens of our JWTs (draft-ietf-oauth-status-list section 8), for anybody.
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::status_lists::{PublishError, StatusLists};
use crate::http::accept;
use crate::signing::SignError;

/// Section 8.2.
const MEDIA_TYPE: &str = "application/statuslist+jwt";

pub fn routes() -> OpenApiRouter<Arc<StatusLists>> {
    OpenApiRouter::new().routes(routes!(status_list))
}

/// A signed list with one bit for each JWT, of which the JWT's claim `status` has the index: 1 if it was revoked. Only with
/// `--status-list-url`.
#[utoipa::path(
    get, path = "/status/{list}", tag = "status", params(("list" = u16, Path)),
    responses(
        (status = 200, content_type = "application/statuslist+jwt", body = String, description = "a JWT"),
        (status = 404, body = String, description = "there is no such list"),
        (status = 406, body = String, description = "`Accept` excludes JWTs"),
        (status = 501, body = String, description = "`time` was given: lists of the past are not kept"),
        (status = 503, body = String, description = "the store cannot be read, or the key does not sign"),
    )
)]
async fn status_list(
    State(lists): State<Arc<StatusLists>>,
    Path(list): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let refused = |status: StatusCode, why: &str| (status, format!("{why}\n")).into_response();
    if !accept::takes(&headers, MEDIA_TYPE) {
        return refused(
            StatusCode::NOT_ACCEPTABLE,
            "the list is an application/statuslist+jwt, which `Accept` excludes",
        );
    }
    let mut parameters = form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    // Section 8.4.
    if parameters.any(|(name, _)| name == "time") {
        return refused(StatusCode::NOT_IMPLEMENTED, "lists of the past are not kept");
    }
    let published = match list.parse() {
        Ok(list) => lists.publish(list).await,
        Err(_) => Ok(None),
    };
    match published {
        Ok(Some(list)) => {
            let cache = format!("public, max-age={}", list.left().as_secs());
            let headers = [
                (header::CONTENT_TYPE, MEDIA_TYPE),
                (header::CACHE_CONTROL, cache.as_str()),
                // Section 8.1: browsers may read it.
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            ];
            (headers, list.token.to_string()).into_response()
        }
        Ok(None) => refused(StatusCode::NOT_FOUND, "there is no such list"),
        Err(error) => {
            let why = match error {
                PublishError::Store(error) => error.name(),
                PublishError::Sign(SignError::NoKey | SignError::Failed | SignError::Token(_)) => "signing_unavailable",
            };
            ([(header::RETRY_AFTER, "1")], refused(StatusCode::SERVICE_UNAVAILABLE, why)).into_response()
        }
    }
}
