//! The routes of both listeners, made of the parts of the service.
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use wire::check::MAX_QUESTION_BYTES;
use wire::feed::MAX_POLL_BYTES;
use wire::join::MAX_REQUEST_BYTES;
use wire::sightings::MAX_REPORT_BYTES;

use super::options::Options;
use super::parts::{Lasting, Parts, Tasks};
use crate::base::connections;
use crate::http::admin::{self, AdminToken, Callers};
use crate::http::gate::{self, Gate};
use crate::http::{
    check, feed, health, join, oauth2, openapi, provider_events as provider_endpoints, sightings, status_list,
};

/// From a request's headers to its answer, including its body.
const DATA_REQUEST: Duration = Duration::from_secs(5);

pub fn data(options: &Options, lasting: &Lasting, tasks: &Tasks, parts: &Parts) -> Router {
    let metrics = &lasting.metrics;
    let refused = Arc::default();
    let checks = check::AppState {
        secrets: Arc::clone(&parts.secrets),
        revocations: Arc::clone(&lasting.stores.revocations),
        replay_guard: Arc::clone(&lasting.stores.replay_guard),
        issuers: Arc::clone(&lasting.issuers),
        regions: Arc::clone(&tasks.regions),
        keeps: options.retention(),
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
        metrics: metrics.checks.clone(),
        refused: Arc::clone(&refused),
    };
    let gate = Gate::of_checks(options.max_requests, MAX_QUESTION_BYTES);
    let mut routes: OpenApiRouter =
        check::routes().with_state(checks).layer(middleware::from_fn_with_state(gate, gate::limit));
    if let Some(sessions) = &parts.sessions {
        let state = oauth2::AppState {
            sessions: Arc::clone(sessions),
            replay_guard: Arc::clone(&lasting.stores.replay_guard),
            audit: Arc::clone(&parts.audit),
            metrics: metrics.oauth.clone(),
            refused,
        };
        let gate = (Gate::new(options.max_requests, oauth2::MAX_BODY), lasting.work.clone());
        let endpoints = oauth2::routes().layer(middleware::from_fn_with_state(gate, gate::run_to_completion));
        routes = routes.merge(endpoints.merge(oauth2::key_routes()).with_state(state));
        if let Some(lists) = &sessions.status_lists {
            // They are for strangers, who must not take the places of clients.
            let gate = Gate::new(options.max_requests, 0);
            let lists = status_list::routes().with_state(Arc::clone(lists));
            routes = routes.merge(lists.layer(middleware::from_fn_with_state(gate, gate::limit)));
        }
    }
    // Whether the process lives must be told when every place is taken, too.
    let routes = routes
        .merge(health::probes().with_state(health(lasting, tasks)))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST));
    let routes = routes
        .merge(feed_routes(options, lasting, tasks, parts))
        .merge(join_routes(lasting, parts))
        .merge(sighting_routes(options, lasting, parts));
    // They have limits of their own: keys may have to be fetched, and a revocation waits for disks.
    let state = provider_endpoints::AppState::new(Arc::clone(&tasks.events), metrics.provider_requests.clone());
    let events = provider_endpoints::routes(|endpoint| tasks.events.serves(endpoint)).with_state(state);
    routes.merge(events.layer(middleware::from_fn(connections::protect))).into()
}

/// Polls are held, so they do not take the places of checks, and may take longer.
fn feed_routes(options: &Options, lasting: &Lasting, tasks: &Tasks, parts: &Parts) -> OpenApiRouter {
    let state = feed::AppState {
        secrets: Arc::clone(&parts.secrets),
        feed: Arc::clone(&lasting.feed),
        regions: Arc::clone(&tasks.regions),
        keeps: options.retention(),
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
        metrics: lasting.metrics.feed.clone(),
        refused: Arc::default(),
        pieces: feed::AppState::pieces(),
    };
    // More than may follow: those that are too many get an answer that says so.
    let gate = Gate::of_checks(options.max_followers.saturating_add(options.max_requests), MAX_POLL_BYTES);
    feed::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, feed::REQUEST))
}

fn join_routes(lasting: &Lasting, parts: &Parts) -> OpenApiRouter {
    let Some((secrets, serving)) = parts.joins.clone() else { return OpenApiRouter::new() };
    let state = join::AppState { secrets, serving, metrics: lasting.metrics.regions.clone(), refused: Arc::default() };
    let gate = Gate::of_checks(join::MAX_REQUESTS, MAX_REQUEST_BYTES);
    join::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, join::REQUEST))
}

/// Reports do not take the places of checks, nor their memory.
fn sighting_routes(options: &Options, lasting: &Lasting, parts: &Parts) -> OpenApiRouter {
    let Some(hijack) = &parts.hijack else { return OpenApiRouter::new() };
    let state = sightings::AppState {
        secrets: Arc::clone(&parts.secrets),
        hijack: Arc::clone(hijack),
        metrics: lasting.metrics.hijack.clone(),
        refused: Arc::default(),
    };
    let gate = Gate::of_reports(options.max_requests, MAX_REPORT_BYTES);
    sightings::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST))
}

pub fn admin(options: &Options, token: AdminToken, lasting: &Lasting, tasks: &Tasks, parts: &Parts) -> Router {
    let callers = Callers { token, certificates: options.admin.certificate_callers() };
    let admin = admin::Parts {
        revocations: Arc::clone(&parts.revocations),
        sessions: parts.sessions.clone(),
        audit: Arc::clone(&parts.audit),
        callers,
        health: health(lasting, tasks),
        page: options.admin.operator_page,
        work: lasting.work.clone(),
    };
    let limits = admin::Limits {
        requests: options.max_requests,
        rate: options.admin.admin_rate,
        answer: options.write_limit() + Duration::from_secs(10),
    };
    admin::routes(admin, limits, openapi::admin_document().into())
}

fn health(lasting: &Lasting, tasks: &Tasks) -> health::AppState {
    let (revocations, signing) = (Arc::clone(&lasting.stores.revocations), lasting.signing.clone());
    health::AppState::new(revocations, signing, Arc::clone(&tasks.regions), Arc::clone(&lasting.registry))
}
