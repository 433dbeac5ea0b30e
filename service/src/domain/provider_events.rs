//! What providers tell us of their own accord: logout tokens (OpenID Connect Back-Channel Logout 1.0) and security
//! events (CAEP and RISC, pushed by RFC 8935). Each is judged, ends a session or a user, and is answered with success
//! only when that revocation is acknowledged. docs/logout.md has the shapes.
//!
//! ```text
//! POST /oauth2/backchannel-logout   form, logout_token=…         200 | 400 | 503
//! POST /ssf/events                  application/secevent+jwt     202 | 400 | 503
//! ```
//! Anybody can send here, so places of their own keep them from the checks, and nothing is written for a token whose
//! signature is not good. What cannot be decided yet, for want of keys or of Redis, is kept for a while (`kept`) and carried
//! out when it can be (`watch`): most providers send a logout once.
mod algorithm;
mod claims;
mod events;
mod jws;
mod kept;
mod keys;
mod logout;
mod providers;
pub mod refused;
mod secret;
mod source;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::Kind;

pub use providers::{Provider, Providers, ProvidersError};

use crate::Options;
use crate::app::server::Shared;
use crate::base::clock::unix_seconds;
use crate::base::throttle::Throttle;
use crate::http::gate::Gate;
use crate::http::{admin, provider_events as answer};
use algorithm::Family;
use claims::Claims;
use jws::{MAX_TOKEN_BYTES, Unverified};
use kept::{Kept, Token};
use keys::Judged;
use refused::{Failed, Refused, Unavailable};
use secret::ClientSecret;
use source::Source;
use store::Claim;
pub use watch::watch;

/// Requests in progress here; so many more wait for a place, so long at the most, and those beyond are told 503 at once.
const MAX_IN_PROGRESS: usize = 64;
const MAX_QUEUED: usize = 512;
const QUEUED: Duration = Duration::from_secs(3);
/// Requests that wait for keys, and for how long at the most: many senders hang up after 5 s. The others are told 503 at
/// once. Their tokens are kept, whether they wait or not.
const MAX_WAITING: usize = 128;
const WAIT: Duration = Duration::from_secs(4);
/// What is kept of all providers together, in bytes: half for tokens that are not verified, which strangers can fill, half
/// for verified ones that could not be written.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Kept tokens that are carried out at once.
const MAX_CARRIED: usize = 32;
/// Logouts that were carried out after their sender was told 503, as far as it is remembered that the sender does not know.
const MAX_UNTOLD: usize = 4096;
/// The longest body: a token, and what a form may have beside it.
const MAX_BODY_BYTES: usize = MAX_TOKEN_BYTES + 4096;

#[derive(Debug)]
pub struct Signals {
    /// By issuer. Empty: none of this is served.
    known: HashMap<String, Known>,
    pub gate: Gate,
    /// Refusals, as they are logged: strangers cause them.
    pub refused: Throttle,
    /// Events about streams, likewise.
    noted: Throttle,
    /// Kept tokens that were given up, likewise.
    dropped: Throttle,
    /// What a token can take once it is verified.
    pub limit: Duration,
    waiting: Arc<Semaphore>,
    carrying: Arc<Semaphore>,
    untold: Mutex<VecDeque<String>>,
}

#[derive(Debug)]
struct Known {
    provider: Provider,
    source: Source,
    secret: Option<ClientSecret>,
    /// Not verified, for want of keys.
    undecided: Mutex<Kept>,
    /// Verified, and not confirmed by Redis, or not written yet for want of a place.
    unwritten: Mutex<Kept>,
    /// To the one who watches: something was kept.
    wake: Notify,
}

/// Which of those that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Keys,
    Redis,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Logout,
    Events,
}

/// Whom a token ends: all of `ids`, or it is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub kind: Kind,
    pub issuer: String,
    pub ids: Vec<String>,
}

/// How it went, if it went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The revocation is acknowledged.
    Ended(Kind),
    /// It ends nothing, or its revocation was acknowledged before.
    Noted,
}

