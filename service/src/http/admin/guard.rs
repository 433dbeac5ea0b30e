//! What every admin call passes: its caller is identified, its rate limited, and its audit entry written.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::task::TaskTracker;

use super::callers::Callers;
use super::cross_site::is_cross_site;
use super::problem::Problem;
use super::rates::Rates;
use crate::base::certificate::Certificate;
use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::audit::{Audit, Event, REFUSALS_AUDITED_EVERY};

/// The code of a request that another web site caused.
const CROSS_SITE: &str = "cross_site";

/// The name of the caller, after it was checked.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<str>);

/// The audit entry of this call; handlers add what they know.
#[derive(Debug, Clone)]
pub struct Record(Arc<Mutex<Option<Event>>>);

#[derive(Debug)]
pub struct Guard {
    callers: Callers,
    rates: Rates,
    audit: Arc<Audit>,
    work: TaskTracker,
    /// Throttles audit entries for refused requests.
    refused: Throttle,
}

impl Record {
    pub fn about(&self, say: impl FnOnce(&mut Event)) {
        if let Some(event) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            say(event);
        }
    }

    /// This request leaves no entry.
    pub fn nothing(&self) {
        self.take();
    }

    fn take(&self) -> Option<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Guard {
    pub fn new(callers: Callers, per_second: u32, audit: Arc<Audit>, work: TaskTracker, now: Instant) -> Self {
        let refused = Throttle::every(REFUSALS_AUDITED_EVERY);
        Self { callers, rates: Rates::new(per_second, now), audit, work, refused }
    }

    async fn refuse(&self, peer: IpAddr, action: &str, now: Instant) -> Response {
        if !self.rates.take_refused(now) {
            return too_many();
        }
        if let Some(more) = self.refused.pass(now) {
            let (from, reason) = (Some(peer.to_string()), left_out(more));
            self.audit.write(Event { from, reason, ..Event::new("nobody", action, "401") }).await;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis admin\"")];
        (challenge, Problem::new(StatusCode::UNAUTHORIZED, "unauthorized")).into_response()
    }
}

/// Middleware of every route that needs a caller.
pub async fn guard(
    State(guard): State<Arc<Guard>>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str());
    let action = format!("{} {route}", request.method());
    let certificate = request.extensions().get::<Certificate>();
    let Some(caller) = guard.callers.identify(certificate, request.headers()) else {
        return guard.refuse(connection.address(), &action, now).await;
    };
    connection.authenticate();
    let mut event = Event::new(&caller, &action, "");
    event.from = Some(connection.address().to_string());
    if !guard.rates.take(&caller, now) {
        if let Some(more) = guard.refused.pass(now) {
            event.reason = left_out(more);
            event.outcome = StatusCode::TOO_MANY_REQUESTS.as_str().to_owned();
            guard.audit.write(event).await;
        }
        return too_many();
    }
    if is_cross_site(request.uri(), request.headers()) {
        if let Some(more) = guard.refused.pass(now) {
            event.reason = left_out(more);
            event.outcome = CROSS_SITE.to_owned();
            guard.audit.write(event).await;
        }
        return Problem::new(StatusCode::FORBIDDEN, CROSS_SITE)
            .detail("a browser sent this for a page of another origin".into())
            .into_response();
    }
    let record = Record(Arc::new(Mutex::new(Some(event))));
    request.extensions_mut().insert(Caller(Arc::clone(&caller)));
    request.extensions_mut().insert(record.clone());
    // A task of its own: a caller that hangs up neither undoes what was begun nor keeps it out of the audit log.
    let audit = Arc::clone(&guard.audit);
    let task = guard.work.spawn(async move {
        let response = next.run(request).await;
        if let Some(mut event) = record.take() {
            if event.outcome.is_empty() {
                let status = response.status();
                event.outcome = if status.is_success() { "done".to_owned() } else { status.as_str().to_owned() };
            }
            audit.write(event).await;
        }
        response
    });
    task.await.unwrap_or_else(|_| Problem::internal().into_response())
}

fn left_out(more: u64) -> Option<String> {
    (more > 0).then(|| format!("and {more} more since the last entry like this"))
}

fn too_many() -> Response {
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests").into_response();
    let second = HeaderValue::from(Duration::from_secs(1).as_secs());
    response.headers_mut().insert(header::RETRY_AFTER, second);
    response
}
