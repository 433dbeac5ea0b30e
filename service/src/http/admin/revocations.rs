//! Revocations: make one, list, show, lift.
//!
//! ```text
//! POST   /v1/revocations         {kind, issuer, id, reason?, ttl?, new_issuer?, until_now?} or {token, reason?, ttl?, new_issuer?}
//!                                201 {key, kind, answer, before?, until, ends, on_disk, replicas}
//! GET    /v1/revocations         ?cursor=&limit=   200 {revocations, cursor}; a null cursor is the end
//! GET    /v1/revocations/{key}   200 {key, answer, before?, until, kind, issuer, id?, reason?, by, at}
//! DELETE /v1/revocations/{key}   200 {lifted, on_disk, replicas}
//! ```
//! 503 says in `written` whether the revocation may be in force all the same.
pub mod answer;
pub mod body;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::RevocationKey;

use super::guard::{Caller, Record};
use super::problem::Problem;
use super::query::Query;
use crate::base::clock::unix_seconds;
use crate::domain::revocations::Revocations;
use answer::{LiftDone, RevocationDone, RevocationPage, StoredRevocation};
use body::{MAX_TOKEN, RevocationBody};

/// The most bytes of one revocation: the longest token, and what may be beside it.
pub const MAX_BYTES: usize = MAX_TOKEN + 16 * 1024;
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

type AppState = Arc<Revocations>;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(revoke, list)).routes(routes!(show, lift))
}

/// End a token, session, user, client, key or issuer.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    request_body = RevocationBody,
    responses((status = 201, body = RevocationDone), (status = "default", body = Problem)),
)]
async fn revoke(
    State(revocations): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<Record>,
    body: Bytes,
) -> Result<(StatusCode, Json<RevocationDone>), Problem> {
    record.about(|event| event.action = "revoke".to_owned());
    let request = body::read(&body, revocations.policy())?;
    record.about(|event| {
        request.subject.describe(event);
        event.reason.clone_from(&request.reason);
    });
    let revoked = revocations.revoke(&request, &caller.0).await?;
    tracing::info!(kind = request.subject.kind.name(), key = %revoked.key, "revoked");
    Ok((StatusCode::CREATED, Json(RevocationDone::new(&request, &revoked, unix_seconds()))))
}

/// What is revoked now.
#[utoipa::path(
    get, path = "/v1/revocations", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    params(("cursor" = Option<String>, Query), ("limit" = Option<u16>, Query, description = "1 to 1000; 100 by default")),
    responses((status = 200, body = RevocationPage), (status = "default", body = Problem)),
)]
async fn list(State(revocations): State<AppState>, RawQuery(query): RawQuery) -> Result<Json<RevocationPage>, Problem> {
    let query = Query::read(query.as_deref(), &["cursor", "limit"])?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(DEFAULT_PAGE);
    let page = revocations.list(query.get("cursor"), limit).await?;
    Ok(Json(RevocationPage::new(page, unix_seconds())))
}

/// One revocation.
#[utoipa::path(
    get, path = "/v1/revocations/{key}", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    params(("key" = String, Path)),
    responses((status = 200, body = StoredRevocation), (status = "default", body = Problem)),
)]
async fn show(State(revocations): State<AppState>, Path(key): Path<String>) -> Result<Json<StoredRevocation>, Problem> {
    let shown = revocations.show(parse_key(&key)?).await?.ok_or_else(Problem::no_revocation)?;
    Ok(Json(StoredRevocation::new(shown, unix_seconds())))
}

/// Lift a revocation under every live secret, as far as its note names its subject.
#[utoipa::path(
    delete, path = "/v1/revocations/{key}", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    params(("key" = String, Path)),
    responses((status = 200, body = LiftDone), (status = "default", body = Problem)),
)]
async fn lift(
    State(revocations): State<AppState>,
    Extension(record): Extension<Record>,
    Path(key): Path<String>,
) -> Result<Json<LiftDone>, Problem> {
    let key = parse_key(&key)?;
    record.about(|event| {
        event.action = "lift".to_owned();
        event.id = Some(key.to_string());
    });
    let shown = revocations.show(key).await?.ok_or_else(Problem::no_revocation)?;
    if let Some(note) = &shown.note {
        record.about(|event| {
            event.kind = Some(note.kind.clone());
            event.iss = Some(note.iss.clone());
            event.reason = note.id.as_ref().map(|id| format!("lifted what ended {id}"));
        });
    }
    let lifted = revocations.lift(&shown).await?.ok_or_else(Problem::no_revocation)?;
    tracing::info!(%key, "lifted");
    Ok(Json(lifted.into()))
}

fn parse_key(text: &str) -> Result<RevocationKey, Problem> {
    text.parse().map_err(|()| Problem::field("key", "must be 22 characters of base64url"))
}
