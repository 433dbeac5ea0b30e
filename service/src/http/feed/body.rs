//! The body of a reply. A receiver that does not take it in time loses its connection, so it does not keep a place.
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// For the whole body.
const SEND: Duration = Duration::from_secs(10);
/// What is handed over at once.
const CHUNK: usize = 32 * 1024;

struct Sent {
    rest: Bytes,
    late: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, thiserror::Error)]
#[error("the reply was not taken in time")]
struct TooSlow;

/// `place` is given back when the body was sent, or never will be.
pub fn sent_in_time(bytes: Bytes, place: Option<OwnedSemaphorePermit>) -> Body {
    match bytes.len() > CHUNK || place.is_some() {
        true => Body::new(Sent { rest: bytes, late: Box::pin(sleep(SEND)), _place: place }),
        false => Body::from(bytes),
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(TooSlow)));
        }
        let length = self.rest.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
