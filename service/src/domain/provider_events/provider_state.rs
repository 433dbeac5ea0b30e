//! One provider: its keys, its client secret, its subjects, its stream of events, and its pending tokens.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jose::Unverified;
use tokio::sync::Notify;

use super::error::RejectReason;
use super::keys::{self, Judged};
use super::mappings::Mappings;
use super::poll::Poller;
use super::secret::ClientSecret;
use super::source::Source;
use super::stream::Stream;
use super::{Endpoint, PendingTokens, Provider, ProvidersError};

#[derive(Debug)]
pub struct ProviderState {
    pub provider: Provider,
    pub source: Source,
    pub mappings: Mappings,
    pub stream: Stream,
    /// Fetches its events, where that is configured.
    pub poller: Option<Poller>,
    secret: Option<ClientSecret>,
    /// Not verified, for lack of keys.
    undecided: Mutex<PendingTokens>,
    /// Verified, and not written or not confirmed yet.
    unwritten: Mutex<PendingTokens>,
    /// To the provider's task: a token is pending.
    pub wake: Notify,
}

/// What a pending token waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingFor {
    Keys,
    Store,
}

impl ProviderState {
    /// `max_bytes`: of pending tokens, for each thing that they may wait for.
    ///
    /// # Errors
    /// A file that the provider names cannot be used.
    pub fn new(provider: &Provider, max_bytes: usize) -> Result<Self, ProvidersError> {
        let [undecided, unwritten] = [(); 2].map(|()| Mutex::new(PendingTokens::new(max_bytes)));
        Ok(Self {
            provider: provider.clone(),
            source: Source::new(provider)?,
            mappings: Mappings::load(provider)?,
            stream: Stream::default(),
            poller: Poller::new(provider)?,
            secret: provider.secret_file.as_deref().map(ClientSecret::read).transpose()?,
            undecided,
            unwritten,
            wake: Notify::new(),
        })
    }

    /// `None`: the signature is good. Else it is undecided, with the generation of keys that it was judged with, if there
    /// are any.
    ///
    /// # Errors
    /// It is rejected, and no other keys change that.
    #[allow(clippy::type_complexity)]
    pub fn judge_signature(
        &self,
        endpoint: Endpoint,
        token: &Unverified<'_>,
        arrived: Instant,
    ) -> Result<Option<Option<(u64, RejectReason)>>, RejectReason> {
        let (header, input) = (token.header(), token.signing_input());
        let algorithm = header.alg;
        // The algorithm says which kind its key is of, so neither kind is ever used as the other.
        if algorithm.is_hmac() {
            // The secret is a client's, and a client has nothing to do with streams of events.
            let secret =
                self.secret.as_ref().filter(|_| endpoint == Endpoint::Logout).ok_or(RejectReason::Algorithm)?;
            return match secret.verifies(algorithm, input, token.signature()) {
                true => Ok(None),
                false => Err(RejectReason::Signature),
            };
        }
        let Some(held) = self.source.held(Instant::now()) else { return Ok(Some(None)) };
        let rejected = match keys::judge(&held.keys, header.kid.as_deref(), algorithm, input, token.signature()) {
            Judged::Good => return Ok(None),
            // Each may be of a key that we do not have yet: a provider can publish a new one under the id of an old one.
            Judged::Bad => RejectReason::Signature,
            Judged::OtherAlgorithm => RejectReason::Algorithm,
            Judged::UnknownKey => RejectReason::UnknownKey,
        };
        match held.fetched >= arrived {
            true => Err(rejected),
            false => Ok(Some(Some((held.generation, rejected)))),
        }
    }

    pub fn pending(&self, what: PendingFor) -> MutexGuard<'_, PendingTokens> {
        let pending = match what {
            PendingFor::Keys => &self.undecided,
            PendingFor::Store => &self.unwritten,
        };
        pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn waits_for_keys(&self) -> bool {
        !self.pending(PendingFor::Keys).is_empty()
    }
}
