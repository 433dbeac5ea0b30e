//! A verified token is carried out: claimed so that it works once, revoked, and marked as done.
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::oneshot;
use wire::Kind;
use wire::check::StoreError;

use super::claims::Claims;
use super::error::{EventError, RejectReason, Unavailable};
use super::events::{Meaning, Reading};
use super::pending::PendingToken;
use super::provider_state::{PendingFor, ProviderState};
use super::providers::Opaque;
use super::subjects::Scope;
use super::{Ending, Endpoint, Judgement, Message, Outcome, ProviderEvents, Step, WAIT, Waiting};
use super::{events, global_revocation, logout};
use crate::base::clock::unix_seconds;
use crate::domain::audit::Event;
use crate::domain::revocations::{RevokeRequest, Subject};
use store::Claim;

impl ProviderEvents {
    /// Judges a token, and carries it out or holds it.
    pub(super) async fn judge_and_carry_out(&self, message: Message) -> Step {
        let (arrived, arrived_at) = (Instant::now(), unix_seconds());
        let Message { endpoint, token: text, body } = message;
        let token = PendingToken { endpoint, text, body, arrived, arrived_at, judged: None, waiter: None };
        match self.judge(endpoint, &token.text, token.body.as_deref(), arrived) {
            Err(rejected) => Step::Done(Err(rejected.into())),
            Ok(Judgement::Good(state, claims)) => {
                let outcome = self.carry_out(endpoint, &state, &claims, None).await;
                if let Err(EventError::Unavailable(_)) = &outcome {
                    self.hold(&state, PendingFor::Store, token);
                }
                Step::Done(outcome)
            }
            Ok(Judgement::Undecided(state, judged)) => {
                let due = state.source.due(arrived, true).saturating_duration_since(arrived);
                let unavailable = state.source.unavailable(due);
                let permit = Arc::clone(&self.waiting).try_acquire_owned().ok().filter(|_| due <= WAIT);
                let Some(permit) = permit else {
                    self.hold(&state, PendingFor::Keys, PendingToken { judged, ..token });
                    return Step::Done(Err(unavailable.into()));
                };
                let (waiter, outcome) = oneshot::channel();
                self.hold(&state, PendingFor::Keys, PendingToken { judged, waiter: Some(waiter), ..token });
                Step::Waits(Waiting { outcome, unavailable, _permit: permit })
            }
        }
    }

    /// `asked`: when the token arrived, if that was before now.
    pub(super) async fn carry_out(
        &self,
        endpoint: Endpoint,
        state: &ProviderState,
        claims: &Claims,
        asked: Option<u64>,
    ) -> Result<Outcome, EventError> {
        let provider = &state.provider;
        let ending = match self.meaning(endpoint, state, claims)? {
            Meaning::Ends(ending) => ending,
            Meaning::Nothing => return Ok(Outcome::Noted),
            Meaning::OfStream(event) => {
                state.stream.on(event, claims.iat, &provider.issuer, &self.metrics);
                return Ok(Outcome::Noted);
            }
        };
        let digest = digest(endpoint, claims);
        let unconfirmed =
            |what: &str, error: StoreError| EventError::from(Unavailable::store(format!("{what}: {}", error.name())));
        match self.replay_guard.claim(&digest, self.limit).await {
            Ok(Claim::Claimed) => {}
            Ok(Claim::Pending) => return Err(Unavailable::busy("the same token is being processed").into()),
            Ok(Claim::Done) => {
                return match endpoint {
                    // Its sender asks again, as the 503 told it to.
                    Endpoint::Logout if asked.is_none() && self.acknowledge(&digest) => Ok(Outcome::Noted),
                    // The JWT of a revocation request does not say which user the request before was about.
                    Endpoint::Logout | Endpoint::GlobalRevocation => Err(RejectReason::Replayed.into()),
                    // A transmitter that missed our answer sends the event again, and must be told to stop.
                    Endpoint::Events => Ok(Outcome::Noted),
                };
            }
            Err(error) => return Err(unconfirmed("the token was not claimed", error)),
        }
        let by = format!("{} of {}", endpoint.name(), provider.issuer);
        let revocations = self.revocations.get();
        let policy = revocations.policy();
        let subjects = ending.ids.iter().map(|id| Subject::known(ending.kind, &ending.issuer, id));
        let requests: Vec<_> = subjects.map(|subject| RevokeRequest::internal(subject, None, policy)).collect();
        let keys = match revocations.revoke_all(&requests, &by, asked).await {
            Ok(keys) => keys,
            Err(error) => {
                // Otherwise the provider's next attempt would be a replay, and the session would live on. If this fails
                // too, the claim expires by itself.
                let _ = self.replay_guard.release(&digest).await;
                return Err(Unavailable::store(error.to_string()).into());
            }
        };
        for key in keys {
            audit(&by, ending.kind, &key.to_string());
        }
        self.record(by, ending.clone());
        // As long as it would be young enough, plus the tolerated difference of clocks.
        let young = endpoint.max_age(provider).unwrap_or_default() + provider.skew * 3 + Duration::from_secs(1);
        self.replay_guard
            .complete(&digest, young)
            .await
            .map_err(|error| unconfirmed("the token was not marked as used", error))?;
        Ok(Outcome::Ended(ending.kind))
    }

