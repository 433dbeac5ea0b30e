//! What operators do: revoke, look, lift. Behind a bearer secret, and every error names the field or the reason.
//!
//! ```text
//! POST   /v1/revocations         {kind, issuer, id, reason?, ttl?, new_issuer?, until_now?} or {token, reason?, ttl?, new_issuer?}
//!                                201 {key, kind, answer, before?, until, ends, on_disk, replicas}
//! GET    /v1/revocations         ?cursor=&limit=   200 {revocations, cursor}; a null cursor is the end
//! GET    /v1/revocations/{key}   200 {key, answer, before?, until, kind, issuer, id?, reason?, by, at}
//! DELETE /v1/revocations/{key}   200 {lifted, on_disk, replicas}
//! POST   /v1/revocations/bulk    NDJSON of the first; 200 NDJSON {line, key, …} or {line, error}, then {summary}
//! ```
//! Times are Unix seconds; `until` is "never" for what holds until it is lifted. A signing key does by default, a session
//! as long as sessions live, all else as long as a token. 503 says in `written` whether the revocation may be in force all the same.
mod audit;
mod bulk;
pub mod guard;
pub mod problem;
mod query;
mod revocation;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::check::StoreError;
use wire::{Answer, Kind, RevocationKey};

use crate::app::server::Shared;
use crate::base::clock::unix_seconds;
use crate::http::gate::{Gate, Refusal};
use crate::http::{health, openapi};
use guard::{Caller, Record};
use problem::Problem;
use revocation::{Ask, MAX_TOKEN, NEVER, RevocationAsk, Subject};
use store::{Durability, Ends, ListError, Revocation, StoredRevocation, WriteError, Written};

/// The most bytes of one revocation: the longest token, and what may be beside it.
const MAX_REVOCATION_BYTES: usize = MAX_TOKEN + 16 * 1024;
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

pub fn routes(shared: Arc<Shared>) -> Router {
    let document: Bytes = openapi::admin_document().into();
    let served = move || async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], document) };
    let limit = shared.options.write_limit() + Duration::from_secs(10);
    let limited = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
    let gate = Gate::new(shared.options.max_requests, MAX_REVOCATION_BYTES);
    let guarded = |routes: OpenApiRouter<Arc<Shared>>| {
        Router::from(routes)
            .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"))
            .route_layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
    };
    // The time is of the answer: what was begun goes on, in its place.
    let bounded = guarded(bounded_routes().layer(middleware::from_fn_with_state(gate, pass))).layer(limited);
    bounded
        // It takes as long as it has lines, and bounds each wait itself.
        .merge(guarded(bulk_routes()))
        .merge(Router::from(health::routes()))
        .route("/openapi.json", axum::routing::get(served))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found"))
        .with_state(shared)
}

fn bounded_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(revoke, list))
        .routes(routes!(show, lift))
        .merge(sessions::routes())
        .merge(audit::routes())
}

fn bulk_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(bulk::revoke))
}

/// The description of this listener, itself apart.
pub fn api() -> OpenApi {
    OpenApiRouter::<Arc<Shared>>::new()
        .merge(bounded_routes())
        .merge(bulk_routes())
        .merge(health::routes())
        .into_openapi()
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Result<Response, Problem> {
    let (request, _place) = gate.admit(request).await?;
    Ok(next.run(request).await)
}

/// End a token, session, user, client, key or issuer.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    request_body = RevocationAsk,
    responses((status = 201, body = Value), (status = "default", body = Problem)),
)]
async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<Record>,
    body: Bytes,
) -> Result<Response, Problem> {
    record.about(|event| event.action = "revoke".to_owned());
    let ask = Ask::read(&body, &shared.options)?;
    check_issuer(&shared, &ask).await?;
    record.about(|event| ask.describe(event));
    let done = write(&shared, &ask, &caller.0).await?;
    let key = done.get("key").and_then(|key| key.as_str());
    tracing::info!(kind = ask.subject.kind.name(), key, "revoked");
    Ok((StatusCode::CREATED, Json(done)).into_response())
}

/// A revocation for a mistyped issuer would succeed, and end nothing.
async fn check_issuer(shared: &Shared, ask: &Ask) -> Result<(), Problem> {
    if ask.new_issuer {
        return Ok(());
    }
    let known = shared.issuers.check(ask.subject.issuer(), ask.subject.kind, &*shared.stores.issuers).await;
    match known.map_err(|trouble| Problem::from(trouble).written("no"))? {
        Ok(()) => Ok(()),
        Err(unknown) => Err(Problem::field(unknown.field(), &unknown.detail())),
    }
}

/// Writes what was asked, under the name that each live secret gives it.
async fn write(shared: &Shared, ask: &Ask, by: &str) -> Result<Map<String, Value>, Problem> {
    let now = unix_seconds();
    let (key, written) = write_as(shared, ask, now, by).await?;
    let mut done = Map::new();
    done.insert("key".into(), key.to_string().into());
    done.insert("kind".into(), ask.subject.kind.name().into());
    if let Some(stands) = written.in_force.first() {
        describe(&mut done, Some(stands.ending.into()), stands.expires_in, now);
    }
    let before = done.get("before").and_then(Value::as_u64);
    done.insert("ends".into(), ask.subject.ends_what(before).into());
    describe_safety(&mut done, written.durability);
    Ok(done)
}

