//! Whether the process lives, whether it can answer, and what it counted.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::metrics;
use crate::app::server::Shared;

pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().merge(probes()).routes(routes!(metrics))
}

/// What both listeners have.
pub fn probes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Asks Redis, as a check would; tells what is known when too many ask, since anybody can. `signing` is there when JWTs
/// cannot be signed.
#[utoipa::path(
    get, path = "/readyz", tag = "health", responses((status = 200, body = serde_json::Value), (status = 503, body = serde_json::Value)),
)]
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let standing = match shared.probes.try_acquire() {
        Ok(_place) => shared.stores.revocations.check(&[]).await.map(|_| ()),
        Err(_) => shared.stores.revocations.health(),
    };
    match standing {
        // It answers checks all the same, so it stays in rotation.
        Ok(()) if cannot_sign(&shared) => Json(json!({ "ready": true, "signing": "unavailable" })).into_response(),
        Ok(()) => Json(json!({ "ready": true })).into_response(),
        Err(trouble) => {
            let body = json!({ "ready": false, "trouble": trouble.name() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// What was counted, as Prometheus reads it.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.metrics.signing_ready(!cannot_sign(&shared));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.text()).into_response()
}

fn cannot_sign(shared: &Shared) -> bool {
    shared.sessions.as_ref().is_some_and(|sessions| sessions.signing.is_in_trouble())
}
