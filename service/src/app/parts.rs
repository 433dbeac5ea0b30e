//! The parts of the service: those that last as long as the process, and those that each configuration makes anew.
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use store::Stores;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use wire::DerivedKeys;

use super::error::ServeError;
use super::metrics::Metrics;
use super::options::{Files, Options};
use crate::domain::audit::Audit;
use crate::domain::clients::{self, Clients};
use crate::domain::feed::Feed;
use crate::domain::hijack::{self, Hijack, Places};
use crate::domain::issuers::Issuers;
use crate::domain::provider_events::{self, LoadedProviders, ProviderEvents};
use crate::domain::regions::{self, OurFacts, Peer, Regions, Serving, StoresSeen};
use crate::domain::revocations::{self, Revocations};
use crate::domain::sessions::{self, Sessions};
use crate::domain::status_lists::{self, StatusLists};
use crate::domain::transmitter::Transmitter;
use crate::model::note::NoteCipher;
use crate::model::session_keys::Ring;
use crate::signing::{self, Signing, TokenLimits};

/// They have state that a new configuration must not lose: connections to the store, counters, keys of sessions.
#[derive(Debug)]
pub struct Lasting {
    pub stores: Stores,
    pub issuers: Arc<Issuers>,
    pub feed: Arc<Feed>,
    /// `None`: no sessions are made.
    pub signing: Option<Arc<Signing>>,
    pub places: Option<Arc<Places>>,
    pub metrics: Metrics,
    pub registry: Arc<Registry>,
    pub work: TaskTracker,
}

/// What runs in the background as long as the process. It is told which parts to go on with.
#[derive(Debug)]
pub struct Tasks {
    pub regions: Arc<Regions>,
    pub events: Arc<ProviderEvents>,
}

/// What a configuration makes: all of it is replaced at once. Requests in progress finish with the parts that they began with.
#[derive(Debug)]
pub struct Parts {
    pub secrets: Arc<[DerivedKeys]>,
    pub facts: OurFacts,
    /// What other regions are answered with, and what they get. `None`: none may ask.
    pub joins: Option<(Arc<[DerivedKeys]>, Arc<Serving>)>,
    pub revocations: Arc<Revocations>,
    pub audit: Arc<Audit>,
    pub sessions: Option<Arc<Sessions>>,
    pub hijack: Option<Arc<Hijack>>,
    pub transmitter: Arc<Transmitter>,
}

/// The parts with messages that wait to be sent.
#[derive(Debug, Default)]
pub struct Senders {
    transmitter: Arc<Transmitter>,
    hijack: Option<Arc<Hijack>>,
}

impl Senders {
    /// Ends what `now` does not go on with: it is not sent any more.
    pub fn end_others(&self, now: &Self) {
        self.transmitter.end_others(&now.transmitter);
        if let Some(hijack) = &self.hijack {
            hijack.end_unless_in(now.hijack.as_deref());
        }
    }
}

impl Parts {
    pub fn senders(&self) -> Senders {
        Senders { transmitter: Arc::clone(&self.transmitter), hijack: self.hijack.clone() }
    }

    /// What sends in the background, until the service stops or other parts take the place of these.
    pub fn start(&self, on_end: &watch::Receiver<bool>) {
        if let Some(hijack) = &self.hijack {
            hijack.start(on_end);
        }
        self.transmitter.start(on_end);
    }
}

impl Lasting {
    pub fn new(
        options: &Options,
        files: &Files,
        (stores, metrics): (Stores, Metrics),
        signing: Option<Arc<Signing>>,
        places: Option<Arc<Places>>,
    ) -> Self {
        Self {
            issuers: Arc::new(Issuers::new(Arc::clone(&stores.issuers), options.known_issuers(&files.providers))),
            feed: Feed::new(Arc::clone(&stores.log), options.feed_config(), metrics.feed.clone()),
            registry: Arc::new(metrics.registry()),
            work: TaskTracker::new(),
            stores,
            signing,
            places,
            metrics,
        }
    }
}