impl Signals {
    /// # Errors
    /// A file that a provider names cannot be used.
    pub fn new(options: &Options) -> Result<Self, ProvidersError> {
        let mut known = HashMap::new();
        let share = MAX_KEPT_BYTES / 2 / options.providers.providers.len().max(1);
        for (place, provider) in options.providers.providers.iter().enumerate() {
            let within = |error: ProvidersError| {
                ProvidersError::new(format!("providers[{place}].{}", error.field), error.message)
            };
            let source = Source::new(provider).map_err(within)?;
            let secret = provider.secret_file.as_deref().map(ClientSecret::read).transpose().map_err(within)?;
            let [undecided, unwritten] = [(); 2].map(|()| Mutex::new(Kept::new(share)));
            let wake = Notify::new();
            known.insert(
                provider.issuer.clone(),
                Known { provider: provider.clone(), source, secret, undecided, unwritten, wake },
            );
        }
        // Claim, revoke, remember; and the writer's connecting.
        let writes = if options.mirror_redis.is_some() { 5 } else { 3 };
        let limit = options.redis_timeout * 6 + options.write_limit() * writes + Duration::from_secs(2);
        Ok(Self {
            known,
            gate: Gate::new(MAX_IN_PROGRESS, MAX_BODY_BYTES).with_queue(MAX_QUEUED, QUEUED),
            refused: Throttle::default(),
            noted: Throttle::default(),
            dropped: Throttle::default(),
            limit,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            carrying: Arc::new(Semaphore::new(MAX_CARRIED)),
            untold: Mutex::default(),
        })
    }

    /// Of the providers, each of which somebody is to [`watch`].
    pub fn issuers(&self) -> impl Iterator<Item = String> {
        self.known.keys().cloned()
    }

    pub fn routes(&self) -> OpenApiRouter<Arc<Shared>> {
        let any = |takes: fn(&Provider) -> bool| self.known.values().any(|known| takes(&known.provider));
        let mut routes = OpenApiRouter::new();
        if any(|provider| provider.logout.is_some()) {
            routes = routes.routes(routes!(answer::logout));
        }
        if any(|provider| provider.events.is_some()) {
            routes = routes.routes(routes!(answer::events));
        }
        routes
    }

    /// Everything about a token but what its endpoint alone can judge.
    ///
    /// # Errors
    /// It is not good, and no other keys make it so.
    fn judge(&self, endpoint: Endpoint, token: &str, arrived: Instant) -> Result<Judgement<'_>, Refused> {
        let token = Unverified::read(token)?;
        let issuer = Claims::issuer_of(&token.payload)?;
        let known = self.known.get(&issuer).ok_or(Refused::Issuer)?;
        let provider = &known.provider;
        let max_age = endpoint.max_age(provider).ok_or(Refused::Issuer)?;
        if !provider.algorithms.contains(&token.algorithm) {
            return Err(Refused::Algorithm);
        }
        if let Some(undecided) = known.judge_signature(endpoint, &token, arrived)? {
            return Ok(undecided);
        }
        match endpoint {
            Endpoint::Logout => logout::judge_type(&token)?,
            Endpoint::Events => events::judge_type(&token)?,
        }
        let claims = Claims::read(&token.payload)?;
        // What was looked up is what is believed: a second reader of `iss` could have read another.
        if claims.iss != provider.issuer {
            return Err(Refused::Issuer);
        }
        claims.judge_audience(&provider.audiences)?;
        claims.judge_times(unix_seconds(), max_age, provider.skew)?;
        Ok(Judgement::Good(known, claims))
    }

    /// It was carried out, and its sender was told that it could not be.
    fn remember_untold(&self, digest: String) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.push_back(digest);
        if untold.len() > MAX_UNTOLD {
            untold.pop_front();
        }
    }

    /// Whether this is the first time that somebody asks for it again.
    fn tell_untold(&self, digest: &str) -> bool {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let place = untold.iter().position(|there| there == digest);
        place.is_some_and(|place| untold.remove(place).is_some())
    }
}