/// Ends sessions or users for another part of this service, as an operator would: all of `ids`, or it is an error. `asked`:
/// when that was, in Unix seconds, if it was before now.
///
/// # Errors
/// Why it is not acknowledged, in words of ours.
pub async fn end(
    shared: &Shared,
    kind: Kind,
    issuer: &str,
    ids: &[String],
    by: &str,
    asked: Option<u64>,
) -> Result<Vec<RevocationKey>, String> {
    let (mut revocations, mut keys) = (Vec::new(), Vec::new());
    for id in ids {
        let ask = Ask::of(kind, issuer, id, None, &shared.options);
        let of_one = sealed(shared, &ask, unix_seconds(), by).map_err(|problem| problem.to_string())?;
        keys.push(of_one.first().map(|revocation| revocation.key).ok_or("there is no secret")?);
        revocations.extend(of_one);
    }
    for revocation in &mut revocations {
        if let (Ends::IssuedUntilNow, Some(asked)) = (revocation.ends, asked) {
            revocation.ends = Ends::IssuedUntil(asked);
        }
    }
    shared.stores.revocations.revoke(revocations).await.map_err(|error| Problem::from(error).to_string())?;
    for _ in &keys {
        shared.metrics.revoked(kind);
    }
    Ok(keys)
}

/// Ends a session for the part of this service that keeps them: for `ttl`, which covers all of its tokens.
///
/// # Errors
/// As for [`store::RevocationStore::revoke`].
pub async fn revoke_session(
    shared: &Shared,
    issuer: &str,
    sid: &str,
    reason: Option<&str>,
    by: &str,
    ttl: Duration,
) -> Result<(), WriteError> {
    let ask = Ask { ttl: Some(ttl), ..Ask::of(Kind::Session, issuer, sid, reason, &shared.options) };
    let revocations = sealed(shared, &ask, unix_seconds(), by);
    let revocations = revocations.map_err(|_| WriteError::NotWritten(StoreError::StoreFailed))?;
    shared.stores.revocations.revoke(revocations).await?;
    shared.metrics.revoked(Kind::Session);
    Ok(())
}

/// Ends everything that was issued for a user until now, and says until when that is.
///
/// # Errors
/// As for a revocation that an operator asks for.
pub async fn revoke_user(
    shared: &Shared,
    issuer: &str,
    subject: &str,
    reason: Option<&str>,
    by: &str,
) -> Result<Option<u64>, Problem> {
    let ask = Ask::of(Kind::User, issuer, subject, reason, &shared.options);
    let (_, written) = write_as(shared, &ask, unix_seconds(), by).await?;
    Ok(match written.in_force.first().map(|stands| Answer::from(stands.ending)) {
        Some(Answer::Before(before)) => Some(before),
        _ => None,
    })
}

async fn write_as(shared: &Shared, ask: &Ask, now: u64, by: &str) -> Result<(RevocationKey, Written), Problem> {
    let revocations = sealed(shared, ask, now, by)?;
    let key = revocations.first().map(|revocation| revocation.key).ok_or_else(Problem::internal)?;
    let written = shared.stores.revocations.revoke(revocations).await?;
    shared.metrics.revoked(ask.subject.kind);
    Ok((key, written))
}

fn sealed(shared: &Shared, ask: &Ask, now: u64, by: &str) -> Result<Vec<Revocation>, Problem> {
    let (ends, note) = (ask.ends(), ask.note(now, by));
    let mut revocations = Vec::with_capacity(shared.secrets.len());
    for (secret, key) in ask.subject.keys(&shared.secrets).into_iter().enumerate() {
        let sealed = shared.seals.seal(secret, key, &note).map_err(|_| Problem::internal())?;
        revocations.push(Revocation { key, ends, sealed, ttl: ask.ttl });
    }
    Ok(revocations)
}

/// What is revoked now.
#[utoipa::path(
    get, path = "/v1/revocations", tag = "revocations", security(("bearer" = []), ("certificate" = [])),
    params(("cursor" = Option<String>, Query), ("limit" = Option<u16>, Query, description = "1 to 1000; 100 by default")),
    responses((status = 200, body = Value), (status = "default", body = Problem)),
)]
async fn list(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (mut cursor, mut limit) = (None, DEFAULT_PAGE);
    for pair in query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("cursor", text)) => cursor = Some(text),
            Some(("limit", text)) => {
                limit =
                    text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(|| {
                        Problem::field("limit", &format!("must be a whole number from 1 to {MAX_PAGE}"))
                    })?;
            }
            other => {
                let name = other.map_or(pair, |(name, _)| name);
                return Err(Problem::field(name, "is no parameter of this request"));
            }
        }
    }
    let page = shared.stores.revocations.list(cursor, limit).await?;
    let now = unix_seconds();
    let revocations: Vec<_> = page.revocations.iter().map(|stored| present(&shared, stored, now)).collect();
    Ok(Json(json!({ "revocations": revocations, "cursor": page.cursor })).into_response())
}

