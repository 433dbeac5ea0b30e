//! Whether the process lives, whether it can answer, and what it counted.
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;
use wire::check::Trouble;

use crate::metrics;
use crate::server::Shared;
use crate::store::Store;

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.readiness.ask(&shared.store).await {
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

/// Asks Redis, as a check would. Anybody may probe and nothing limits how many do, so they share one question at a time
/// and its answer for a moment.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), Trouble>)>>);

impl Readiness {
    const FRESH: Duration = Duration::from_millis(100);

    async fn ask(&self, store: &Store) -> Result<(), Trouble> {
        let mut last = self.0.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < Self::FRESH
        {
            return ready;
        }
        let ready = store.check(&[]).await.map(|_| ());
        *last = Some((Instant::now(), ready));
        ready
    }
}