    /// Adds to the audit log who was ended. Its sender does not wait for that.
    fn record(&self, by: String, ending: Ending) {
        let audit = self.audit.get();
        self.work.spawn(async move {
            let Ending { kind, issuer, ids } = ending;
            for id in ids {
                let (sid, sub, id) = match kind {
                    Kind::Session | Kind::StepUp => (Some(id), None, None),
                    Kind::User => (None, Some(id), None),
                    Kind::Token | Kind::Client | Kind::SigningKey | Kind::Issuer => (None, None, Some(id)),
                };
                let (kind, iss) = (Some(kind.name().to_owned()), Some(issuer.clone()));
                audit.write(Event { kind, iss, sid, sub, id, ..Event::new(&by, "revoke", "done") }).await;
            }
        });
    }

    /// # Errors
    /// It asks for something that cannot be done.
    fn meaning(&self, endpoint: Endpoint, state: &ProviderState, claims: &Claims) -> Result<Meaning, RejectReason> {
        let provider = &state.provider;
        match endpoint {
            Endpoint::Logout => logout::ending(claims, &provider.issuer).map(Meaning::Ends),
            Endpoint::Events => {
                let given = provider.events.as_ref().ok_or(RejectReason::Issuer)?;
                let scope = Scope {
                    issuer: given.subject_issuer.as_ref().unwrap_or(&provider.issuer),
                    issuer_names: &given.subject_issuer_names,
                    opaque: given.opaque,
                    mappings: &state.mappings,
                };
                events::meaning(claims, Reading { scope, actions: &given.actions, drafts: given.drafts })
            }
            Endpoint::GlobalRevocation => {
                let given = provider.global_revocation.as_ref().ok_or(RejectReason::Issuer)?;
                // Such a request is always about a user.
                let scope = Scope {
                    issuer: given.subject_issuer.as_ref().unwrap_or(&provider.issuer),
                    issuer_names: &[],
                    opaque: Opaque::User,
                    mappings: &state.mappings,
                };
                global_revocation::ending(claims, given.subject.as_deref(), scope).map(Meaning::Ends)
            }
        }
    }
}

/// Identifies a token in the store. No secret plays a part, so services that rotate theirs agree on it.
pub fn digest(endpoint: Endpoint, claims: &Claims) -> String {
    let mut context = Context::new(&SHA256);
    for part in [endpoint.name(), &claims.iss, &claims.jti] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// The one log line about what providers ended.
fn audit(by: &str, kind: Kind, key: &str) {
    tracing::info!(target: "portcullis::audit", by, kind = kind.name(), key, "revoked");
}
