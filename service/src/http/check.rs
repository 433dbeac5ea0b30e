//! `POST /v1/check`: the filter's question about revocations, answered or refused; or the issuers that it asks about, noted.
//! Every answer to a question that was made with our secret has our MAC, also when nothing can be told.
mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{join, join_all};
use jose::base64url;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::check::{Asked, CONTENT_TYPE, Claimed, NamedIssuer, Needs, QuestionError, StoreError, UsedProof};
use wire::{DerivedKeys, Retention};

use crate::base::clock::unix_seconds;
use crate::base::connections::Connection;
use crate::base::throttle::Throttle;
use crate::domain::issuers::Issuers;
use crate::domain::regions::Regions;
pub use metrics::Metrics;
use store::{Claim, PROOF, ReplayGuard, RevocationStore};

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// What answering a check needs.
#[derive(Debug, Clone)]
pub struct AppState {
    pub secrets: Arc<[DerivedKeys]>,
    pub revocations: Arc<dyn RevocationStore>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub issuers: Arc<Issuers>,
    pub regions: Arc<Regions>,
    /// How long revocations are kept, as filters are told.
    pub keeps: Retention,
    pub future_iat_tolerance_seconds: u64,
    pub metrics: Metrics,
    /// Throttles the log of refused checks.
    pub refused: Arc<Throttle>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(check))
}

/// A filter's check, and its answer: bytes, authenticated in both directions.
#[utoipa::path(
    post, path = "/v1/check", tag = "check",
    request_body(content_type = "application/vnd.portcullis.check", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/vnd.portcullis.check", body = Vec<u8>),
        (status = 400, description = "not a check"),
        (status = 401, description = "made with another secret"),
        (status = 503, content_type = "application/vnd.portcullis.check", body = Vec<u8>),
    )
)]
async fn check(State(state): State<AppState>, Extension(connection): Extension<Connection>, body: Bytes) -> Response {
    let received = Instant::now();
    let asked = match Asked::read(&state.secrets, &body) {
        Ok(asked) => asked,
        Err(error) => {
            state.metrics.refused();
            if let Some(more) = state.refused.pass(received) {
                tracing::warn!(%error, more, "refused a check");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    connection.authenticate();
    // `secret` is the index of the secret that `read` found among these.
    let Some(derived) = state.secrets.get(asked.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let answered = match meets(&asked.needs(), state.future_iat_tolerance_seconds, unix_seconds()) {
        Ok(()) if !asked.issuers().is_empty() => {
            note_issuers(&state, asked.issuers());
            Ok((Vec::new(), Vec::new()))
        }
        Ok(()) => {
            state.metrics.keys(asked.keys().len());
            let claims = claim_all(&state, asked.proofs());
            match asked.keys() {
                [] => claims.await.into_iter().collect::<Result<_, _>>().map(|claims| (Vec::new(), claims)),
                keys => {
                    let (answers, claims) = join(state.revocations.check(keys), claims).await;
                    // The other requests of the batch do not wait for a proof.
                    let claims = claims.into_iter().map(|claim| claim.unwrap_or(Claimed::Unknown));
                    answers.map(|answers| (answers, claims.collect()))
                }
            }
        }
        Err(error) => Err(error),
    };
    let (status, body) = match answered {
        Ok((answers, claims)) => {
            if asked.issuers().is_empty() {
                state.metrics.answered();
            }
            let asked = match asked.asks_about_regions() {
                // The store was read after that.
                true => asked.with_regions(state.regions.proven(derived.id(), received, received)),
                false => asked,
            };
            (StatusCode::OK, asked.answers(derived, state.keeps, &answers, &claims))
        }
        Err(error) => {
            state.metrics.failed(error);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, asked.error(derived, status.as_u16(), error))
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE], body).into_response()
}

/// Uses proofs up. No secret plays a part in their names, so proxies that rotate theirs agree on them.
async fn claim_all(state: &AppState, proofs: &[UsedProof]) -> Vec<Result<Claimed, StoreError>> {
    let claim = async |proof: &UsedProof| {
        let name = format!("{PROOF}{}", base64url::encode(proof.digest));
        // It is never completed: the claim lasts as long as the proof could be used.
        Ok(match state.replay_guard.claim(&name, Duration::from_secs(proof.seconds.into())).await? {
            Claim::Claimed => Claimed::First,
            Claim::Pending | Claim::Done => Claimed::Again,
        })
    };
    join_all(proofs.iter().map(claim)).await
}

/// Filters do not wait for the store here.
fn note_issuers(state: &AppState, told: &[NamedIssuer]) {
    let short = told.iter().filter(|issuer| !state.keeps.covers(issuer.needs)).count();
    state.metrics.issuers_kept_too_short(short);
    state.issuers.learn(told, state.keeps);
}

/// Whether a revocation that is made at `now` ends everything that this filter would let pass.
pub fn meets(needs: &Needs, tolerance_seconds: u64, now: u64) -> Result<(), StoreError> {
    if u64::from(needs.future_iat_tolerance_seconds) > tolerance_seconds {
        return Err(StoreError::ToleranceTooShort);
    }
    // The asker's time only becomes older on its way, so a slow network raises no alarm. It hides one, by as much.
    if needs.now_seconds > now.saturating_add(1).saturating_add(tolerance_seconds) {
        return Err(StoreError::ClockBehind);
    }
    Ok(())
}

pub fn status_of(error: QuestionError) -> StatusCode {
    match error {
        QuestionError::Malformed | QuestionError::Count | QuestionError::Issuers => StatusCode::BAD_REQUEST,
        QuestionError::UnknownSecret | QuestionError::Forged => StatusCode::UNAUTHORIZED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: 1002 };

    #[test]
    fn a_filter_is_answered_only_if_our_revocations_end_all_that_it_lets_pass() {
        let judged = |needs| meets(&needs, 1, 1000);
        assert_eq!(judged(NEEDS), Ok(()));
        assert_eq!(judged(Needs { now_seconds: 0, ..NEEDS }), Ok(()));
        assert_eq!(judged(Needs { future_iat_tolerance_seconds: 2, ..NEEDS }), Err(StoreError::ToleranceTooShort));
        assert_eq!(judged(Needs { now_seconds: 1003, ..NEEDS }), Err(StoreError::ClockBehind));
    }
}
