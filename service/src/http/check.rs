//! `POST /v1/check`: the filter's question, answered or refused; or the issuers that it asks about, noted. Whatever was asked with our secret is answered with
//! our MAC, troubles too.
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire::Retention;
use wire::check::{Asked, CONTENT_TYPE, NamedIssuer, Needs, QuestionError, StoreError};

use crate::Options;
use crate::app::metrics::CheckResult;
use crate::app::server::Shared;
use crate::base::clock::unix_seconds;
use crate::base::connections::Proof;
use crate::domain::issuers;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// The filter's question about revocations, and its answer: bytes, authenticated both ways.
#[utoipa::path(
    post, path = "/v1/check", tag = "check",
    request_body(content_type = "application/vnd.portcullis.check", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/vnd.portcullis.check", body = Vec<u8>),
        (status = 400, description = "not a question"),
        (status = 401, description = "not made with a secret of ours"),
        (status = 503, content_type = "application/vnd.portcullis.check", body = Vec<u8>),
    )
)]
pub async fn check(State(shared): State<Arc<Shared>>, Extension(proof): Extension<Proof>, body: Bytes) -> Response {
    let asked = match Asked::read(&shared.secrets, &body) {
        Ok(asked) => asked,
        Err(error) => {
            shared.metrics.check(CheckResult::Refused);
            if let Some(more) = shared.refused.pass(Instant::now()) {
                tracing::warn!(%error, more, "refused a check");
            }
            return (status_of(error), [NO_STORE], error.to_string()).into_response();
        }
    };
    proof.given();
    // `secret` is the place of the one that `read` found among these.
    let Some(derived) = shared.secrets.get(asked.secret()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let keeps = shared.options.keeps();
    let answered = match meets(&asked.needs(), &shared.options, unix_seconds()) {
        Ok(()) if !asked.issuers().is_empty() => {
            note_issuers(&shared, asked.issuers(), keeps);
            Ok(Vec::new())
        }
        Ok(()) => {
            shared.metrics.keys_per_check.observe(asked.keys().len() as f64);
            shared.stores.revocations.check(asked.keys()).await
        }
        Err(trouble) => Err(trouble),
    };
    let (status, body) = match answered {
        Ok(answers) => {
            if asked.issuers().is_empty() {
                shared.metrics.check(CheckResult::Answered);
            }
            (StatusCode::OK, asked.answers(derived, keeps, &answers))
        }
        Err(trouble) => {
            shared.metrics.check(CheckResult::StoreError);
            shared.metrics.trouble(trouble);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, asked.error(derived, status.as_u16(), trouble))
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE), NO_STORE], body).into_response()
}

/// No filter waits for the store here.
fn note_issuers(shared: &Arc<Shared>, told: &[NamedIssuer], keeps: Retention) {
    let short = told.iter().filter(|issuer| !keeps.covers(issuer.needs)).count();
    (0..short).for_each(|_| shared.metrics.trouble(StoreError::RetentionTooShort));
    let new = shared.issuers.learn(told, keeps);
    if new.is_empty() {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let (known, bounds) = issuers::to_store(&new);
        if let Err(error) = shared.stores.issuers.remember(&known, bounds).await {
            shared.issuers.not_stored(&new);
            tracing::warn!(%error, "the issuers that filters ask about could not be stored");
        }
    });
}

/// Whether a revocation that we make at `now` ends everything that this filter would let pass.
fn meets(needs: &Needs, options: &Options, now: u64) -> Result<(), StoreError> {
    let lead = options.future_iat_tolerance_seconds();
    if u64::from(needs.future_iat_tolerance_seconds) > lead {
        return Err(StoreError::ToleranceTooShort);
    }
    // On its way the asker's time has only become older, so a slow network raises no alarm. It hides one, by as much.
    if needs.now_seconds > now.saturating_add(1).saturating_add(lead) {
        return Err(StoreError::ClockBehind);
    }
    Ok(())
}

fn status_of(error: QuestionError) -> StatusCode {
    match error {
        QuestionError::Malformed | QuestionError::Count | QuestionError::Issuers => StatusCode::BAD_REQUEST,
        QuestionError::UnknownSecret | QuestionError::Forged => StatusCode::UNAUTHORIZED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::options::tests::options;

    // Options: lead 1.
    const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: 1002 };

    #[test]
    fn a_filter_is_answered_only_if_our_revocations_end_all_that_it_lets_pass() {
        let judged = |needs| meets(&needs, &options(), 1000);
        assert_eq!(judged(NEEDS), Ok(()));
        assert_eq!(judged(Needs { now_seconds: 0, ..NEEDS }), Ok(()));
        assert_eq!(judged(Needs { future_iat_tolerance_seconds: 2, ..NEEDS }), Err(StoreError::ToleranceTooShort));
        assert_eq!(judged(Needs { now_seconds: 1003, ..NEEDS }), Err(StoreError::ClockBehind));
    }
}
