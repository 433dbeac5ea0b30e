//! Fetches the events of one provider from its transmitter (RFC 8936), carries them out, and acknowledges those that are
//! done: revoked, and confirmed by the store.
//!
//! An event that cannot be decided yet is not acknowledged, so the transmitter sends it again. Several instances may fetch
//! from one stream: the replay guard lets each event have its effect once, and an instance acknowledges only what is done.
mod exchange;
mod reports;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch::Receiver;

use super::ProviderState;
use super::claims::Claims;
use super::error::{EventError, RejectReason};
use super::metrics::{FetchedResult, PollResult};
use super::{Endpoint, Message, Outcome, ProviderEvents, jws};
use crate::base::clock::unix_seconds;
pub use exchange::Poller;
use exchange::{Answer, PollError};
use reports::Reports;

/// Events of one answer that are carried out at once.
const AT_ONCE: usize = 8;
/// The pause after an answer with events: a transmitter that always has some must not keep this service busy with requests.
const BETWEEN: Duration = Duration::from_millis(50);
/// The first pause after a failure, at least. It doubles with each further one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause that a transmitter can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// For the last acknowledgements, when the service stops.
const LAST: Duration = Duration::from_secs(2);

/// Runs until `stop`, or until the provider is retired.
pub async fn run(events: Arc<ProviderEvents>, state: Arc<ProviderState>, mut stop: Receiver<bool>) {
    let issuer = &state.provider.issuer;
    let Some(poller) = &state.poller else { return };
    let mut reports = Reports::default();
    let mut failures = 0_u32;
    let mut most = poller.config.max_events;
    loop {
        let began = Instant::now();
        let answered = tokio::select! {
            answered = poller.poll(most, &reports) => answered,
            // What was in flight is not acknowledged, or was acknowledged by it.
            () = state.is_over(&mut stop) => return,
        };
        let pause = match answered {
            Ok(answer) => {
                failures = 0;
                events.metrics.polled(issuer, PollResult::Answered, unix_seconds());
                let interval = jittered(poller.config.interval).saturating_sub(began.elapsed());
                let is_stuck = answer.sets.iter().all(|(jti, _)| reports.has(jti));
                let more = answer.more_available;
                reports = carry_out(&events, issuer, poller, answer).await;
                match (reports.is_empty(), is_stuck) {
                    // The transmitter does not take our acknowledgements.
                    (false, true) => interval,
                    (false, false) => BETWEEN,
                    (true, _) if more && !is_stuck => interval.min(MIN_PAUSE),
                    (true, _) => interval,
                }
            }
            // The reports stay, and go with the next request: the transmitter may not have got them.
            Err(error) => {
                events.metrics.polled(issuer, PollResult::Failed, unix_seconds());
                if error == PollError::TooLarge {
                    most = (most / 2).max(1);
                }
                tracing::warn!(issuer, why = %error, "events cannot be fetched");
                let pause = jittered(back_off(poller.config.interval, failures));
                failures = failures.saturating_add(1);
                error.retry_after().map_or(pause, |asked| asked.min(MAX_RETRY_AFTER).max(pause))
            }
        };
        if failures == 0 {
            most = most.saturating_mul(2).min(poller.config.max_events);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.is_over(&mut stop) => break,
        }
    }
    if !reports.is_empty() {
        // Without it the transmitter sends them again, and they are acknowledged then.
        let _ = tokio::time::timeout(LAST, poller.report(&reports)).await;
    }
}

/// What the transmitter must be told of each event.
async fn carry_out(events: &Arc<ProviderEvents>, issuer: &str, poller: &Poller, answer: Answer) -> Reports {
    let taken = futures_util::stream::iter(answer.sets).map(|(jti, set)| async move {
        let outcome = take(events, issuer, &jti, set).await;
        (jti, outcome)
    });
    let mut taken = taken.buffer_unordered(AT_ONCE);
    let mut reports = Reports::default();
    while let Some((jti, outcome)) = taken.next().await {
        let result = match outcome {
            Ok(outcome) => {
                reports.acknowledge(jti);
                match outcome {
                    Outcome::Ended(_) => FetchedResult::Ended,
                    Outcome::Noted => FetchedResult::Noted,
                }
            }
            Err(EventError::Rejected(rejected)) => {
                if let Some(more) = poller.refused.pass(Instant::now()) {
                    tracing::warn!(issuer, why = rejected.set_code(), more, "refused an event that was fetched");
                }
                reports.refuse(jti, &rejected);
                FetchedResult::Refused
            }
            Err(EventError::Unavailable(unavailable)) => {
                if let Some(more) = poller.refused.pass(Instant::now()) {
                    tracing::warn!(
                        issuer,
                        why = unavailable.why,
                        more,
                        "could not decide on an event that was fetched"
                    );
                }
                FetchedResult::Unavailable
            }
        };
        events.metrics.fetched(result);
    }
    reports
}

async fn take(events: &Arc<ProviderEvents>, issuer: &str, jti: &str, set: Value) -> Result<Outcome, EventError> {
    let Value::String(token) = set else {
        return Err(RejectReason::Malformed("the event is not a string".into()).into());
    };
    judge_name(&token, issuer, jti)?;
    events.take(Message { endpoint: Endpoint::Events, token, body: None }, ()).await
}

/// Before its signature is checked: an event under another's name would acknowledge the other. A stream has the events of
/// its own transmitter only.
fn judge_name(token: &str, issuer: &str, jti: &str) -> Result<(), RejectReason> {
    #[derive(Deserialize)]
    struct Named {
        jti: String,
    }
    let token = jws::parse(token)?;
    if Claims::issuer_of(token.payload())? != issuer {
        return Err(RejectReason::Issuer);
    }
    let named: Result<Named, _> = serde_json::from_slice(token.payload());
    match named {
        Ok(named) if named.jti == jti => Ok(()),
        Ok(_) => Err(RejectReason::Claim("jti", "is not the name of the event in `sets`")),
        Err(error) => Err(RejectReason::Malformed(format!("the claims: {error}"))),
    }
}

fn back_off(interval: Duration, failures: u32) -> Duration {
    interval.max(MIN_PAUSE).saturating_mul(1 << failures.min(10)).min(MAX_PAUSE.max(interval))
}

/// Give or take a quarter, so that instances do not ask in step.
fn jittered(pause: Duration) -> Duration {
    // Its keys are random.
    let random = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(256);
    pause.saturating_mul(random.saturating_add(768)) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_pauses_that_grow_and_end_growing() {
        let seconds = |interval, failures| back_off(Duration::from_secs(interval), failures).as_secs();
        assert_eq!([0, 1, 2, 3].map(|failures| seconds(10, failures)), [10, 20, 40, 80]);
        assert_eq!([0, 8, 40, u32::MAX].map(|failures| seconds(0, failures)), [1, 256, 300, 300]);
        assert_eq!(seconds(3600, 5), 3600, "never shorter than the interval");
    }

    #[test]
    fn a_pause_varies_by_a_quarter() {
        let pause = Duration::from_secs(100);
        for _ in 0..1000 {
            let jittered = jittered(pause);
            assert!(jittered >= pause * 3 / 4 && jittered < pause * 5 / 4, "{jittered:?}");
        }
    }
}
