//! What providers send on their own initiative: logout tokens (OpenID Connect Back-Channel Logout 1.0), security events
//! (CAEP and RISC, pushed by RFC 8935 or fetched by RFC 8936), and requests to end all sessions of a user (Global Token
//! Revocation). Each is verified, ends a session or a user, and is answered with success only when that revocation is
//! acknowledged. docs/logout.md and docs/events.md have the forms.
//!
//! Anybody can send tokens, so nothing is written for a token whose signature is not good. A token that cannot be decided
//! yet, because keys or the store cannot be reached, is pending (`pending`) and carried out when it can be (`watch`): most
//! providers send a logout once.
mod actions;
mod carry_out;
mod claims;
pub mod error;
mod events;
mod global_revocation;
mod jws;
mod keys;
mod logout;
mod mappings;
mod metrics;
mod pending;
mod poll;
mod provider_state;
mod providers;
mod replace;
mod secret;
mod source;
mod stream;
mod subjects;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jose::Unverified;
use tokio::sync::watch::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use wire::Kind;

use crate::base::clock::unix_seconds;
use crate::base::current::Current;
use crate::base::throttle::Throttle;
use crate::domain::audit::Audit;
use crate::domain::revocations::Revocations;
use claims::Claims;
use error::{EventError, RejectReason, Unavailable};
pub use jws::MAX_TOKEN_BYTES;
pub use metrics::Metrics;
use pending::PendingTokens;
use provider_state::ProviderState;
pub use providers::{Provider, Providers, ProvidersError};
use store::ReplayGuard;

/// Requests that wait for keys, and for how long at the most: many senders hang up after 5 s. Others are answered 503 at
/// once. Their tokens are pending, whether they wait or not.
const MAX_WAITING: usize = 128;
const WAIT: Duration = Duration::from_secs(4);
/// What is pending of all providers together, in bytes: half for tokens that are not verified, which strangers can fill,
/// half for verified ones that could not be written.
const MAX_PENDING_BYTES: usize = 32 * 1024 * 1024;
/// Pending tokens that are carried out at once.
const MAX_CARRIED_OUT: usize = 32;
/// Logouts that were carried out after their sender was answered 503, as far as they are remembered.
const MAX_UNACKNOWLEDGED: usize = 4096;

#[derive(Debug)]
pub struct ProviderEvents {
    /// By issuer. Empty: these endpoints are not served.
    providers: Current<HashMap<String, Arc<ProviderState>>>,
    /// Once its tasks run.
    stops: Mutex<Option<Stops>>,
    replay_guard: Arc<dyn ReplayGuard>,
    revocations: Current<Revocations>,
    audit: Current<Audit>,
    /// What is finished though its sender hangs up.
    work: TaskTracker,
    metrics: Metrics,
    /// Pending tokens that were dropped, as they are logged.
    dropped: Throttle,
    /// The longest that a verified token takes.
    limit: Duration,
    waiting: Arc<Semaphore>,
    carrying_out: Arc<Semaphore>,
    /// Digests of logouts whose sender was answered 503 and that were carried out since.
    unacknowledged: Mutex<VecDeque<String>>,
}

/// The parts of the service that provider events stand on.
#[derive(Debug)]
pub struct Parts {
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub revocations: Arc<Revocations>,
    pub audit: Arc<Audit>,
    pub work: TaskTracker,
    pub metrics: Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Logout,
    /// Pushed or fetched: an event that comes both ways is one event.
    Events,
    GlobalRevocation,
}

/// A token as it arrived.
#[derive(Debug)]
pub struct Message {
    pub endpoint: Endpoint,
    pub token: String,
    /// The body of a revocation request, whose token is in a header.
    pub body: Option<String>,
}

/// What a token ends: all of `ids`, or it is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub kind: Kind,
    pub issuer: String,
    pub ids: Vec<String>,
}

/// A token that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The revocation is acknowledged.
    Ended(Kind),
    /// It ends nothing, or its revocation was acknowledged before.
    Noted,
}

/// Where a token is after it was first judged.
pub enum Step {
    Done(Result<Outcome, EventError>),
    Waits(Waiting),
}

/// A request that waits for keys, and its answer if they do not come in time.
pub struct Waiting {
    outcome: oneshot::Receiver<Result<Outcome, EventError>>,
    unavailable: Unavailable,
    _permit: OwnedSemaphorePermit,
}

enum Judgement {
    Good(Arc<ProviderState>, Claims),
    /// With the generation of keys that it was judged with, if there are any, and its rejection if the provider has no
    /// others.
    Undecided(Arc<ProviderState>, Option<(u64, RejectReason)>),
}