impl Tasks {
    pub fn new(
        options: &Options,
        lasting: &Lasting,
        parts: &Parts,
        providers: LoadedProviders,
        peers: Vec<Peer>,
    ) -> Self {
        let region_parts = regions::Parts {
            store: Arc::clone(&lasting.stores.revocations),
            facts: Arc::new(parts.facts.clone()).into(),
            feed: lasting.feed.nudge(),
            audit: Arc::clone(&parts.audit).into(),
            metrics: lasting.metrics.regions.clone(),
            compare: options.join.join_compare,
            stores_seen: StoresSeen::default(),
        };
        let event_parts = provider_events::Parts {
            replay_guard: Arc::clone(&lasting.stores.replay_guard),
            revocations: Arc::clone(&parts.revocations),
            audit: Arc::clone(&parts.audit),
            work: lasting.work.clone(),
            metrics: lasting.metrics.provider_events.clone(),
        };
        Self {
            regions: Arc::new(Regions::new(peers, region_parts)),
            events: Arc::new(ProviderEvents::new(providers, options.event_limit(), event_parts)),
        }
    }

    /// `providers` are loaded. The first of the secrets of regions is the one that they are asked with.
    pub fn reconfigure(&self, parts: &Parts, providers: LoadedProviders) {
        let secret = parts.joins.as_ref().and_then(|(secrets, _)| secrets.first());
        self.regions.reconfigure(parts.facts.clone(), Arc::clone(&parts.audit), secret);
        self.events.reconfigure(Arc::clone(&parts.revocations), Arc::clone(&parts.audit));
        self.events.replace(providers);
    }
}

impl Parts {
    /// Makes each part from the parts that it uses. `clients` are those of the sessions. What waits in `former` for
    /// a receiver or webhook that is as before goes on waiting.
    pub fn new(
        options: &Options,
        files: &Files,
        clients: Arc<Clients>,
        lasting: &Lasting,
        former: &Senders,
    ) -> Result<Self, ServeError> {
        let Lasting { stores, issuers, feed, signing, places, metrics, work, .. } = lasting;
        let secrets: Arc<[DerivedKeys]> = files.secrets.iter().map(wire::Secret::derive).collect();
        let cipher = NoteCipher::new(&secrets)?;
        let ring_secrets = if files.session_secrets.is_empty() { &files.secrets } else { &files.session_secrets };
        let ring = Arc::new(Ring::new(ring_secrets));
        let audit = Arc::new(Audit::new(Arc::clone(&stores.audit), Arc::clone(&ring), options.admin.audit_retention));
        let transmitter = match (&files.receivers, &options.sessions.session_issuer, signing) {
            (Some(receivers), Some(issuer), Some(signing)) => Transmitter::new(
                receivers,
                issuer,
                signing,
                metrics.transmitter.clone(),
                work.clone(),
                &former.transmitter,
            )?,
            _ => Transmitter::default(),
        };
        let transmitter = Arc::new(transmitter);
        let revocations = Arc::new(Revocations::new(revocations::Parts {
            store: Arc::clone(&stores.revocations),
            secrets: Arc::clone(&secrets),
            cipher,
            issuers: Arc::clone(issuers),
            policy: options.revocation_policy(&files.providers),
            written: metrics.revocations.clone(),
            feed: feed.nudge(),
            transmitter: Arc::clone(&transmitter),
        }));
        let facts = OurFacts {
            keeps: options.retention(),
            future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
            secrets: secrets.iter().map(DerivedKeys::id).collect(),
        };
        let joins = (!files.join_secrets.is_empty()).then(|| {
            let secrets = files.join_secrets.iter().map(wire::Secret::derive).collect();
            let serving = Serving::new(Arc::clone(feed), Arc::clone(&stores.revocations), facts.clone());
            (secrets, Arc::new(serving))
        });
        let hijack = files.sightings.clone().map(|settings| {
            let parts = hijack::Parts {
                secrets: Arc::clone(&secrets),
                store: Arc::clone(&stores.sightings),
                replay_guard: Arc::clone(&stores.replay_guard),
                ring: Arc::clone(&ring),
                revocations: Arc::clone(&revocations),
                audit: Arc::clone(&audit),
                transmitter: Arc::clone(&transmitter),
                metrics: metrics.hijack.clone(),
                work: work.clone(),
            };
            Arc::new(Hijack::new(settings, places.clone(), parts, former.hijack.as_deref()))
        });
        let sessions = options.session_config()?.zip(signing.clone()).map(|(config, signing)| {
            let status_lists = options.sessions.status_lists(&config.issuer).map(|config| {
                let parts = status_lists::Parts {
                    ring: Arc::clone(&ring),
                    signing: Arc::clone(&signing),
                    session_store: Arc::clone(&stores.sessions),
                    replay_guard: Arc::clone(&stores.replay_guard),
                    revocation_store: Arc::clone(&stores.revocations),
                    events: metrics.status_lists.clone(),
                };
                Arc::new(StatusLists::new(config, parts))
            });
            let parts = sessions::Parts {
                status_lists,
                hijack: hijack.clone(),
                signing,
                clients,
                ring,
                session_store: Arc::clone(&stores.sessions),
                revocation_store: Arc::clone(&stores.revocations),
                secrets: Arc::clone(&secrets),
                revocations: Arc::clone(&revocations),
                audit: Arc::clone(&audit),
                events: metrics.sessions.clone(),
            };
            Arc::new(Sessions::new(config, parts))
        });
        Ok(Self { secrets, facts, joins, revocations, audit, sessions, hijack, transmitter })
    }
}

