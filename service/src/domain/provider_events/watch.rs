//! One task for each provider: fetches its keys when that is due, and then decides and carries out what was kept for want
//! of them. What Redis did not confirm is tried again. Nothing here waits for a sender.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch::Receiver;

use super::claims::Claims;
use super::jws::Unverified;
use super::kept::Token;
use super::refused::{Failed, Refused};
use super::{For, Judgement, Known, Taken, carry_out, digest};
use crate::app::metrics::LaterResult;
use crate::app::server::Shared;
use crate::base::clock::unix_seconds;

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
    write_all(&shared, known).await;
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
    // It panics on no token; else these are lost, as their senders were told.
    for (is_good, token) in judged.await.unwrap_or_default() {
        match is_good {
            Ok(true) => {
                known.keep(shared, For::Redis, token);
                write_again(shared, known);
            }
            // Too early; or the keys became too old in between.
            Ok(false) => known.keep(shared, For::Keys, token),
            Err(refused) => finish(shared, token, None, Err(refused.into())),
        }
    }
}

/// Begins to carry out as many of the verified ones as there are free places. The others stay where their number is bounded.
fn write_again(shared: &Arc<Shared>, known: &Known) {
    while let Ok(place) = Arc::clone(&shared.signals.carrying).try_acquire_owned() {
        let Some(token) = next(shared, known) else { return };
        carry(shared, known, token, place);
    }
}

/// Each of them once more, before this ends.
async fn write_all(shared: &Arc<Shared>, known: &Known) {
    let tokens = known.kept(For::Redis).len();
    for _ in 0..tokens {
        let Ok(place) = Arc::clone(&shared.signals.carrying).acquire_owned().await else { return };
        let Some(token) = next(shared, known) else { return };
        carry(shared, known, token, place);
    }
}

fn next(shared: &Shared, known: &Known) -> Option<Token> {
    let token = known.kept(For::Redis).take_one()?;
    shared.metrics.signals_kept(0, 1);
    Some(token)
}

/// Carries out in a task of its own, of which the service's end waits; and then others in the same place, until there are
/// none or one is not confirmed.
fn carry(shared: &Arc<Shared>, known: &Known, token: Token, place: OwnedSemaphorePermit) {
    let (carrying, issuer) = (Arc::clone(shared), known.provider.issuer.clone());
    shared.work.spawn(async move {
        let shared = carrying;
        let _place = place;
        let Some(known) = shared.signals.known.get(&issuer) else { return };
        let mut following = Some(token);
        while let Some(token) = following {
            if !carry_one(&shared, known, token).await {
                return;
            }
            following = next(&shared, known);
        }
    });
}

/// What was verified before is believed; its claims are read again, and its age is judged again: what names it among those
/// that were used is not kept for longer. Says whether it is done with.
async fn carry_one(shared: &Shared, known: &Known, mut token: Token) -> bool {
    let young = |claims: Claims| {
        let max_age = token.endpoint.max_age(&known.provider).unwrap_or_default();
        claims.judge_times(unix_seconds(), max_age, known.provider.skew).map(|()| claims)
    };
    let claims = Unverified::read(&token.text).and_then(|read| Claims::read(&read.payload)).and_then(young);
    let Ok(claims) = claims else {
        // It became too old.
        drop_kept(shared, token);
        return true;
    };
    match carry_out(shared, token.endpoint, known, &claims, Some(token.arrived_at)).await {
        Err(Failed::Unavailable(unavailable)) => {
            if let Some(waiter) = token.waiter.take() {
                let _ = waiter.send(Err(unavailable.into()));
            }
            known.keep(shared, For::Redis, token);
            false
        }
        outcome => {
            let name = digest(token.endpoint, &claims);
            finish(shared, token, Some(name), outcome);
            true
        }
    }
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