/// Each provider with its files read.
#[derive(Debug)]
pub struct LoadedProviders(HashMap<String, Arc<ProviderState>>);

/// What ends the tasks of providers.
#[derive(Debug, Clone)]
struct Stops {
    /// Nothing is fetched any more.
    polls: Receiver<bool>,
    /// Later: what was fetched is carried out before.
    all: Receiver<bool>,
}

impl LoadedProviders {
    /// # Errors
    /// A file that a provider names cannot be used.
    pub fn load(given: &Providers) -> Result<Self, ProvidersError> {
        let share = share(given.providers.len());
        let mut states = HashMap::new();
        for (index, provider) in given.providers.iter().enumerate() {
            let state = ProviderState::new(provider, share)
                .map_err(|error| ProvidersError::new(format!("providers[{index}].{}", error.field), error.message))?;
            states.insert(provider.issuer.clone(), Arc::new(state));
        }
        Ok(Self(states))
    }
}

impl ProviderEvents {
    /// `limit` is the longest that a verified token takes.
    pub fn new(providers: LoadedProviders, limit: Duration, parts: Parts) -> Self {
        let Parts { replay_guard, revocations, audit, work, metrics } = parts;
        for (issuer, state) in &providers.0 {
            metrics.change_provider(issuer, None, Some(&state.provider));
        }
        Self {
            providers: Arc::new(providers.0).into(),
            stops: Mutex::default(),
            replay_guard,
            revocations: revocations.into(),
            audit: audit.into(),
            work,
            metrics,
            dropped: Throttle::default(),
            limit,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            carrying_out: Arc::new(Semaphore::new(MAX_CARRIED_OUT)),
            unacknowledged: Mutex::default(),
        }
    }

    /// Goes on with these.
    pub fn reconfigure(&self, revocations: Arc<Revocations>, audit: Arc<Audit>) {
        self.revocations.replace(revocations);
        self.audit.replace(audit);
    }

    /// Starts the tasks of each provider, which run until `all`. Those that fetch events run until `polls`, which comes before:
    /// what was fetched is still carried out.
    pub fn start(self: &Arc<Self>, polls: &Receiver<bool>, all: &Receiver<bool>) {
        // Held until the tasks are started: a reload in between would start those of its providers too.
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let stops = stops.insert(Stops { polls: polls.clone(), all: all.clone() });
        self.providers.get().values().for_each(|state| self.start_provider(state, stops));
    }

    fn start_provider(self: &Arc<Self>, state: &Arc<ProviderState>, stops: &Stops) {
        self.work.spawn(watch::watch(Arc::clone(self), Arc::clone(state), stops.all.clone()));
        if state.mappings.has_files() {
            self.work.spawn(mappings::watch(Arc::clone(state), stops.all.clone()));
        }
        if state.poller.is_some() {
            self.work.spawn(poll::run(Arc::clone(self), Arc::clone(state), stops.polls.clone()));
        }
    }

    fn state(&self, issuer: &str) -> Option<Arc<ProviderState>> {
        self.providers.get().get(issuer).cloned()
    }

    /// Does any provider send to this endpoint?
    pub fn serves(&self, endpoint: Endpoint) -> bool {
        self.providers.get().values().any(|state| endpoint.max_age(&state.provider).is_some())
    }

