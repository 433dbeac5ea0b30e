//! One task for each provider: fetches its keys when that is due, and then decides and carries out what was pending for want
//! of them. What the store did not confirm is tried again. Nothing here waits for a sender.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch::Receiver;

use super::carry_out::digest;
use super::claims::Claims;
use super::error::{EventError, RejectReason};
use super::jws;
use super::metrics::LaterResult;
use super::pending::PendingToken;
use super::provider_state::{PendingFor, ProviderState};
use super::{Judgement, Outcome, ProviderEvents};
use crate::base::clock::unix_seconds;

/// How often what was not confirmed is tried again, and what is too old is dropped.
const AGAIN: Duration = Duration::from_secs(1);

/// The pause of a provider whose keys are never fetched.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until `stop`, and then tries pending tokens once more: they are in this memory only. Those of a retired provider go to
/// the one that takes its place.
pub async fn watch(events: Arc<ProviderEvents>, state: Arc<ProviderState>, mut stop: Receiver<bool>) {
    let state = &state;
    let issuer = &state.provider.issuer;
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        if now.saturating_duration_since(looked) >= AGAIN {
            looked = now;
            drop_old(&events, state, now);
            write_again(&events, state);
        }
        if let Some(held) = state.source.held(now) {
            // Tokens that arrived during the fetch.
            decide(&events, state, held.fetched).await;
        }
        let due = state.source.due(Instant::now(), state.waits_for_keys());
        if due <= Instant::now() && state.provider.has_keys() {
            look(&events, state).await;
            continue;
        }
        let is_idle = !state.waits_for_keys() && state.pending(PendingFor::Store).is_empty();
        let due = if state.provider.has_keys() { due } else { now + IDLE };
        let until = if is_idle { due } else { due.min(now + AGAIN) };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = state.wake.notified() => {}
            () = state.is_over(&mut stop) => break,
        }
    }
    if state.is_retired() {
        return;
    }
    if state.waits_for_keys() {
        look(&events, state).await;
    }
    write_all(&events, state).await;
    match state.pending(PendingFor::Keys).len() {
        0 => {}
        tokens => tracing::warn!(issuer, tokens, "stopped with tokens that could not be verified"),
    }
}

/// Fetches, and decides with the new keys.
async fn look(events: &Arc<ProviderEvents>, state: &Arc<ProviderState>) {
    let began = Instant::now();
    let before = state.source.held(began).map(|held| held.generation);
    match state.source.fetch().await {
        // New keys may also be those of tokens that arrived after the fetch began.
        Some(held) if before != Some(held.generation) => decide(events, state, Instant::now()).await,
        Some(held) => decide(events, state, held.fetched).await,
        None => {
            let due = state.source.due(Instant::now(), true);
            let unavailable = state.source.unavailable(due.saturating_duration_since(Instant::now()));
            for waiter in state.pending(PendingFor::Keys).waiters_until(began) {
                let _ = waiter.send(Err(unavailable.clone().into()));
            }
        }
    }
}

/// Decides on tokens that arrived until `until`, with the keys that are held. A token that arrived after the fetch can only be
/// good, or stays.
async fn decide(events: &Arc<ProviderEvents>, state: &Arc<ProviderState>, until: Instant) {
    let Some(held) = state.source.held(Instant::now()) else { return };
    let tokens = state.pending(PendingFor::Keys).take_until(until);
    if tokens.is_empty() {
        return;
    }
    events.metrics.pending(0, tokens.len());
    let judging = Arc::clone(events);
    // Unauthenticated senders can make this thousands of signatures.
    let judged = tokio::task::spawn_blocking(move || {
        let judge = |mut token: PendingToken| match &token.judged {
            Some((with, refused)) if *with == held.generation && token.arrived <= held.fetched => {
                (Err(refused.clone()), token)
            }
            _ => {
                let judgement = judging.judge(token.endpoint, &token.text, token.body.as_deref(), token.arrived);
                let is_good = judgement.map(|judgement| match judgement {
                    Judgement::Good(..) => true,
                    Judgement::Undecided(_, judged) => {
                        token.judged = judged;
                        false
                    }
                });
                (is_good, token)
            }
        };
        tokens.into_iter().map(judge).collect::<Vec<_>>()
    });
    // Judging does not panic. If it did, these tokens would be lost; their senders were answered 503.
    for (is_good, token) in judged.await.unwrap_or_default() {
        match is_good {
            Ok(true) => {
                events.hold(state, PendingFor::Store, token);
                write_again(events, state);
            }
            // Too early; or the keys became too old in between.
            Ok(false) => events.hold(state, PendingFor::Keys, token),
            Err(refused) => finish(events, token, None, Err(refused.into())),
        }
    }
}