enum Judgement<'s> {
    Good(&'s Known, Claims),
    /// With which keys it was judged, if there are any, and what it is if the provider has no others.
    Undecided(&'s Known, Option<(u64, Refused)>),
}

impl Known {
    /// `None`: it is good.
    fn judge_signature(
        &self,
        endpoint: Endpoint,
        token: &Unverified<'_>,
        arrived: Instant,
    ) -> Result<Option<Judgement<'_>>, Refused> {
        let (algorithm, input) = (token.algorithm, token.input.as_bytes());
        // The algorithm says of which kind its key is, so neither kind is ever used as the other.
        if algorithm.family() == Family::Secret {
            // It is of a client, who has nothing to do with streams of events.
            let secret = self.secret.as_ref().filter(|_| endpoint == Endpoint::Logout).ok_or(Refused::Algorithm)?;
            return match secret.verifies(algorithm, input, &token.signature) {
                true => Ok(None),
                false => Err(Refused::Signature),
            };
        }
        let Some(held) = self.source.held(Instant::now()) else { return Ok(Some(Judgement::Undecided(self, None))) };
        let refused = match held.keys.judge(token.kid.as_deref(), algorithm, input, &token.signature) {
            Judged::Good => return Ok(None),
            // Each may be of a key that we do not have yet: a provider can put a new one under the id of an old one.
            Judged::Bad => Refused::Signature,
            Judged::OtherAlgorithm => Refused::Algorithm,
            Judged::UnknownKey => Refused::UnknownKey,
        };
        match held.fetched >= arrived {
            true => Err(refused),
            false => Ok(Some(Judgement::Undecided(self, Some((held.generation, refused))))),
        }
    }

    fn kept(&self, which: For) -> MutexGuard<'_, Kept> {
        let kept = match which {
            For::Keys => &self.undecided,
            For::Redis => &self.unwritten,
        };
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_searching(&self) -> bool {
        !self.kept(For::Keys).is_empty()
    }

    fn keep(&self, shared: &Shared, which: For, token: Token) {
        let (gone, more) = {
            let mut kept = self.kept(which);
            let before = kept.len();
            let gone = kept.put(token);
            let more = (kept.len() + gone.len()).saturating_sub(before);
            (gone, more)
        };
        shared.metrics.signals_kept(more, gone.len());
        for token in gone {
            watch::drop_kept(shared, token);
        }
        self.wake.notify_one();
    }
}

/// All that there can be, for the API description.
pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(answer::logout)).routes(routes!(answer::events))
}

impl Endpoint {
    pub const ALL: [Endpoint; 2] = [Endpoint::Logout, Endpoint::Events];

    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Logout => "backchannel-logout",
            Endpoint::Events => "caep",
        }
    }

    /// `None`: this provider may send nothing here.
    fn max_age(self, provider: &Provider) -> Option<Duration> {
        match self {
            Endpoint::Logout => provider.logout.as_ref().map(|logout| logout.max_age),
            Endpoint::Events => provider.events.as_ref().map(|events| events.max_age),
        }
    }
}

/// Where a token is after its first look.
pub enum Step {
    Done(Result<Taken, Failed>),
    Waits(Waiting),
}

/// Somebody who waits for keys, and what is said if they do not come in time.
pub struct Waiting {
    outcome: oneshot::Receiver<Result<Taken, Failed>>,
    unavailable: Unavailable,
    _place: OwnedSemaphorePermit,
}

impl Waiting {
    pub async fn outcome(self) -> Result<Taken, Failed> {
        match tokio::time::timeout(WAIT, self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(self.unavailable.into()),
        }
    }
}

/// Judges a token, and does what it says or keeps it.
pub async fn take(shared: &Shared, endpoint: Endpoint, text: String) -> Step {
    let (arrived, arrived_at) = (Instant::now(), unix_seconds());
    let token = Token { endpoint, text, arrived, arrived_at, judged: None, waiter: None };
    match shared.signals.judge(endpoint, &token.text, arrived) {
        Err(refused) => Step::Done(Err(refused.into())),
        Ok(Judgement::Good(known, claims)) => {
            let taken = carry_out(shared, endpoint, known, &claims, None).await;
            if let Err(Failed::Unavailable(_)) = &taken {
                known.keep(shared, For::Redis, token);
            }
            Step::Done(taken)
        }
        Ok(Judgement::Undecided(known, judged)) => {
            let due = known.source.due(arrived, true).saturating_duration_since(arrived);
            let unavailable = known.source.unavailable(due);
            let place = Arc::clone(&shared.signals.waiting).try_acquire_owned().ok().filter(|_| due <= WAIT);
            let Some(place) = place else {
                known.keep(shared, For::Keys, Token { judged, ..token });
                return Step::Done(Err(unavailable.into()));
            };
            let (waiter, outcome) = oneshot::channel();
            known.keep(shared, For::Keys, Token { judged, waiter: Some(waiter), ..token });
            Step::Waits(Waiting { outcome, unavailable, _place: place })
        }
    }
}

