//! Sessions, for operators and for the part of a system that logs users in: make, show, list, end.
//!
//! ```text
//! POST   /v1/sessions                        {subject, …}            201 {access_token, sid, …}
//! GET    /v1/sessions/{sid}                                          200 a session
//! DELETE /v1/sessions/{sid}                  {reason?} or no body    200 {ended: [sid]}
//! GET    /v1/subjects/{subject}/sessions     ?cursor=&limit=         200 {sessions, cursor}; a null cursor is the end
//! DELETE /v1/subjects/{subject}/sessions     ?except=sid {reason?}   200 {ended: [sid], before?}
//! ```
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::{Caller, Record};
use super::problem::Problem;
use super::query::Query;
use crate::base::clock::unix_seconds;
use crate::base::limits::MAX_REASON;
use crate::domain::sessions::{AT_ONCE, CreateSession, NewSession, Sessions, Tokens, View};
use crate::model::json;
use crate::model::session_keys::Sid;

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 200;

/// `None`: the service makes no sessions.
type AppState = Option<Arc<Sessions>>;

/// A page of a subject's sessions.
#[derive(Serialize, ToSchema)]
struct SessionPage {
    sessions: Vec<View>,
    /// Give it as `cursor` to go on; null at the end.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Ended {
    ended: Vec<String>,
    /// With all sessions, everything that the issuer issued for the subject before this time, in Unix seconds, is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
struct EndSession {
    /// For the audit log.
    reason: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the query for the API description; Query reads it")]
struct PageParameters {
    cursor: Option<String>,
    /// 1 to 200; 50 by default.
    limit: Option<u16>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(show, end)).routes(routes!(list, end_all))
}

/// Make a session and its first tokens.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", security(("bearer" = []), ("certificate" = [])),
    request_body = CreateSession,
    responses((status = 201, body = Tokens), (status = "default", body = Problem)),
)]
async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<Record>,
    body: Bytes,
) -> Result<Response, Problem> {
    let sessions = on(&state)?;
    record.about(|event| event.action = "session.create".to_owned());
    let new = NewSession::new(json::read::<CreateSession>(&body)?, unix_seconds(), &sessions.config)?;
    record.about(|event| {
        event.iss = Some(sessions.config.issuer.clone());
        event.sub = Some(new.sub.clone());
        event.client_id.clone_from(&new.client_id);
        event.reason.clone_from(&new.reason);
    });
    let tokens = sessions.create(new, &caller.0).await?;
    record.about(|event| event.sid = Some(tokens.sid.clone()));
    let headers = [(axum::http::header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(tokens)).into_response())
}

/// One session.
#[utoipa::path(
    get, path = "/v1/sessions/{sid}", tag = "sessions", security(("bearer" = []), ("certificate" = [])),
    params(("sid" = String, Path)),
    responses((status = 200, body = View), (status = "default", body = Problem)),
)]
async fn show(
    State(state): State<AppState>,
    Extension(record): Extension<Record>,
    Path(sid): Path<String>,
) -> Result<Response, Problem> {
    let sessions = on(&state)?;
    let sid = parse(&sid)?;
    record.about(|event| event.sid = Some(sid.to_string()));
    let kept = sessions.store().find(sid).await?.filter(|kept| kept.ended.is_none());
    Ok(Json(View::from(kept.ok_or_else(Problem::no_session)?)).into_response())
}

/// End one session.
#[utoipa::path(
    delete, path = "/v1/sessions/{sid}", tag = "sessions", security(("bearer" = []), ("certificate" = [])),
    params(("sid" = String, Path)), request_body = Option<EndSession>,
    responses((status = 200, body = Ended), (status = "default", body = Problem)),
)]
async fn end(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<Record>,
    Path(sid): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let sessions = on(&state)?;
    record.about(|event| event.action = "session.end".to_owned());
    let (sid, reason) = (parse(&sid)?, reason(&body)?);
    record.about(|event| {
        event.sid = Some(sid.to_string());
        event.reason.clone_from(&reason);
    });
    let kept = sessions.store().find(sid).await?.ok_or_else(Problem::no_session)?;
    record.about(|event| {
        event.iss = Some(kept.data.iss.clone());
        event.sub = Some(kept.data.sub.clone());
    });
    sessions.end_asked(&kept, reason.as_deref(), &caller.0).await?;
    Ok(Json(Ended { ended: vec![sid.to_string()], before: None }).into_response())
}