/// Begins to carry out as many verified tokens as there are free places. The others stay pending, where they are bounded.
fn write_again(events: &Arc<ProviderEvents>, state: &Arc<ProviderState>) {
    while let Ok(permit) = Arc::clone(&events.carrying_out).try_acquire_owned() {
        let Some(token) = next(events, state) else { return };
        carry(events, state, token, permit);
    }
}

/// Tries each verified token once more, before the task ends.
async fn write_all(events: &Arc<ProviderEvents>, state: &Arc<ProviderState>) {
    let tokens = state.pending(PendingFor::Store).len();
    for _ in 0..tokens {
        let Ok(permit) = Arc::clone(&events.carrying_out).acquire_owned().await else { return };
        let Some(token) = next(events, state) else { return };
        carry(events, state, token, permit);
    }
}

fn next(events: &ProviderEvents, state: &ProviderState) -> Option<PendingToken> {
    let token = state.pending(PendingFor::Store).take_one()?;
    events.metrics.pending(0, 1);
    Some(token)
}

/// Carries out a token in a task of its own, which the end of the service waits for; then others in the same place, until
/// there are none or one is not confirmed.
fn carry(events: &Arc<ProviderEvents>, state: &Arc<ProviderState>, token: PendingToken, permit: OwnedSemaphorePermit) {
    let (carrying, state) = (Arc::clone(events), Arc::clone(state));
    events.work.spawn(async move {
        let events = carrying;
        let _permit = permit;
        let mut following = Some(token);
        while let Some(token) = following {
            if !carry_one(&events, &state, token).await {
                return;
            }
            following = next(&events, &state);
        }
    });
}

/// The signature was verified before. The age is judged again, since the replay mark is not kept for longer. Returns whether
/// the token is done.
async fn carry_one(events: &ProviderEvents, state: &Arc<ProviderState>, mut token: PendingToken) -> bool {
    let young = |claims: Claims| {
        let max_age = token.endpoint.max_age(&state.provider).unwrap_or_default();
        claims.judge_times(unix_seconds(), max_age, state.provider.skew).map(|()| claims)
    };
    let read =
        jws::parse(&token.text).and_then(|read| token.endpoint.read_claims(read.payload(), token.body.as_deref()));
    let claims = read.and_then(young);
    let Ok(claims) = claims else {
        // It became too old.
        events.drop_pending(token);
        return true;
    };
    match events.carry_out(token.endpoint, state, &claims, Some(token.arrived_at)).await {
        Err(EventError::Unavailable(unavailable)) => {
            if let Some(waiter) = token.waiter.take() {
                let _ = waiter.send(Err(unavailable.into()));
            }
            events.hold(state, PendingFor::Store, token);
            false
        }
        outcome => {
            let name = digest(token.endpoint, &claims);
            finish(events, token, Some(name), outcome);
            true
        }
    }
}

/// Answers the request that waits. If none does, the sender was answered 503 before.
pub(super) fn finish(
    events: &ProviderEvents,
    mut token: PendingToken,
    name: Option<String>,
    outcome: Result<Outcome, EventError>,
) {
    let later = match &outcome {
        Ok(Outcome::Ended(_)) => LaterResult::Ended,
        // A copy was carried out.
        Ok(Outcome::Noted) | Err(EventError::Rejected(RejectReason::Replayed)) => LaterResult::Noted,
        Err(_) => LaterResult::Refused,
    };
    let is_told = token.waiter.take().is_some_and(|waiter| waiter.send(outcome).is_ok());
    if is_told {
        return;
    }
    events.metrics.later(token.endpoint, later);
    if let (LaterResult::Ended, Some(name)) = (later, name) {
        events.remember_unacknowledged(name);
    }
}

impl ProviderEvents {
    /// It will not be decided.
    pub(super) fn drop_pending(&self, token: PendingToken) {
        self.metrics.later(token.endpoint, LaterResult::Dropped);
        if let Some(more) = self.dropped.pass(Instant::now()) {
            let endpoint = token.endpoint.name();
            tracing::warn!(endpoint, more, "dropped a token that could not be decided");
        }
    }
}

fn drop_old(events: &ProviderEvents, state: &ProviderState, now: Instant) {
    for which in [PendingFor::Keys, PendingFor::Store] {
        let old = state.pending(which).take_old(now);
        events.metrics.pending(0, old.len());
        for token in old {
            events.drop_pending(token);
        }
    }
}
