//! What a request must pass before it takes one of the places: its whole body, bounded in size and time. A body that
//! never comes costs its sender's connection and no place.
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// From a request's headers to the end of its body.
const BODY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Gate {
    places: Arc<Semaphore>,
    max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is too long")]
    TooLong,
    #[error("the body did not come in time")]
    TooSlow,
    #[error("the body ended early")]
    CutShort,
    #[error("too many requests in progress")]
    Busy,
}

impl Gate {
    pub fn new(places: usize, max_bytes: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), max_bytes }
    }

    /// The request with its body in memory, and its place for as long as it is in progress.
    ///
    /// # Errors
    /// See [`Refusal`]. What is over the limit is refused at once: a check that queues is a check that times out.
    pub async fn admit(&self, request: Request) -> Result<(Request, OwnedSemaphorePermit), Refusal> {
        let (head, body) = request.into_parts();
        if body.size_hint().lower() > u64::try_from(self.max_bytes).unwrap_or(u64::MAX) {
            return Err(Refusal::TooLong);
        }
        let body = match timeout(BODY, Limited::new(body, self.max_bytes).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLong),
            Ok(Err(_)) => return Err(Refusal::CutShort),
            Err(_) => return Err(Refusal::TooSlow),
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        Ok((Request::from_parts(head, Body::from(body)), place))
    }
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
pub async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.admit(request).await {
        Ok((request, _place)) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

/// Middleware as [`pass`]; and what came in is worked on to its end, in its place, though its sender hangs up or its time
/// is over. Else the end of a session could be asked for and not reach the filters.
pub async fn carry(State((gate, work)): State<(Gate, TaskTracker)>, request: Request, next: Next) -> Response {
    match gate.admit(request).await {
        Ok((request, place)) => {
            let task = work.spawn(async move {
                let _place = place;
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
