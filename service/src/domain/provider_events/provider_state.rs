//! One provider: its keys, its client secret, its subjects, its stream of events, and its pending tokens.
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest as hash};
use jose::Unverified;
use tokio::sync::watch::Receiver;
use tokio::sync::{Notify, watch};

use super::error::RejectReason;
use super::keys::{self, Judged};
use super::mappings::Mappings;
use super::pending::PendingToken;
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
    pub stream: Arc<Stream>,
    /// Fetches its events, where that is configured.
    pub poller: Option<Poller>,
    secret: Option<ClientSecret>,
    /// Digests of the files that are read once.
    files: [Option<[u8; 32]>; 2],
    /// Not verified, for lack of keys.
    undecided: Mutex<PendingTokens>,
    /// Verified, and not written or not confirmed yet.
    unwritten: Mutex<PendingTokens>,
    /// To the provider's task: a token is pending.
    pub wake: Notify,
    /// Another configuration of the provider has taken this one's place, or none.
    retired: watch::Sender<bool>,
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
        // Before the files are used: if one changes in between, the next reload reads it again.
        let files = [&provider.secret_file, &provider.ca_file].map(|file| file.as_deref().and_then(digest));
        let [undecided, unwritten] = [(); 2].map(|()| Mutex::new(PendingTokens::new(max_bytes)));
        Ok(Self {
            provider: provider.clone(),
            source: Source::new(provider)?,
            mappings: Mappings::load(provider)?,
            stream: Arc::default(),
            poller: Poller::new(provider)?,
            secret: provider.secret_file.as_deref().map(ClientSecret::read).transpose()?,
            files,
            undecided,
            unwritten,
            wake: Notify::new(),
            retired: watch::Sender::new(false),
        })
    }

    /// Whether it would do the same as this one.
    pub fn is_like(&self, other: &Self) -> bool {
        self.provider == other.provider && self.files == other.files
    }

    /// Goes on with what `former` knows of the provider.
    pub fn take_over(self: &mut Arc<Self>, former: &Self) {
        let has_same_keys = self.source.is_like(&former.source);
        // Nobody else has it yet.
        let Some(state) = Arc::get_mut(self) else { return };
        state.stream = Arc::clone(&former.stream);
        if has_same_keys {
            state.source.take_over(&former.source);
        }
    }

    /// Holds a pending token. How many more there are, and those that were dropped for it.
    ///
    /// # Errors
    /// The token: this provider is retired.
    pub fn hold(&self, what: PendingFor, token: PendingToken) -> Result<(usize, Vec<PendingToken>), Box<PendingToken>> {
        let mut pending = self.pending(what);
        // Read under the lock: what is held before is taken by the one who retires it.
        if *self.retired.borrow() {
            return Err(Box::new(token));
        }
        let before = pending.len();
        let gone = pending.put(token);
        let more = (pending.len() + gone.len()).saturating_sub(before);
        Ok((more, gone))
    }

    /// Returns the pending tokens for which there is no room.
    pub fn set_share(&self, max_bytes: usize) -> Vec<PendingToken> {
        let both = [PendingFor::Keys, PendingFor::Store];
        both.into_iter().flat_map(|what| self.pending(what).set_max_bytes(max_bytes)).collect()
    }

    /// From now on nothing is held here.
    pub fn retire(&self) {
        self.retired.send_replace(true);
    }

    pub fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    /// Until `stop`, or until it is retired.
    pub async fn is_over(&self, stop: &mut Receiver<bool>) {
        let mut retired = self.retired.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            _ = retired.wait_for(|retired| *retired) => {}
        }
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

/// `None`: it cannot be read.
fn digest(file: &Path) -> Option<[u8; 32]> {
    hash(&SHA256, &std::fs::read(file).ok()?).as_ref().try_into().ok()
}
