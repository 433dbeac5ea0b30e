//! Many revocations in one request: NDJSON in, NDJSON out, a batch at a time, so that memory does not grow with the
//! request. One answer a line, in order, and a summary at the end. A bad line stops nothing.
mod lines;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::Caller;
use super::problem::Problem;
use super::revocations::answer::RevocationDone;
use super::revocations::body;
use crate::base::clock::unix_seconds;
use crate::domain::audit::{Audit, Event};
use crate::domain::revocations::Revocations;
use crate::http::gate::Refusal;
use lines::{End, Lines};

/// Bulk requests in progress; more are refused.
const MAX_IN_PROGRESS: usize = 4;
/// How long the sender may pause, and how long it may leave the answers unread.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct AppState {
    revocations: Arc<Revocations>,
    audit: Arc<Audit>,
    /// Held until the answers of a request end.
    permits: Arc<Semaphore>,
    work: TaskTracker,
}

/// One line of the answer: a revocation or what is wrong with it, and at the end the summary.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum BulkLine {
    Done {
        /// The line of the request, from 1.
        line: u64,
        #[serde(flatten)]
        done: RevocationDone,
    },
    Failed {
        /// The line of the request, from 1.
        line: u64,
        error: Problem,
    },
    End {
        summary: Summary,
    },
}

#[derive(Serialize, ToSchema)]
struct Summary {
    lines: u64,
    written: u64,
    failed: u64,
    /// Why the request was not read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<&'static str>,
}

impl AppState {
    pub fn new(revocations: Arc<Revocations>, audit: Arc<Audit>, work: TaskTracker) -> Self {
        Self { revocations, audit, permits: Arc::new(Semaphore::new(MAX_IN_PROGRESS)), work }
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Many revocations, NDJSON in and out.
#[utoipa::path(
    post, path = "/v1/revocations/bulk", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    request_body(content_type = "application/x-ndjson", content = body::RevocationBody, description = "one a line"),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = BulkLine, description = "one a line, and a summary"),
        (status = "default", body = Problem),
    ),
)]
async fn revoke(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    let permit = Arc::clone(&state.permits).try_acquire_owned().map_err(|_| Problem::from(Refusal::Busy))?;
    let (answers, read) = mpsc::channel::<Bytes>(4);
    let work = state.work.clone();
    work.spawn(async move {
        run(state, caller, Lines::new(body.into_data_stream()), answers).await;
        drop(permit);
    });
    let body =
        stream::unfold(read, async |mut read| read.recv().await.map(|line| (Ok::<_, std::io::Error>(line), read)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
}

async fn run(state: AppState, caller: Caller, mut lines: Lines, answers: mpsc::Sender<Bytes>) {
    let mut summary = Summary { lines: 0, written: 0, failed: 0, cut: None };
    let mut end = None;
    // What came in is carried out, also if the answers are not read any more.
    while end.is_none() || lines.has_more() {
        let (batch, last) = lines.batch().await;
        end = end.or(last);
        let done = join_all(batch.iter().map(|text| one(&state.revocations, text, &caller.0))).await;
        let mut out = String::new();
        for done in done {
            summary.lines += 1;
            let line = summary.lines;
            // A blank line is counted, so that numbers are those of the file, and asks nothing.
            let Some(done) = done else { continue };
            write(
                &mut out,
                &match done {
                    Ok(done) => {
                        summary.written += 1;
                        BulkLine::Done { line, done }
                    }
                    Err(error) => {
                        summary.failed += 1;
                        BulkLine::Failed { line, error }
                    }
                },
            );
        }
        let is_gone = matches!(end, Some(End::Gone));
        if !out.is_empty() && !is_gone && !matches!(timeout(PAUSE, answers.send(out.into())).await, Ok(Ok(()))) {
            tracing::warn!(line = summary.lines, "the sender of a bulk request went away");
            end = Some(End::Gone);
        }
    }
    let Summary { lines, written, failed, .. } = summary;
    tracing::info!(lines, written, failed, "bulk request done");
    // The note beside each revocation has its author and reason; this says that there were so many.
    let reason = Some(format!("{lines} lines, {written} written, {failed} failed"));
    state.audit.write(Event { reason, ..Event::new(&caller.0, "revoke.bulk", "done") }).await;
    if let Some(End::Cut(why)) = end {
        summary.cut = Some(why);
    }
    let mut out = String::new();
    write(&mut out, &BulkLine::End { summary });
    // The sender may be gone.
    let _ = timeout(PAUSE, answers.send(out.into())).await;
}

fn write(out: &mut String, line: &BulkLine) {
    out.push_str(&serde_json::to_string(line).unwrap_or_default());
    out.push('\n');
}

/// `None` for a blank line.
async fn one(
    revocations: &Revocations,
    text: &Result<Vec<u8>, Problem>,
    by: &str,
) -> Option<Result<RevocationDone, Problem>> {
    let text = match text {
        Ok(text) if text.trim_ascii().is_empty() => return None,
        Ok(text) => text,
        Err(problem) => return Some(Err(problem.clone())),
    };
    Some(revoke_one(revocations, text, by).await)
}

async fn revoke_one(revocations: &Revocations, text: &[u8], by: &str) -> Result<RevocationDone, Problem> {
    let request = body::read(text, revocations.policy())?;
    let revoked = revocations.revoke(&request, by).await?;
    Ok(RevocationDone::new(&request, &revoked, unix_seconds()))
}
