//! What a request must pass before it takes a place: its whole body must arrive, bounded in size and time. A body that never
//! arrives costs its sender's connection and no place.
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::check::MAX_QUESTION_BYTES;
use wire::feed::MAX_POLL_BYTES;
use wire::join::MAX_REQUEST_BYTES;

use crate::base::connections::Connection;
use crate::base::limits::DEFAULT_UNAUTHENTICATED_PER_PEER;

/// From a request's headers to the end of its body.
const BODY: Duration = Duration::from_secs(2);
/// The bytes of bodies on unauthenticated connections that are in memory, on all listeners together. One more byte is refused.
static UNAUTHENTICATED: Semaphore = Semaphore::const_new(32 * 1024 * 1024);
/// The same for checks, polls and requests of regions, apart from the others: a proxy that connects anew asks here.
static UNAUTHENTICATED_CHECKS: Semaphore = Semaphore::const_new(CHECKS_BYTES);
const CHECKS_BYTES: usize = 16 * 1024 * 1024;
/// The same for reports of sightings, which are larger: one address can fill it. Then a proxy that connects anew loses reports, and
/// no checks.
static UNAUTHENTICATED_REPORTS: Semaphore = Semaphore::const_new(16 * 1024 * 1024);

// One body on each unauthenticated connection of one address (`--max-unauthenticated-per-peer`, by default) does not fill it.
const _: () = assert!(DEFAULT_UNAUTHENTICATED_PER_PEER * MAX_QUESTION_BYTES < CHECKS_BYTES);
const _: () = assert!(DEFAULT_UNAUTHENTICATED_PER_PEER * MAX_POLL_BYTES < CHECKS_BYTES);
const _: () = assert!(DEFAULT_UNAUTHENTICATED_PER_PEER * MAX_REQUEST_BYTES < CHECKS_BYTES);

#[derive(Debug, Clone)]
pub struct Gate {
    permits: Arc<Semaphore>,
    max_bytes: usize,
    unauthenticated: &'static Semaphore,
    /// How many may wait for a place, and how long. Default: none.
    queue: Option<(Arc<Semaphore>, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is too long")]
    TooLong,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended early")]
    CutShort,
    #[error("too many requests in progress")]
    Busy,
}

impl Gate {
    pub fn new(permits: usize, max_bytes: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), max_bytes, unauthenticated: &UNAUTHENTICATED, queue: None }
    }

    /// For requests that may not be sent again: `waiting` more of them wait for a place, for `limit` at the most.
    pub fn with_queue(self, waiting: usize, limit: Duration) -> Self {
        Self { queue: Some((Arc::new(Semaphore::new(waiting)), limit)), ..self }
    }

    pub fn of_checks(permits: usize, max_bytes: usize) -> Self {
        Self { unauthenticated: &UNAUTHENTICATED_CHECKS, ..Self::new(permits, max_bytes) }
    }

    pub fn of_reports(permits: usize, max_bytes: usize) -> Self {
        Self { unauthenticated: &UNAUTHENTICATED_REPORTS, ..Self::new(permits, max_bytes) }
    }

    /// The request with its body in memory, and its place for as long as it is in progress.
    ///
    /// # Errors
    /// See [`Refusal`]. Without a queue, requests over the limit are refused at once: a check that queues times out.
    pub async fn admit(&self, request: Request) -> Result<(Request, OwnedSemaphorePermit), Refusal> {
        let (head, body) = request.into_parts();
        if body.size_hint().lower() > u64::try_from(self.max_bytes).unwrap_or(u64::MAX) {
            return Err(Refusal::TooLong);
        }
        let is_authenticated = head.extensions.get::<Connection>().is_some_and(Connection::is_authenticated);
        let budget = (!is_authenticated).then_some(self.unauthenticated);
        let (body, _bytes) =
            timeout(BODY, read(body, self.max_bytes, budget)).await.unwrap_or(Err(Refusal::TooSlow))?;
        let permit = self.permit().await.ok_or(Refusal::Busy)?;
        Ok((Request::from_parts(head, Body::from(body)), permit))
    }
}

impl Gate {
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permits = Arc::clone(&self.permits);
        match (Arc::clone(&permits).try_acquire_owned(), &self.queue) {
            (Ok(permit), _) => Some(permit),
            (Err(_), None) => None,
            (Err(_), Some((queue, limit))) => {
                let _queued = queue.try_acquire().ok()?;
                timeout(*limit, permits.acquire_owned()).await.ok()?.ok()
            }
        }
    }
}

/// The whole body, and what it takes of the budget until the request is answered or has a place.
async fn read<'b>(
    body: Body,
    max_bytes: usize,
    budget: Option<&'b Semaphore>,
) -> Result<(Bytes, Option<SemaphorePermit<'b>>), Refusal> {
    let mut body = Limited::new(body, max_bytes);
    let (mut whole, mut taken) = (BytesMut::new(), None::<SemaphorePermit<'b>>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => Refusal::TooLong,
            false => Refusal::CutShort,
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(budget) = budget {
            let bytes = u32::try_from(data.len()).map_err(|_| Refusal::TooLong)?;
            let more = budget.try_acquire_many(bytes).map_err(|_| Refusal::Busy)?;
            match &mut taken {
                Some(taken) => taken.merge(more),
                None => taken = Some(more),
            }
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), taken))
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::CutShort => StatusCode::BAD_REQUEST,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Middleware: refusals as plain text.
pub async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.admit(request).await {
        Ok((request, _permit)) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

/// Middleware as [`limit`]. A request that was admitted is worked on to its end, in its place, though its sender hangs up or
/// its time is over. Else the end of a session could be asked for and not reach the filters.
pub async fn run_to_completion(
    State((gate, work)): State<(Gate, TaskTracker)>,
    request: Request,
    next: Next,
) -> Response {
    match gate.admit(request).await {
        Ok((request, permit)) => {
            let task = work.spawn(async move {
                let _permit = permit;
                next.run(request).await
            });
            task.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    (refusal.status(), format!("{refusal}\n")).into_response()
}
