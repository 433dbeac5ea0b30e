//! Whether the process lives, whether it can answer, and what it counted.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::metrics;
use crate::server::Shared;

pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Asks Redis, as a check would; tells what is known when too many ask, since anybody can.
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let standing = match shared.probes.try_acquire() {
        Ok(_place) => shared.store.check(&[]).await.map(|_| ()),
        Err(_) => shared.store.standing(),
    };
    match standing {
        Ok(()) => Json(json!({ "ready": true })).into_response(),
        Err(trouble) => {
            let body = json!({ "ready": false, "trouble": trouble.name() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.text()).into_response()
}
