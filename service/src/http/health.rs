//! Liveness, readiness, and metrics.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::regions::Regions;
use crate::signing::Signing;
use store::RevocationStore;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Readiness probes that ask the store at once.
const MAX_PROBES: usize = 16;

#[derive(Debug, Clone)]
pub struct AppState {
    revocations: Arc<dyn RevocationStore>,
    /// Absent without sessions.
    signing: Option<Arc<Signing>>,
    regions: Arc<Regions>,
    registry: Arc<Registry>,
    probes: Arc<Semaphore>,
}

/// Whether checks can be answered.
#[derive(Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    /// `unavailable` while JWTs cannot be signed. Checks are answered all the same, so it stays in rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing: Option<&'static str>,
    /// `joined`, or `cut_off` while one of the joined regions is. Checks are answered from our own store all the same, so it stays in rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<&'static str>,
    /// Why it is not ready, in a word of docs/operations.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

impl AppState {
    pub fn new(
        revocations: Arc<dyn RevocationStore>,
        signing: Option<Arc<Signing>>,
        regions: Arc<Regions>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { revocations, signing, regions, registry, probes: Arc::new(Semaphore::new(MAX_PROBES)) }
    }

    fn cannot_sign(&self) -> bool {
        self.signing.as_ref().is_some_and(|signing| signing.is_failing())
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(probes()).routes(routes!(metrics))
}

/// The endpoints of both listeners.
pub fn probes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it can answer checks. Asks the store, as a check would. With too many probes at once the answer is the last known
/// state.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)),
)]
async fn readyz(State(state): State<AppState>) -> Response {
    let ready = match state.probes.try_acquire() {
        Ok(_place) => state.revocations.check(&[]).await.map(|_| ()),
        Err(_) => state.revocations.health(),
    };
    let (status, trouble) = match ready {
        Ok(()) => (StatusCode::OK, None),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Some(error.name())),
    };
    let signing = (ready.is_ok() && state.cannot_sign()).then_some("unavailable");
    let regions = state.regions.are_joined().map(|joined| if joined { "joined" } else { "cut_off" });
    (status, Json(Readiness { ready: ready.is_ok(), signing, regions, trouble })).into_response()
}

/// The metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
async fn metrics(State(state): State<AppState>) -> Response {
    if let Some(signing) = &state.signing {
        signing.metrics().set_ready(!state.cannot_sign());
    }
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &state.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        // Writing to a String does not fail. An empty page would show as a scrape without series.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