/// The keys of sessions, as they were read.
pub struct ReadKeys {
    sources: Vec<signing::Source>,
    texts: Vec<String>,
    keys: Vec<Arc<signing::SigningKey>>,
}

/// `None`: no sessions are made.
///
/// # Errors
/// A key that cannot be used.
pub async fn read_keys(options: &Options) -> Result<Option<ReadKeys>, ServeError> {
    if options.sessions.session_issuer.is_none() {
        return Ok(None);
    }
    let given = &options.sessions;
    let limits = TokenLimits { sessions: given.signing_sessions, timeout: given.signing_timeout };
    let sources = signing::open(&given.keys()?, limits).await?;
    let (texts, keys) = signing::read(&sources).await?;
    Ok(Some(ReadKeys { sources, texts, keys }))
}

/// Opens the keys, and reads their files again when they change.
///
/// # Errors
/// As for [`read_keys`].
pub async fn open_keys(options: &Options, metrics: &Metrics) -> Result<Option<Arc<Signing>>, ServeError> {
    let Some(ReadKeys { sources, texts, keys }) = read_keys(options).await? else { return Ok(None) };
    // The longest time that one of our tokens is valid anywhere.
    let overlap = Duration::from_secs(options.retention().token.into());
    let signing = Arc::new(Signing::new(keys, overlap, metrics.signing.clone(), Instant::now()));
    if !sources.is_empty() {
        tokio::spawn(signing::watch(Arc::clone(&signing), sources, texts));
    }
    Ok(Some(signing))
}

/// # Errors
/// The file cannot be used.
pub async fn read_clients(options: &Options) -> Result<Arc<Clients>, ServeError> {
    let clients = Clients::default();
    if let Some(path) = &options.sessions.clients_file {
        clients.load(path).await?;
    }
    Ok(Arc::new(clients))
}

/// Reads the file of the clients again when it changes, as long as they are in use.
pub fn watch_clients(options: &Options, clients: &Arc<Clients>) {
    if let Some(path) = options.sessions.clients_file.clone() {
        tokio::spawn(clients::watch(Arc::clone(clients), path));
    }
}