/// Does what a verified token says. `asked`: when it came, if that was before now.
async fn carry_out(
    shared: &Shared,
    endpoint: Endpoint,
    known: &Known,
    claims: &Claims,
    asked: Option<u64>,
) -> Result<Taken, Failed> {
    let provider = &known.provider;
    let ending = match endpoint {
        Endpoint::Logout => Some(logout::ending(claims, &provider.issuer)?),
        Endpoint::Events => {
            let given = provider.events.as_ref();
            let issuer = given.and_then(|events| events.subject_issuer.as_ref()).unwrap_or(&provider.issuer);
            let opaque = given.map(|events| events.opaque).unwrap_or_default();
            events::ending(claims, events::Scope { issuer, opaque })?
        }
    };
    let Some(ending) = ending else {
        // Such an event can be sent again and again.
        if let Some(more) = shared.signals.noted.pass(Instant::now()) {
            tracing::info!(issuer = provider.issuer, more, "an event about its stream");
        }
        return Ok(Taken::Noted);
    };
    let digest = digest(endpoint, claims);
    let unconfirmed = |what: &str, trouble: wire::check::StoreError| {
        Failed::from(Unavailable::store(format!("{what}: {}", trouble.name())))
    };
    match shared.stores.replay_guard.claim(&digest, shared.signals.limit).await {
        Ok(Claim::Claimed) => {}
        Ok(Claim::Pending) => return Err(Unavailable::busy("the same token is being worked on").into()),
        Ok(Claim::Done) => {
            return match endpoint {
                // Its sender asks again, as it was told to.
                Endpoint::Logout if asked.is_none() && shared.signals.tell_untold(&digest) => Ok(Taken::Noted),
                Endpoint::Logout => Err(Refused::Replayed.into()),
                // A transmitter that missed our answer sends the event again, and is to stop then.
                Endpoint::Events => Ok(Taken::Noted),
            };
        }
        Err(trouble) => return Err(unconfirmed("the token was not claimed", trouble)),
    }
    let by = format!("{} of {}", endpoint.name(), provider.issuer);
    let ended = admin::end(shared, ending.kind, &ending.issuer, &ending.ids, &by, asked).await;
    let keys = match ended {
        Ok(keys) => keys,
        Err(why) => {
            // Else the provider's next attempt would be a replay, and the session would live on. If this fails too, the
            // claim ends by itself.
            let _ = shared.stores.replay_guard.release(&digest).await;
            return Err(Unavailable::store(why).into());
        }
    };
    for key in keys {
        audit(&by, ending.kind, &key.to_string());
    }
    // As long as it would be young enough, and our clocks may differ by as much as the provider's.
    let young = endpoint.max_age(provider).unwrap_or_default() + provider.skew * 3 + Duration::from_secs(1);
    shared
        .stores
        .replay_guard
        .complete(&digest, young)
        .await
        .map_err(|trouble| unconfirmed("the token was not remembered", trouble))?;
    Ok(Taken::Ended(ending.kind))
}

/// What names a token among those that were used. No secret plays a part, so services that rotate theirs agree on it.
fn digest(endpoint: Endpoint, claims: &Claims) -> String {
    let mut context = Context::new(&SHA256);
    for part in [endpoint.name(), &claims.iss, &claims.jti] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// The one place that tells of what providers ended.
fn audit(by: &str, kind: Kind, key: &str) {
    tracing::info!(target: "portcullis::audit", by, kind = kind.name(), key, "revoked");
}
