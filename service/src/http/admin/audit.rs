//! The audit stream, for operators: a page of it, after an id or a time.
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde::Serialize;
use store::{AuditFrom, AuditIdError};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::Record;
use super::problem::Problem;
use super::query::Query;
use crate::base::clock::unix_millis;
use crate::domain::audit::{Audit, Entry, MAX_PAGE};

const DEFAULT_PAGE: usize = 100;
/// Entries after a time that is no longer ago are those that a follower has not seen yet.
const FOLLOWING_MILLIS: u64 = 60_000;

#[derive(Serialize, ToSchema)]
struct AuditPage {
    entries: Vec<Entry>,
    /// Give it as `after` to go on; there may be more by then.
    next: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the query for the API description; Query reads it")]
struct Parameters {
    /// An entry's id, or Unix milliseconds. Without it, the newest entries.
    after: Option<String>,
    /// 1 to 1000; 100 by default.
    limit: Option<u16>,
}

pub fn routes() -> OpenApiRouter<Arc<Audit>> {
    OpenApiRouter::new().routes(routes!(read))
}

/// Audit entries, oldest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", security(("bearer" = []), ("certificate" = [])), params(Parameters),
    responses((status = 200, body = AuditPage), (status = "default", body = Problem)),
)]
async fn read(
    State(audit): State<Arc<Audit>>,
    Extension(record): Extension<Record>,
    RawQuery(query): RawQuery,
) -> Result<Json<AuditPage>, Problem> {
    let query = Query::read(query.as_deref(), &["after", "limit"])?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(DEFAULT_PAGE);
    let from = match query.get("after") {
        None => AuditFrom::Last,
        Some(after) => AuditFrom::After(
            after
                .parse()
                .map_err(|_: AuditIdError| Problem::field("after", "must be an entry's id, or Unix milliseconds"))?,
        ),
    };
    let entries = audit.read(from, limit).await?;
    // A follower of the stream asks again and again, and an entry about each call would be one more to read. A caller that
    // reads older entries is recorded, wherever the reading begins.
    let recent = |after: &str| {
        let millis = after.split('-').next().and_then(|millis| millis.parse::<u64>().ok());
        millis.is_some_and(|millis| unix_millis().saturating_sub(millis) < FOLLOWING_MILLIS)
    };
    if query.get("after").is_some_and(|after| entries.is_empty() || recent(after)) {
        record.nothing();
    }
    let asked =
        || query.get("after").map(|after| if after.contains('-') { after.to_owned() } else { format!("{after}-0") });
    let next = entries.last().map(|entry| entry.id.clone()).or_else(asked);
    Ok(Json(AuditPage { entries, next }))
}
