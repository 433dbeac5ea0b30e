//! What the routes are made of, each part made from the parts that it uses.
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use store::Stores;
use tokio_util::task::TaskTracker;
use wire::DerivedKeys;

use crate::app::metrics::Metrics;
use crate::app::options::{Files, Options, OptionsError};
use crate::app::serve_error::ServeError;
use crate::domain::audit::Audit;
use crate::domain::clients::{self, Clients};
use crate::domain::feed::Feed;
use crate::domain::hijack::{self, Hijack, Places};
use crate::domain::issuers::Issuers;
use crate::domain::provider_events::{self, LoadedProviders, ProviderEvents};
use crate::domain::regions::{self, OurFacts, Peer, Regions, Serving, StoresSeen};
use crate::domain::revocations::Revocations;
use crate::domain::sessions::{self, Sessions};
use crate::domain::status_lists::{self, StatusLists};
use crate::http::health;
use crate::model::note::{NoteCipher, NoteError};
use crate::model::session_keys::Ring;
use crate::signing::{self, Signing, TokenLimits};

/// What the routes of both listeners are made of.
pub struct Parts {
    pub secrets: Arc<[DerivedKeys]>,
    pub stores: Stores,
    pub issuers: Arc<Issuers>,
    pub feed: Arc<Feed>,
    pub regions: Arc<Regions>,
    /// What other regions are answered with, and what they get. `None`: none may ask.
    pub joins: Option<(Arc<[DerivedKeys]>, Arc<Serving>)>,
    pub revocations: Arc<Revocations>,
    pub audit: Arc<Audit>,
    pub sessions: Option<Arc<Sessions>>,
    pub events: Arc<ProviderEvents>,
    pub hijack: Option<Arc<Hijack>>,
    pub registry: Arc<Registry>,
    pub work: TaskTracker,
}

/// The keys of JWTs and the clients, which sessions need. `None`: no sessions are made.
pub type Keys = Option<(sessions::Config, Arc<Signing>, Arc<Clients>)>;

/// What sessions need, as it was read.
pub struct ReadKeys {
    config: sessions::Config,
    sources: Vec<signing::Source>,
    texts: Vec<String>,
    keys: Vec<Arc<signing::SigningKey>>,
    clients: Clients,
}

/// Opens the keys and reads the files that sessions need. `None`: no sessions are made.
pub async fn read_keys(options: &Options) -> Result<Option<ReadKeys>, ServeError> {
    let Some(config) = options.session_config()? else { return Ok(None) };
    let given = &options.sessions;
    let limits = TokenLimits { sessions: given.signing_sessions, timeout: given.signing_timeout };
    let sources = signing::open(&given.keys()?, limits).await?;
    let (texts, keys) = signing::read(&sources).await?;
    let clients = Clients::default();
    if let Some(path) = &given.clients_file {
        clients.load(path).await?;
    }
    Ok(Some(ReadKeys { config, sources, texts, keys, clients }))
}

/// Opens the keys and reads the files that sessions need, and again when they change.
pub async fn open_keys(options: &Options, metrics: &Metrics) -> Result<Keys, ServeError> {
    let Some(read) = read_keys(options).await? else { return Ok(None) };
    let ReadKeys { config, sources, texts, keys, clients } = read;
    // The longest time that one of our tokens is valid anywhere.
    let overlap = Duration::from_secs(options.retention().token.into());
    let signing = Arc::new(Signing::new(keys, overlap, metrics.signing.clone(), Instant::now()));
    if !sources.is_empty() {
        tokio::spawn(signing::watch(Arc::clone(&signing), sources, texts));
    }
    let clients = Arc::new(clients);
    if let Some(path) = options.sessions.clients_file.clone() {
        tokio::spawn(clients::watch(Arc::clone(&clients), path));
    }
    Ok(Some((config, signing, clients)))
}

/// What was read from files of options before anything is served.
pub struct Loaded {
    pub providers: LoadedProviders,
    pub peers: Vec<Peer>,
    pub places: Option<Arc<Places>>,
}

impl Parts {
    /// Makes each part from the parts that it uses.
    pub fn new(
        options: &Options,
        files: &Files,
        Loaded { providers, peers, places }: Loaded,
        metrics: &Metrics,
        keys: Keys,
        stores: Stores,
    ) -> Result<Self, NoteError> {
        let secrets: Arc<[DerivedKeys]> = files.secrets.iter().map(wire::Secret::derive).collect();
        let cipher = NoteCipher::new(&secrets)?;
        let ring_secrets = if files.session_secrets.is_empty() { &files.secrets } else { &files.session_secrets };
        let ring = Arc::new(Ring::new(ring_secrets));
        let work = TaskTracker::new();
        let configured = options.issuers.iter().chain(&options.sessions.session_issuer);
        let configured = configured.chain(files.providers.subject_issuers()).cloned().collect();
        let issuers = Arc::new(Issuers::new(Arc::clone(&stores.issuers), configured));
        let feed = Feed::new(Arc::clone(&stores.log), options.feed_config(), metrics.feed.clone());
        let audit = Arc::new(Audit::new(Arc::clone(&stores.audit), Arc::clone(&ring), options.admin.audit_retention));
        let revocations = Arc::new(Revocations::new(
            Arc::clone(&stores.revocations),
            Arc::clone(&secrets),
            cipher,
            Arc::clone(&issuers),
            options.revocation_policy(&files.providers),
            metrics.revocations.clone(),
            feed.nudge(),
        ));
        let facts = OurFacts {
            keeps: options.retention(),
            future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
            secrets: secrets.iter().map(DerivedKeys::id).collect(),
        };
        let region_parts = regions::Parts {
            store: Arc::clone(&stores.revocations),
            facts: facts.clone(),
            feed: feed.nudge(),
            audit: Arc::clone(&audit),
            metrics: metrics.regions.clone(),
            compare: options.join.join_compare,
            stores_seen: StoresSeen::default(),
        };
        let regions = Arc::new(Regions::new(peers, region_parts));
        let joins = (!files.join_secrets.is_empty()).then(|| {
            let secrets = files.join_secrets.iter().map(wire::Secret::derive).collect();
            let serving = Serving::new(Arc::clone(&feed), Arc::clone(&stores.revocations), facts);
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
                metrics: metrics.hijack.clone(),
                work: work.clone(),
            };
            Arc::new(Hijack::new(settings, places, parts))
        });
        let sessions = keys.map(|(config, signing, clients)| {
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
        let event_parts = provider_events::Parts {
            replay_guard: Arc::clone(&stores.replay_guard),
            revocations: Arc::clone(&revocations),
            audit: Arc::clone(&audit),
            work: work.clone(),
            metrics: metrics.provider_events.clone(),
        };
        let events = Arc::new(ProviderEvents::new(providers, options.event_limit(), event_parts));
        let registry = Arc::new(metrics.registry());
        Ok(Self {
            secrets,
            stores,
            issuers,
            feed,
            regions,
            joins,
            revocations,
            audit,
            sessions,
            events,
            hijack,
            registry,
            work,
        })
    }

    pub fn health(&self) -> health::AppState {
        let signing = self.sessions.as_ref().map(|sessions| Arc::clone(&sessions.signing));
        let regions = Arc::clone(&self.regions);
        health::AppState::new(Arc::clone(&self.stores.revocations), signing, regions, Arc::clone(&self.registry))
    }
}
/// The other regions that are followed.
pub fn peers(options: &Options, files: &Files) -> Result<Vec<Peer>, OptionsError> {
    match files.join_secrets.first() {
        Some(secret) => Ok(options.join.peers(secret)?),
        None => Ok(Vec::new()),
    }
}
