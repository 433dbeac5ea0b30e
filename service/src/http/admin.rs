//! The admin API: what operators and callers of theirs may do, behind a bearer secret or a certificate. Every error names
//! the field or the reason.
mod audit;
mod bulk;
mod callers;
mod cross_site;
mod guard;
mod page;
mod problem;
mod query;
mod rates;
mod revocations;
mod sessions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio_util::task::TaskTracker;
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::domain::audit::Audit;
use crate::domain::revocations::Revocations;
use crate::domain::sessions::Sessions;
use crate::http::gate::Gate;
use crate::http::health;
pub use callers::{AdminToken, AdminTokenError, Callers, CertificateCallers};
use guard::Guard;
use problem::Problem;

/// The parts of the service that operators reach.
#[derive(Debug)]
pub struct Parts {
    pub revocations: Arc<Revocations>,
    /// `None`: the service makes no sessions.
    pub sessions: Option<Arc<Sessions>>,
    pub audit: Arc<Audit>,
    pub callers: Callers,
    pub health: health::AppState,
    /// Whether the operator's page is served.
    pub page: bool,
    /// What is finished though its sender hangs up.
    pub work: TaskTracker,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in progress.
    pub requests: usize,
    /// Calls of one caller in a second.
    pub rate: u32,
    /// For one answer.
    pub answer: Duration,
}

/// `document` describes this listener, and is served by it.
pub fn routes(parts: Parts, limits: Limits, document: Bytes) -> Router {
    let Parts { revocations, sessions, audit, callers, health, page, work } = parts;
    let guard = Arc::new(Guard::new(callers, limits.rate, Arc::clone(&audit), work.clone(), Instant::now()));
    let guarded = |routes: OpenApiRouter| {
        Router::from(routes)
            .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"))
            .route_layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::guard))
    };
    let bounded = OpenApiRouter::new()
        .merge(revocations::routes().with_state(Arc::clone(&revocations)))
        .merge(sessions::routes().with_state(sessions))
        .merge(audit::routes().with_state(Arc::clone(&audit)));
    let gate = Gate::new(limits.requests, revocations::MAX_BYTES);
    let time = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.answer);
    let bulk = bulk::routes().with_state(bulk::AppState::new(revocations, audit, work));
    let served = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    // The time is of the answer. A request that was begun goes on, in its place.
    let routes = guarded(bounded.layer(middleware::from_fn_with_state(gate, limit)))
        .layer(time)
        // It takes as long as its lines, and bounds each wait itself.
        .merge(guarded(bulk))
        .merge(Router::from(health::routes().with_state(health)))
        .route("/openapi.json", axum::routing::get(served))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found"));
    match page {
        true => routes.merge(page::routes()).layer(middleware::map_response(page::harden)),
        false => routes,
    }
}

/// The description of this listener, without the description's own endpoint.
pub fn api() -> OpenApi {
    let mut api = revocations::routes().into_openapi();
    for part in [sessions::routes().into_openapi(), audit::routes().into_openapi(), bulk::routes().into_openapi()] {
        api.merge(part);
    }
    api.merge(health::routes().into_openapi());
    api
}

/// As [`crate::http::gate::limit`]; refusals are problem documents here.
async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Result<Response, Problem> {
    let (request, _permit) = gate.admit(request).await?;
    Ok(next.run(request).await)
}
