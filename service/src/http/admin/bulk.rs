//! Many revocations in one request: NDJSON in, NDJSON out, a batch at a time, so that memory does not grow with the
//! request. One answer a line, in order, and a summary at the end. A bad line stops nothing.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::guard::Caller;
use super::problem::Problem;
use super::revocation::Ask;
use super::{MAX_REVOCATION_BYTES, check_issuer, write};
use crate::app::server::Shared;
use crate::domain::audit::Event;
use crate::http::gate::Refusal;

/// Lines that are written together.
const BATCH: usize = 256;
/// How long the sender may pause, and how long it may leave our answers unread.
const PAUSE: Duration = Duration::from_secs(30);

/// Many revocations, NDJSON in and out.
#[utoipa::path(
    post, path = "/v1/revocations/bulk", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    request_body(content_type = "application/x-ndjson", content = String),
    responses((status = 200, content_type = "application/x-ndjson", body = String), (status = "default", body = Problem)),
)]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    let place = Arc::clone(&shared.bulk).try_acquire_owned().map_err(|_| Problem::from(Refusal::Busy))?;
    let (answers, read) = mpsc::channel::<Bytes>(4);
    let work = shared.work.clone();
    work.spawn(async move {
        run(shared, caller, Lines::new(body.into_data_stream()), answers).await;
        drop(place);
    });
    let body =
        stream::unfold(read, async |mut read| read.recv().await.map(|line| (Ok::<_, std::io::Error>(line), read)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
}

async fn run(shared: Arc<Shared>, caller: Caller, mut lines: Lines, answers: mpsc::Sender<Bytes>) {
    let (mut line, mut written, mut failed) = (0_u64, 0_u64, 0_u64);
    let mut cut = None;
    // What came in is carried out, also if nobody reads the answers any more.
    while cut.is_none() || lines.has_more() {
        let (batch, end) = lines.batch().await;
        cut = cut.or(end);
        let done = join_all(batch.iter().map(|text| one(&shared, text, &caller.0))).await;
        let mut out = String::new();
        for done in done {
            line += 1;
            // A blank line is counted, so that numbers are those of the file, and asks nothing.
            let Some(done) = done else { continue };
            let mut answer = Map::new();
            answer.insert("line".into(), line.into());
            match done {
                Ok(done) => {
                    written += 1;
                    answer.extend(done);
                }
                Err(problem) => {
                    failed += 1;
                    answer.insert("error".into(), serde_json::to_value(problem).unwrap_or_default());
                }
            }
            out.push_str(&Value::Object(answer).to_string());
            out.push('\n');
        }
        let is_gone = matches!(cut, Some(End::Gone));
        if !out.is_empty() && !is_gone && !matches!(timeout(PAUSE, answers.send(out.into())).await, Ok(Ok(()))) {
            tracing::warn!(line, "the sender of a bulk request went away");
            cut = Some(End::Gone);
        }
    }
    tracing::info!(lines = line, written, failed, "bulk request done");
    // Who, when and why is sealed beside each revocation; this says that there were so many.
    let reason = Some(format!("{line} lines, {written} written, {failed} failed"));
    shared.audit.write(Event { reason, ..Event::new(&caller.0, "revoke.bulk", "done") }).await;
    let mut summary = json!({ "lines": line, "written": written, "failed": failed });
    if let (Some(End::Cut(why)), Some(summary)) = (cut, summary.as_object_mut()) {
        summary.insert("cut".into(), why.into());
    }
    let summary = json!({ "summary": summary });
    // If nobody reads it, nobody misses it.
    let _ = timeout(PAUSE, answers.send(format!("{summary}\n").into())).await;
}

async fn one(
    shared: &Shared,
    text: &Result<Vec<u8>, Problem>,
    by: &str,
) -> Option<Result<Map<String, Value>, Problem>> {
    let text = match text {
        Ok(text) if text.trim_ascii().is_empty() => return None,
        Ok(text) => text,
        Err(problem) => return Some(Err(problem.clone())),
    };
    let ask = match Ask::read(text, &shared.options) {
        Ok(ask) => ask,
        Err(problem) => return Some(Err(problem)),
    };
    Some(match check_issuer(shared, &ask).await {
        Ok(()) => write(shared, &ask, by).await,
        Err(problem) => Err(problem),
    })
}

/// Why there are no more lines.
enum End {
    Whole,
    Cut(&'static str),
    /// Nobody reads the answers.
    Gone,
}

/// Lines of a body that is still arriving. A line that is too long is dropped as it comes.
struct Lines {
    body: BodyDataStream,
    ready: VecDeque<Result<Vec<u8>, Problem>>,
    partial: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn new(body: BodyDataStream) -> Self {
        Self { body, ready: VecDeque::new(), partial: Vec::new(), too_long: false }
    }

    /// Whether there are lines that were read and not given.
    fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Up to a batch of lines: what one read of the body gave, or what is left of it.
    async fn batch(&mut self) -> (Vec<Result<Vec<u8>, Problem>>, Option<End>) {
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
            if self.partial.len() + text.len() > MAX_REVOCATION_BYTES {
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
            Err(Problem::body(&format!("a line takes at most {MAX_REVOCATION_BYTES} bytes")))
        } else {
            Ok(line)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(chunks: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
        let body = Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)));
        let mut lines = Lines::new(body.into_data_stream());
        let mut all = Vec::new();
        loop {
            let (batch, end) = lines.batch().await;
            all.extend(batch.into_iter().map(Result::ok));
            if end.is_some() {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn lines_may_be_cut_anywhere_and_the_last_needs_no_newline() {
        let got = lines(vec![b"a\nb".to_vec(), b"c\n\n".to_vec(), b"d".to_vec()]).await;
        assert_eq!(got, [Some(b"a".to_vec()), Some(b"bc".to_vec()), Some(vec![]), Some(b"d".to_vec())]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_and_the_next_is_read() {
        let long = vec![b'x'; MAX_REVOCATION_BYTES];
        let got = lines(vec![long.clone(), b"y\nz\n".to_vec(), long.clone(), b"\n".to_vec()]).await;
        assert_eq!(got, [None, Some(b"z".to_vec()), Some(long)]);
    }

    #[tokio::test]
    async fn more_lines_than_a_batch_arrive_in_one_piece() {
        assert_eq!(lines(vec![b"\n".repeat(BATCH * 2 + 1)]).await.len(), BATCH * 2 + 1);
    }
}