/// One revocation.
#[utoipa::path(
    get, path = "/v1/revocations/{key}", tag = "revocations", security(("bearer" = []), ("certificate" = [])), params(("key" = String, Path)),
    responses((status = 200, body = Value), (status = "default", body = Problem)),
)]
async fn show(State(shared): State<Arc<Shared>>, Path(key): Path<String>) -> Result<Response, Problem> {
    let stored = shared.stores.revocations.show(parse_key(&key)?).await?.ok_or_else(Problem::no_revocation)?;
    Ok(Json(present(&shared, &stored, unix_seconds())).into_response())
}

/// Lifts a revocation under every live secret, as far as its note says whose it is.
#[utoipa::path(
    delete, path = "/v1/revocations/{key}", tag = "revocations", security(("bearer" = []), ("certificate" = [])), params(("key" = String, Path)),
    responses((status = 200, body = Value), (status = "default", body = Problem)),
)]
async fn lift(
    State(shared): State<Arc<Shared>>,
    Extension(record): Extension<Record>,
    Path(key): Path<String>,
) -> Result<Response, Problem> {
    let key = parse_key(&key)?;
    record.about(|event| {
        event.action = "lift".to_owned();
        event.id = Some(key.to_string());
    });
    let stored = shared.stores.revocations.show(key).await?.ok_or_else(Problem::no_revocation)?;
    let note = shared.seals.open(key, &stored.sealed);
    if let Some(note) = &note {
        record.about(|event| {
            event.kind = Some(note.kind.clone());
            event.iss = Some(note.iss.clone());
            event.reason = note.id.as_ref().map(|id| format!("lifted what ended {id}"));
        });
    }
    let subject = note.and_then(|note| Subject::from_note(&note));
    let mut keys = subject.map(|subject| subject.keys(&shared.secrets)).unwrap_or_default();
    if !keys.contains(&key) {
        keys.push(key);
    }
    let written = shared.stores.revocations.lift(keys.clone()).await?;
    if written.removed == 0 {
        return Err(Problem::no_revocation());
    }
    tracing::info!(%key, "lifted");
    let keys: Vec<_> = keys.iter().map(RevocationKey::to_string).collect();
    let mut done = Map::new();
    done.insert("lifted".into(), keys.into());
    describe_safety(&mut done, written.durability);
    Ok(Json(done).into_response())
}

fn parse_key(text: &str) -> Result<RevocationKey, Problem> {
    text.parse().map_err(|()| Problem::field("key", "must be 22 characters of base64url"))
}

fn present(shared: &Shared, stored: &StoredRevocation, now: u64) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("key".into(), stored.key.to_string().into());
    describe(&mut shown, stored.answer, stored.expires_in, now);
    if let Some(note) = shared.seals.open(stored.key, &stored.sealed) {
        shown.insert("kind".into(), note.kind.into());
        shown.insert("issuer".into(), note.iss.into());
        for (name, value) in
            [("id", note.id), ("signing_input_sha256", note.signing_input_sha256), ("reason", note.reason)]
        {
            if let Some(value) = value {
                shown.insert(name.into(), value.into());
            }
        }
        shown.insert("by".into(), note.by.into());
        shown.insert("at".into(), note.at.into());
    }
    shown
}

fn describe(shown: &mut Map<String, Value>, answer: Option<Answer>, expires_in: Option<Duration>, now: u64) {
    let word = match answer {
        Some(Answer::Dead) => "dead",
        Some(Answer::Before(before)) => {
            shown.insert("before".into(), before.into());
            "before"
        }
        Some(Answer::Live) => "live",
        None => "unreadable",
    };
    shown.insert("answer".into(), word.into());
    let until = expires_in.map_or(Value::from(NEVER), |expires_in| {
        // Up: the entry's last fraction of a second counts as whole.
        let seconds = expires_in.as_secs() + u64::from(expires_in.subsec_nanos() > 0);
        now.saturating_add(seconds).into()
    });
    shown.insert("until".into(), until);
}

fn describe_safety(shown: &mut Map<String, Value>, durability: Durability) {
    shown.insert("on_disk".into(), durability.on_disk.into());
    shown.insert("replicas".into(), durability.replicas.into());
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::TooLong | Refusal::CutShort => "invalid_body",
            Refusal::TooSlow => "slow_body",
            Refusal::Busy => "busy",
        };
        Problem::new(refusal.status(), code).detail(refusal.to_string())
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::InvalidCursor => Problem::field("cursor", "must be a cursor that a page ended with"),
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        let (code, written) = match error {
            WriteError::NotWritten(trouble) => (trouble.name(), "no"),
            WriteError::Unknown(trouble) => (trouble.name(), "unknown"),
            WriteError::Unconfirmed(_) => ("not_confirmed", "yes"),
        };
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code).detail(detail).written(written)
    }
}
