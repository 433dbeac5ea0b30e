//! What providers tell us of their own accord: logout tokens (OpenID Connect Back-Channel Logout 1.0) and security
//! events (CAEP and RISC, pushed by RFC 8935). Each is judged, ends a session or a user, and is answered with success
//! only when that revocation is acknowledged. docs/logout.md has the shapes.
//!
//! ```text
//! POST /oauth2/backchannel-logout   form, logout_token=…         200 | 400 | 503
//! POST /ssf/events                  application/secevent+jwt     202 | 400 | 503
//! ```
//! Anybody can send here, so places of their own keep them from the checks, and nothing is stored or written for a token
//! whose signature is not good. It causes a fetch of keys only where they are stale, and once in a cool-down.
mod algorithm;
mod answer;
mod claims;
mod events;
mod jws;
mod keys;
mod logout;
mod providers;
mod refused;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::Kind;

pub use providers::{Provider, Providers, ProvidersError};

use crate::clock::unix_seconds;
use crate::gate::Gate;
use crate::server::Shared;
use crate::store::Claim;
use crate::throttle::Throttle;
use crate::{Options, admin};
use claims::Claims;
use jws::{MAX_TOKEN_BYTES, Unverified};
use keys::Judged;
use refused::{Failed, Refused, Unavailable};
use source::Source;

/// Requests in progress here; more are told 503 at once.
const MAX_IN_PROGRESS: usize = 64;
/// The longest body: a token, and what a form may have beside it.
const MAX_BODY_BYTES: usize = MAX_TOKEN_BYTES + 4096;

#[derive(Debug)]
pub struct Signals {
    /// By issuer. Empty: none of this is served.
    known: HashMap<String, Known>,
    gate: Gate,
    /// Refusals, as they are logged: strangers cause them.
    refused: Throttle,
    /// Events about streams, likewise.
    noted: Throttle,
    /// What one request can take in all.
    limit: Duration,
}

#[derive(Debug)]
struct Known {
    provider: Provider,
    source: Source,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Logout,
    Events,
}

/// Whom a token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub kind: Kind,
    pub issuer: String,
    pub id: String,
}

/// How it went, if it went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
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
        let mut timeout = Duration::ZERO;
        for (place, provider) in options.providers.providers.iter().enumerate() {
            let source = Source::new(provider)
                .map_err(|error| ProvidersError::new(format!("providers[{place}].{}", error.field), error.message))?;
            timeout = timeout.max(provider.timeout);
            known.insert(provider.issuer.clone(), Known { provider: provider.clone(), source });
        }
        // Twice two fetches; claim, revoke, remember; and the writer's connecting.
        let writes = if options.redis_also.is_some() { 5 } else { 3 };
        let limit = timeout * 4 + options.redis_timeout * 6 + options.write_limit() * writes + Duration::from_secs(2);
        Ok(Self {
            known,
            gate: Gate::new(MAX_IN_PROGRESS, MAX_BODY_BYTES),
            refused: Throttle::default(),
            noted: Throttle::default(),
            limit,
        })
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

    /// The token's claims, once everything about it was judged but what its endpoint alone can.
    async fn verify(&self, endpoint: Endpoint, token: &str) -> Result<(&Provider, Claims), Failed> {
        let arrived = Instant::now();
        let token = Unverified::read(token)?;
        let issuer = Claims::issuer_of(&token.payload)?;
        let Known { provider, source } = self.known.get(&issuer).ok_or(Refused::Issuer)?;
        let max_age = endpoint.max_age(provider).ok_or(Refused::Issuer)?;
        if !provider.algorithms.contains(&token.algorithm) {
            return Err(Refused::Algorithm.into());
        }
        let judge = |held: &source::Held| {
            held.keys.judge(token.kid.as_deref(), token.algorithm, token.input.as_bytes(), &token.signature)
        };
        let held = source.keys().await?;
        let judged = match judge(&held) {
            Judged::UnknownKey if !held.is_from(arrived) => judge(&source.keys_since(arrived).await?),
            // It does not say by which key: by one that we do not have, perhaps.
            Judged::Bad if token.kid.is_none() && !held.is_from(arrived) => judge(&source.keys_since(arrived).await?),
            judged => judged,
        };
        match judged {
            Judged::Good => {}
            Judged::Bad => return Err(Refused::Signature.into()),
            Judged::OtherAlgorithm => return Err(Refused::Algorithm.into()),
            Judged::UnknownKey => return Err(Refused::UnknownKey.into()),
        }
        match endpoint {
            Endpoint::Logout => logout::judge_type(&token)?,
            Endpoint::Events => events::judge_type(&token)?,
        }
        let claims = Claims::read(&token.payload)?;
        // What was looked up is what is believed: a second reader of `iss` could have read another.
        if claims.iss != provider.issuer {
            return Err(Refused::Issuer.into());
        }
        claims.judge_audience(&provider.audiences)?;
        claims.judge_times(unix_seconds(), max_age, provider.skew)?;
        Ok((provider, claims))
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

/// Judges a token and does what it says.
async fn take(shared: &Shared, endpoint: Endpoint, token: &str) -> Result<Taken, Failed> {
    let (provider, claims) = shared.signals.verify(endpoint, token).await?;
    let ending = match endpoint {
        Endpoint::Logout => Some(logout::ending(&claims, &provider.issuer)?),
        Endpoint::Events => {
            let given = provider.events.as_ref();
            let issuer = given.and_then(|events| events.subject_issuer.as_ref()).unwrap_or(&provider.issuer);
            let opaque = given.map(|events| events.opaque).unwrap_or_default();
            events::ending(&claims, events::Scope { issuer, opaque })?
        }
    };
    let Some(ending) = ending else {
        // Such an event can be sent again and again.
        if let Some(more) = shared.signals.noted.pass(Instant::now()) {
            tracing::info!(issuer = provider.issuer, more, "an event about its stream");
        }
        return Ok(Taken::Noted);
    };
    let digest = digest(endpoint, &claims);
    let unconfirmed = |what: &str, trouble: wire::check::Trouble| {
        Failed::from(Unavailable::store(format!("{what}: {}", trouble.name())))
    };
    match shared.store.claim(&digest, shared.signals.limit).await {
        Ok(Claim::Ours) => {}
        Ok(Claim::Pending) => return Err(Unavailable::busy("the same token is being worked on").into()),
        Ok(Claim::Done) => {
            return match endpoint {
                Endpoint::Logout => Err(Refused::Replayed.into()),
                // A transmitter that missed our answer sends the event again, and is to stop then.
                Endpoint::Events => Ok(Taken::Noted),
            };
        }
        Err(trouble) => return Err(unconfirmed("the token was not claimed", trouble)),
    }
    let by = format!("{} of {}", endpoint.name(), provider.issuer);
    let ended = admin::end(shared, ending.kind, &ending.issuer, &ending.id, &by).await;
    let key = match ended {
        Ok(key) => key,
        Err(why) => {
            // Else the provider's next attempt would be a replay, and the session would live on. If this fails too, the
            // claim ends by itself.
            let _ = shared.store.give_back(&digest).await;
            return Err(Unavailable::store(why).into());
        }
    };
    audit(&by, ending.kind, &key.to_string());
    // As long as it would be young enough, and our clocks may differ by as much as the provider's.
    let young = endpoint.max_age(provider).unwrap_or_default() + provider.skew * 3 + Duration::from_secs(1);
    shared.store.keep(&digest, young).await.map_err(|trouble| unconfirmed("the token was not remembered", trouble))?;
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
