//! Other providers take the place of the former ones while the service runs. What is pending is not lost.
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::pending::PendingToken;
use super::provider_state::{PendingFor, ProviderState};
use super::{Judgement, LoadedProviders, ProviderEvents, share, watch};

impl ProviderEvents {
    /// Takes these providers in place of the former ones. One that is as before goes on undisturbed. Of one that has changed,
    /// the keys that were fetched and the pending tokens are kept, and the tokens are judged anew. The
    /// signature of one that was verified before is not verified again.
    pub fn replace(self: &Arc<Self>, LoadedProviders(mut states): LoadedProviders) {
        // Held to the end: a start in between would start the tasks of these providers too.
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let former = self.providers.get();
        let share = share(states.len());
        let mut new = Vec::new();
        for (issuer, state) in &mut states {
            match former.get(issuer) {
                Some(before) if before.is_like(state) => *state = Arc::clone(before),
                before => {
                    if let Some(before) = before {
                        state.take_over(before);
                    }
                    new.push(Arc::clone(state));
                }
            }
            for token in state.set_share(share) {
                self.metrics.pending(0, 1);
                self.drop_pending(token);
            }
        }
        for issuer in former.keys().chain(states.keys().filter(|issuer| !former.contains_key(*issuer))) {
            let provider =
                |states: &HashMap<String, Arc<ProviderState>>| states.get(issuer).map(|it| it.provider.clone());
            self.metrics.change_provider(issuer, provider(&former).as_ref(), provider(&states).as_ref());
        }
        self.providers.replace(Arc::new(states));
        for (issuer, before) in &*former {
            if self.state(issuer).is_none_or(|now| !Arc::ptr_eq(&now, before)) {
                self.retire(before);
            }
        }
        // Without these they are started later.
        if let Some(stops) = &*stops {
            new.iter().for_each(|state| self.start_provider(state, stops));
        }
    }

    /// Ends the tasks of a provider that is not among ours any more. Its pending tokens are judged anew.
    fn retire(self: &Arc<Self>, state: &Arc<ProviderState>) {
        state.retire();
        let (events, state) = (Arc::clone(self), Arc::clone(state));
        // Unauthenticated senders can make this thousands of signatures.
        self.work.spawn_blocking(move || {
            for what in [PendingFor::Keys, PendingFor::Store] {
                let tokens = state.pending(what).take_all();
                events.metrics.pending(0, tokens.len());
                tokens.into_iter().for_each(|token| events.hold(&state, what, token));
            }
        });
    }

    /// Holds a pending token, at `state` or what has taken its place.
    pub(super) fn hold(&self, state: &Arc<ProviderState>, what: PendingFor, token: PendingToken) {
        let (mut state, mut what, mut token) = (Arc::clone(state), what, token);
        let (more, gone) = loop {
            let retired = match state.hold(what, token) {
                Ok(held) => break held,
                Err(token) => *token,
            };
            // Another configuration of the provider has taken its place, or none.
            let (endpoint, text, body) = (retired.endpoint, &retired.text, retired.body.as_deref());
            let judged = match what {
                PendingFor::Keys => self.judge(endpoint, text, body, retired.arrived),
                PendingFor::Store => self.judge_verified(endpoint, text, body),
            };
            match judged {
                Ok(Judgement::Good(now, _)) => (state, what, token) = (now, PendingFor::Store, retired),
                Ok(Judgement::Undecided(now, judged)) => {
                    (state, what, token) = (now, PendingFor::Keys, PendingToken { judged, ..retired });
                }
                Err(rejected) => return watch::finish(self, retired, None, Err(rejected.into())),
            }
        };
        self.metrics.pending(more, gone.len());
        for token in gone {
            self.drop_pending(token);
        }
        state.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
