//! `POST /v1/feed`: a follower's poll, held until there is something new. Every answer to a poll that was made with our
//! secret has our MAC, also when nothing can be told.
pub mod body;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::check::RegionsMoment;
use wire::feed::{CONTENT_TYPE, News, Polled, Reply, Trouble};
use wire::{DerivedKeys, Retention};

use crate::base::clock::unix_seconds;
use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::feed::{Feed, MAX_WAIT, Metrics, PollResult};
use crate::domain::regions::Regions;
use crate::http::check::{meets, status_of};

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
/// Pieces of snapshots that are being sent. Each has at most 256 KB.
const MAX_PIECES_SENT: usize = 128;
/// From a poll's headers to the beginning of its reply: the longest wait, and the time to make a snapshot.
pub const REQUEST: Duration = MAX_WAIT.saturating_add(Duration::from_secs(10));

/// What answering a poll needs.
#[derive(Debug, Clone)]
pub struct AppState {
    pub secrets: Arc<[DerivedKeys]>,
    pub feed: Arc<Feed>,
    pub regions: Arc<Regions>,
    /// How long revocations are kept, as filters are told.
    pub keeps: Retention,
    pub future_iat_tolerance_seconds: u64,
    pub metrics: Metrics,
    /// Throttles the log of refused polls.
    pub refused: Arc<Throttle>,
    pub pieces: Arc<Semaphore>,
}

impl AppState {
    pub fn pieces() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_PIECES_SENT))
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(poll))
}

/// A follower's poll: bytes, authenticated in both directions. It is held until there are new revocations, for as long as it
/// asks for and for at most 30 s.
#[utoipa::path(
    post, path = "/v1/feed", tag = "check",
    request_body(content_type = "application/vnd.portcullis.feed", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/vnd.portcullis.feed", body = Vec<u8>),
        (status = 400, description = "not a poll"),
        (status = 401, description = "made with another secret"),
        (status = 503, content_type = "application/vnd.portcullis.feed", body = Vec<u8>),
    )
)]
async fn poll(State(state): State<AppState>, Extension(connection): Extension<Connection>, body: Bytes) -> Response {
    let received = Instant::now();
    let polled = match Polled::read(&state.secrets, &body) {
        Ok(polled) => polled,
        Err(error) => {
            state.metrics.polled(PollResult::Refused);
            if let Some(more) = state.refused.pass(received) {
                tracing::warn!(%error, more, "refused a poll");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    drop(body);
    connection.authenticate();
    // `secret` is the index of the secret that `read` found among these.
    let Some(derived) = state.secrets.get(polled.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let news = match meets(&polled.needs(), state.future_iat_tolerance_seconds, unix_seconds()) {
        Ok(()) => state.feed.poll(polled.cursor(), polled.wait(), received).await,
        Err(error) => Err(Trouble::Store(error)),
    };
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE];
    match news {
        Ok((cursor, news)) => {
            let result = match &news {
                News::Keys { keys, .. } if keys.is_empty() => PollResult::Nothing,
                News::Keys { .. } => PollResult::Keys,
                News::Piece { .. } => PollResult::Piece,
            };
            // The semaphore is never closed.
            let place = match result {
                PollResult::Piece => Arc::clone(&state.pieces).acquire_owned().await.ok(),
                _ => None,
            };
            state.metrics.polled(result);
            let regions = match &news {
                // The picture has what was in the store when the reading of it began.
                News::Keys { complete_millis, more: false, .. } if polled.asks_about_regions() => {
                    let read = complete(received, *complete_millis);
                    read.map_or(RegionsMoment::UNKNOWN, |read| state.regions.proven(derived.id(), read, received))
                }
                _ => RegionsMoment::UNKNOWN,
            };
            let reply = polled.reply(derived, &Reply { keeps: state.keeps, regions, cursor, news });
            (headers, body::sent_in_time(reply.into(), place)).into_response()
        }
        Err(trouble) => {
            state.metrics.failed(trouble);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let body = polled.trouble(derived, status.as_u16(), trouble);
            (status, headers, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}

/// The moment that is so many milliseconds after `received`, or before it.
fn complete(received: Instant, millis: i32) -> Option<Instant> {
    let by = Duration::from_millis(millis.unsigned_abs().into());
    if millis < 0 { received.checked_sub(by) } else { received.checked_add(by) }
}