    /// Takes a token in a task of its own, so that no logout stays half done when its sender hangs up. `held` is dropped
    /// when the token was judged.
    ///
    /// # Errors
    /// It is rejected, or cannot be decided yet.
    pub async fn take<H: Send + 'static>(self: &Arc<Self>, message: Message, held: H) -> Result<Outcome, EventError> {
        let events = Arc::clone(self);
        let task = self.work.spawn(async move {
            let step = events.judge_and_carry_out(message).await;
            drop(held);
            step
        });
        match tokio::time::timeout(self.limit, task).await {
            Ok(Ok(Step::Done(outcome))) => outcome,
            Ok(Ok(Step::Waits(waiting))) => waiting.outcome().await,
            Ok(Err(_)) => Err(Unavailable::store("the work failed").into()),
            Err(_) => Err(Unavailable::store("the work took too long").into()),
        }
    }

    /// Everything about a token but what its endpoint alone can judge.
    ///
    /// # Errors
    /// It is rejected, and no other keys change that.
    fn judge(
        &self,
        endpoint: Endpoint,
        token: &str,
        body: Option<&str>,
        arrived: Instant,
    ) -> Result<Judgement, RejectReason> {
        let token = jws::parse(token)?;
        let state = self.sender(endpoint, &token)?;
        let provider = &state.provider;
        if !provider.algorithms.contains(&token.header().alg) {
            return Err(RejectReason::Algorithm);
        }
        if let Some(undecided) = state.judge_signature(endpoint, &token, arrived)? {
            return Ok(Judgement::Undecided(state, undecided));
        }
        match endpoint {
            Endpoint::Logout => logout::judge_type(&token)?,
            Endpoint::Events => events::judge_type(&token, provider.events.as_ref().is_some_and(|given| given.drafts))?,
            Endpoint::GlobalRevocation => global_revocation::judge_type(&token)?,
        }
        let claims = endpoint.judge_claims(&token, body, provider)?;
        Ok(Judgement::Good(state, claims))
    }

    /// As [`Self::judge`], for a token whose signature was good when it arrived. The key or the secret that verified it may have been
    /// replaced since.
    ///
    /// # Errors
    /// This provider may not send it any more, or it is too old.
    fn judge_verified(&self, endpoint: Endpoint, token: &str, body: Option<&str>) -> Result<Judgement, RejectReason> {
        let token = jws::parse(token)?;
        let state = self.sender(endpoint, &token)?;
        let claims = endpoint.judge_claims(&token, body, &state.provider)?;
        Ok(Judgement::Good(state, claims))
    }

    /// The provider that a token says it is of.
    ///
    /// # Errors
    /// There is none, or it may send nothing to this endpoint.
    fn sender(&self, endpoint: Endpoint, token: &Unverified<'_>) -> Result<Arc<ProviderState>, RejectReason> {
        let issuer = Claims::issuer_of(token.payload())?;
        let state = self.state(&issuer).ok_or(RejectReason::Issuer)?;
        endpoint.max_age(&state.provider).map(|_| state).ok_or(RejectReason::Issuer)
    }

    /// It was carried out after its sender was answered 503.
    fn remember_unacknowledged(&self, digest: String) {
        let mut digests = self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        digests.push_back(digest);
        if digests.len() > MAX_UNACKNOWLEDGED {
            digests.pop_front();
        }
    }

    /// Whether this is the first time that its sender asks again.
    fn acknowledge(&self, digest: &str) -> bool {
        let mut digests = self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let index = digests.iter().position(|known| known == digest);
        index.is_some_and(|index| digests.remove(index).is_some())
    }
}

/// Of what is pending, for one of so many providers.
fn share(providers: usize) -> usize {
    MAX_PENDING_BYTES / 2 / providers.max(1)
}

impl Endpoint {
    pub const ALL: [Endpoint; 3] = [Endpoint::Logout, Endpoint::Events, Endpoint::GlobalRevocation];

    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Logout => "backchannel-logout",
            Endpoint::Events => "caep",
            Endpoint::GlobalRevocation => "global-token-revocation",
        }
    }

    /// `None`: this provider may send nothing here.
    fn max_age(self, provider: &Provider) -> Option<Duration> {
        match self {
            Endpoint::Logout => provider.logout.as_ref().map(|logout| logout.max_age),
            Endpoint::Events => provider.events.as_ref().map(providers::Events::max_age),
            Endpoint::GlobalRevocation => provider.global_revocation.as_ref().map(|global| global.max_age),
        }
    }

    fn audiences(self, provider: &Provider) -> &[String] {
        match self {
            Endpoint::Logout | Endpoint::Events => &provider.audiences,
            Endpoint::GlobalRevocation => {
                provider.global_revocation.as_ref().map_or(&[], |global| global.audiences.as_slice())
            }
        }
    }

    /// The claims of a token, judged by their issuer, audience and times.
    fn judge_claims(
        self,
        token: &Unverified<'_>,
        body: Option<&str>,
        provider: &Provider,
    ) -> Result<Claims, RejectReason> {
        let claims = self.read_claims(token.payload(), body)?;
        // The issuer that was looked up is the one that counts: a second reader of `iss` could have read another.
        if claims.iss != provider.issuer {
            return Err(RejectReason::Issuer);
        }
        claims.judge_audience(self.audiences(provider))?;
        let max_age = self.max_age(provider).ok_or(RejectReason::Issuer)?;
        claims.judge_times(unix_seconds(), max_age, provider.skew)?;
        Ok(claims)
    }

    /// The claims of a token, with the subject that the body of its request names.
    fn read_claims(self, payload: &[u8], body: Option<&str>) -> Result<Claims, RejectReason> {
        let mut claims = Claims::read(payload)?;
        if self == Endpoint::GlobalRevocation {
            claims.sub_id = Some(global_revocation::read_body(body.unwrap_or_default())?);
        }
        Ok(claims)
    }
}

impl Waiting {
    async fn outcome(self) -> Result<Outcome, EventError> {
        match tokio::time::timeout(WAIT, self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(self.unavailable.into()),
        }
    }
}
