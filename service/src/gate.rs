//! Who may take up the service's time: a request whose body is all here, while there is a place. The body comes first,
//! since a place that waits for a slow sender is a place that anybody can take and keep.
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

#[derive(Debug)]
pub struct Gate {
    places: Semaphore,
    /// The most bytes of a body.
    most: usize,
    /// How long a body may take to arrive.
    patience: Duration,
    /// How this listener says that a body was too long, too slow or cut off.
    refuse: fn(StatusCode) -> Response,
}

impl Gate {
    pub fn new(places: usize, most: usize, patience: Duration, refuse: fn(StatusCode) -> Response) -> Self {
        // More than tokio can count is as good as no limit.
        Self { places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)), most, patience, refuse }
    }

    async fn body(&self, body: Body) -> Result<Bytes, StatusCode> {
        timeout(self.patience, whole(body, self.most)).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
    }
}

/// Refuses what is over the limit at once: a check that queues is a check that times out.
pub async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match gate.body(body).await {
        Ok(body) => body,
        Err(status) => return (gate.refuse)(status),
    };
    match gate.places.try_acquire() {
        Ok(_place) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many requests in progress\n").into_response(),
    }
}

async fn whole(body: Body, most: usize) -> Result<Bytes, StatusCode> {
    // What was announced as too long is not waited for.
    if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        if piece.len() > most.saturating_sub(whole.len()) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}
