//! Lines of a body that is still arriving, in batches.
use std::collections::VecDeque;

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::PAUSE;
use crate::http::admin::problem::Problem;
use crate::http::admin::revocations::MAX_BYTES;

/// Lines that are written together.
const BATCH: usize = 256;

/// Why there are no more lines.
pub enum End {
    Whole,
    Cut(&'static str),
    /// The sender does not read the answers.
    Gone,
}

/// Lines of a body that is still arriving. A line that is too long is dropped as it comes.
pub struct Lines {
    body: BodyDataStream,
    ready: VecDeque<Result<Vec<u8>, Problem>>,
    partial: Vec<u8>,
    too_long: bool,
}

impl Lines {
    pub fn new(body: BodyDataStream) -> Self {
        Self { body, ready: VecDeque::new(), partial: Vec::new(), too_long: false }
    }

    /// Whether there are lines that were read and not given.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Up to a batch of lines: those of one read of the body, or those that are left of it.
    pub async fn batch(&mut self) -> (Vec<Result<Vec<u8>, Problem>>, Option<End>) {
        let mut end = None;
        while self.ready.is_empty() && end.is_none() {
            end = match timeout(PAUSE, self.body.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.push(&bytes);
                    None
                }
                Ok(Some(Err(_))) => Some(End::Cut("the request ended early")),
                Ok(None) => {
                    if self.too_long || !self.partial.is_empty() {
                        self.finish();
                    }
                    Some(End::Whole)
                }
                Err(_) => Some(End::Cut("the request paused for too long")),
            };
        }
        let batch = self.ready.drain(..self.ready.len().min(BATCH)).collect();
        (batch, end)
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.partial.len() + text.len() > MAX_BYTES {
                self.too_long = true;
                self.partial = Vec::new();
            }
            if !self.too_long {
                self.partial.extend_from_slice(text);
            }
            if ends {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        let line = std::mem::take(&mut self.partial);
        self.ready.push_back(if std::mem::take(&mut self.too_long) {
            Err(Problem::body(&format!("a line takes at most {MAX_BYTES} bytes")))
        } else {
            Ok(line)
        });
    }
}

#[cfg(test)]
mod tests;
