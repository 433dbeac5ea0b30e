//! One task for each provider: fetches its keys when that is due, and then decides and carries out what was kept for want
//! of them. What Redis did not confirm is tried again. Nothing here waits for a sender.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;

use super::claims::Claims;
use super::jws::Unverified;
use super::kept::Token;
use super::refused::{Failed, Refused};
use super::{For, Judgement, Known, Taken, carry_out, digest};
use crate::clock::unix_seconds;
use crate::metrics::LaterResult;
use crate::server::Shared;

/// How often what was not confirmed is tried again, and what was kept long enough is looked for.
const AGAIN: Duration = Duration::from_secs(1);

/// Where nothing is ever fetched.
const IDLE: Duration = Duration::from_secs(3600);

/// Until `stop`, and then once more: what was kept is in this memory only.
pub async fn watch(shared: Arc<Shared>, issuer: String, mut stop: Receiver<bool>) {
    let Some(known) = shared.signals.known.get(&issuer) else { return };
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        if now.saturating_duration_since(looked) >= AGAIN {
            looked = now;
            drop_old(&shared, known, now);
            write_again(&shared, known);
        }
        if let Some(held) = known.source.held(now) {
            // What came while they were on their way.
            decide(&shared, known, held.fetched).await;
        }
        let due = known.source.due(Instant::now(), known.is_searching());
        if due <= Instant::now() && known.provider.has_keys() {
            look(&shared, known).await;
            continue;
        }
        let is_idle = !known.is_searching() && known.kept(For::Redis).is_empty();
        let due = if known.provider.has_keys() { due } else { now + IDLE };
        let until = if is_idle { due } else { due.min(now + AGAIN) };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = known.wake.notified() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    if known.is_searching() {
        look(&shared, known).await;
    }
    write_again(&shared, known);
    match known.kept(For::Keys).len() {
        0 => {}
        tokens => tracing::warn!(issuer, tokens, "stopped with tokens that could not be verified"),
    }
}

/// Fetches, and decides with what came of it.
async fn look(shared: &Arc<Shared>, known: &Known) {
    let began = Instant::now();
    let before = known.source.held(began).map(|held| held.generation);
    match known.source.fetch().await {
        // New keys may be those of what came after the fetch began, too.
        Some(held) if before != Some(held.generation) => decide(shared, known, Instant::now()).await,
        Some(held) => decide(shared, known, held.fetched).await,
        None => {
            let due = known.source.due(Instant::now(), true);
            let unavailable = known.source.unavailable(due.saturating_duration_since(Instant::now()));
            for waiter in known.kept(For::Keys).waiters_until(began) {
                let _ = waiter.send(Err(unavailable.clone().into()));
            }
        }
    }
}

/// Decides on what came until `until`, with the keys that are held. What came after they were fetched can only be good, or
/// stays.
async fn decide(shared: &Arc<Shared>, known: &Known, until: Instant) {
    let Some(held) = known.source.held(Instant::now()) else { return };
    let tokens = known.kept(For::Keys).take_until(until);
    if tokens.is_empty() {
        return;
    }
    shared.metrics.signals_kept(0, tokens.len());
    let judging = Arc::clone(shared);
    // Strangers can make this thousands of signatures.
    let judged = tokio::task::spawn_blocking(move || {
        let judge = |mut token: Token| match &token.judged {
            Some((with, refused)) if *with == held.generation && token.arrived <= held.fetched => {
                (Err(refused.clone()), token)
            }
            _ => {
                let judgement = judging.signals.judge(token.endpoint, &token.text, token.arrived);
                let claims = judgement.map(|judgement| match judgement {
                    Judgement::Good(_, claims) => Some(claims),
                    Judgement::Undecided(_, judged) => {
                        token.judged = judged;
                        None
                    }
                });
                (claims, token)
            }
        };
        tokens.into_iter().map(judge).collect::<Vec<_>>()
    });
    // It panics on no token; else these are lost, as their senders were told.
    for (claims, token) in judged.await.unwrap_or_default() {
        match claims {
            Ok(Some(claims)) => carry(shared, token, claims),
            // Too early; or the keys became too old in between.
            Ok(None) => known.keep(shared, For::Keys, token),
            Err(refused) => finish(shared, token, None, Err(refused.into())),
        }
    }
}

/// What was verified before is believed; its claims are read again, and its age is judged again: what names it among those
/// that were used is not kept for longer.
fn write_again(shared: &Arc<Shared>, known: &Known) {
    let tokens = known.kept(For::Redis).take_until(Instant::now());
    shared.metrics.signals_kept(0, tokens.len());
    for token in tokens {
        let young = |claims: Claims| {
            let max_age = token.endpoint.max_age(&known.provider).unwrap_or_default();
            claims.judge_times(unix_seconds(), max_age, known.provider.skew).map(|()| claims)
        };
        match Unverified::read(&token.text).and_then(|read| Claims::read(&read.payload)).and_then(young) {
            Ok(claims) => carry(shared, token, claims),
            // It became too old.
            Err(_) => drop_kept(shared, token),
        }
    }
}

/// Carries out in a task of its own, of which the service's end waits.
fn carry(shared: &Arc<Shared>, token: Token, claims: Claims) {
    let carrying = Arc::clone(shared);
    shared.work.spawn(async move {
        let shared = carrying;
        let Some(known) = shared.signals.known.get(&claims.iss) else { return };
        let Ok(_place) = shared.signals.carrying.acquire().await else { return };
        let outcome = carry_out(&shared, token.endpoint, known, &claims, Some(token.arrived_at)).await;
        match outcome {
            Err(Failed::Unavailable(unavailable)) => {
                let mut token = token;
                if let Some(waiter) = token.waiter.take() {
                    let _ = waiter.send(Err(unavailable.into()));
                }
                known.keep(&shared, For::Redis, token);
            }
            outcome => {
                let name = digest(token.endpoint, &claims);
                finish(&shared, token, Some(name), outcome);
            }
        }
    });
}

/// Tells whoever waits. If nobody does, its sender was told that it could not be decided.
fn finish(shared: &Shared, mut token: Token, name: Option<String>, outcome: Result<Taken, Failed>) {
    let later = match &outcome {
        Ok(Taken::Ended(_)) => LaterResult::Ended,
        // A copy was carried out.
        Ok(Taken::Noted) | Err(Failed::Refused(Refused::Replayed)) => LaterResult::Noted,
        Err(_) => LaterResult::Refused,
    };
    let is_told = token.waiter.take().is_some_and(|waiter| waiter.send(outcome).is_ok());
    if is_told {
        return;
    }
    shared.metrics.signal_later(token.endpoint, later);
    if let (LaterResult::Ended, Some(name)) = (later, name) {
        shared.signals.remember_untold(name);
    }
}

/// It will not be decided.
pub fn drop_kept(shared: &Shared, token: Token) {
    shared.metrics.signal_later(token.endpoint, LaterResult::Dropped);
    if let Some(more) = shared.signals.dropped.pass(Instant::now()) {
        let endpoint = token.endpoint.name();
        tracing::warn!(endpoint, more, "dropped a token that could not be decided");
    }
}

fn drop_old(shared: &Shared, known: &Known, now: Instant) {
    for which in [For::Keys, For::Redis] {
        let old = known.kept(which).take_old(now);
        shared.metrics.signals_kept(0, old.len());
        for token in old {
            drop_kept(shared, token);
        }
    }
}