/// A subject's sessions.
#[utoipa::path(
    get, path = "/v1/subjects/{subject}/sessions", tag = "sessions",
    security(("bearer" = []), ("certificate" = [])), params(("subject" = String, Path), PageParameters),
    responses((status = 200, body = SessionPage), (status = "default", body = Problem)),
)]
async fn list(
    State(state): State<AppState>,
    Extension(record): Extension<Record>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let sessions = on(&state)?;
    record.about(|event| event.sub = Some(subject.clone()));
    let query = Query::read(query.as_deref(), &["cursor", "limit"])?;
    let after = query.get("cursor").map(parse_cursor).transpose()?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(DEFAULT_PAGE);
    let store = sessions.store();
    let mut sids = store.sids_of(&sessions.config.issuer, &subject).await?;
    sids.retain(|(sid, _)| after.is_none_or(|after| *sid > after));
    let more = sids.len() > limit;
    sids.truncate(limit);
    let cursor = sids.last().filter(|_| more).map(|(sid, _)| sid.to_string());
    let found: Vec<_> = stream::iter(sids).map(|(sid, at)| store.read(at, sid)).buffered(AT_ONCE).try_collect().await?;
    let live = found.into_iter().flatten().filter(|kept| kept.ended.is_none());
    Ok(Json(SessionPage { sessions: live.map(View::from).collect(), cursor }).into_response())
}

/// End all sessions of a subject, or all but one.
#[utoipa::path(
    delete, path = "/v1/subjects/{subject}/sessions", tag = "sessions",
    security(("bearer" = []), ("certificate" = [])),
    params(("subject" = String, Path), ("except" = Option<String>, Query, description = "the sid that stays")),
    request_body = Option<EndSession>,
    responses((status = 200, body = Ended), (status = "default", body = Problem)),
)]
async fn end_all(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<Record>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, Problem> {
    let sessions = on(&state)?;
    record.about(|event| {
        event.action = "session.end_all".to_owned();
        event.sub = Some(subject.clone());
    });
    let query = Query::read(query.as_deref(), &["except"])?;
    let except = query.get("except").map(parse).transpose()?;
    let reason = reason(&body)?;
    record.about(|event| {
        event.iss = Some(sessions.config.issuer.clone());
        event.id = except.map(|sid| format!("except {sid}"));
        event.reason.clone_from(&reason);
    });
    let issuer = &sessions.config.issuer;
    let store = sessions.store();
    if let Some(sid) = except {
        // A mistyped sid would end the session that is to stay.
        let kept = store.find(sid).await?.filter(|kept| kept.ended.is_none() && kept.data.sub == subject);
        kept.ok_or_else(|| Problem::field("except", "must be a live session of this subject"))?;
    }
    // This ends everything that was issued until now, also sessions that no list has.
    let before = match except {
        None => sessions.end_user(&subject, reason.as_deref(), &caller.0).await?,
        Some(_) => None,
    };
    let sids = store.sids_of(issuer, &subject).await?;
    let ended: Vec<_> = stream::iter(sids.into_iter().filter(|(sid, _)| Some(*sid) != except))
        .map(|(sid, at)| {
            let (reason, by) = (reason.as_deref(), &caller.0);
            async move {
                let Some(kept) = store.read(at, sid).await? else { return Ok::<_, Problem>(None) };
                sessions.end_asked(&kept, reason, by).await?;
                Ok(Some(sid.to_string()))
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    // A failure stopped no other session from ending.
    let ended: Vec<Option<String>> = ended.into_iter().collect::<Result<_, _>>()?;
    let ended = ended.into_iter().flatten().collect();
    Ok(Json(Ended { ended, before }).into_response())
}

fn on(state: &AppState) -> Result<&Sessions, Problem> {
    state.as_deref().ok_or_else(|| {
        let why = "this service makes no sessions: it was started without --session-issuer";
        Problem::new(StatusCode::NOT_FOUND, "no_sessions").detail(why.into())
    })
}

fn parse(sid: &str) -> Result<Sid, Problem> {
    sid.parse().map_err(|()| Problem::field("sid", "must be 22 characters of base64url"))
}

fn parse_cursor(text: &str) -> Result<Sid, Problem> {
    text.parse().map_err(|()| Problem::field("cursor", "must be a cursor that a page ended with"))
}

fn reason(body: &[u8]) -> Result<Option<String>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let reason = json::read::<EndSession>(body)?.reason;
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Problem::field("reason", &format!("must have at most {MAX_REASON} bytes")));
    }
    Ok(reason)
}
