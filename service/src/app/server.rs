//! The two listeners: bound, served within limits, and shut down without dropping requests in progress.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use store::Stores;
use store_redis::RedisOptionsError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use wire::DerivedKeys;
use wire::check::MAX_QUESTION_BYTES;
use wire::feed::MAX_POLL_BYTES;
use wire::join::MAX_REQUEST_BYTES;
use wire::sightings::MAX_REPORT_BYTES;

use crate::app::metrics::Metrics;
use crate::app::opened_store::{OpenStoreError, OpenedStore};
use crate::app::options::{Files, NamedStore, Options, OptionsError};
use crate::app::tls::{Listener, TlsError};
use crate::base::connections::{self, Limits};
use crate::base::metrics::Counters;
use crate::domain::audit::Audit;
use crate::domain::clients::{self, Clients, ClientsError};
use crate::domain::feed::Feed;
use crate::domain::hijack::{self, DatabaseError, Hijack, Places};
use crate::domain::issuers::Issuers;
use crate::domain::provider_events::{self, LoadedProviders, ProviderEvents, ProvidersError};
use crate::domain::regions::{self, OurFacts, Peer, Regions, Serving};
use crate::domain::revocations::Revocations;
use crate::domain::sessions::{self, Sessions};
use crate::domain::status_lists::{self, StatusLists};
use crate::http::admin::{self, Callers};
use crate::http::gate::{self, Gate};
use crate::http::{
    check, feed, health, join, oauth2, openapi, provider_events as provider_endpoints, sightings, status_list,
};
use crate::model::note::{NoteCipher, NoteError};
use crate::model::session_keys::Ring;
use crate::signing::{self, Signing, TokenLimits};

/// Longer than Envoy keeps an idle upstream connection (1 h): the side that closes first loses a request now and then, and
/// on this listener that would be a client's.
const DATA_IDLE: Duration = Duration::from_secs(3900);
const ADMIN_IDLE: Duration = Duration::from_secs(60);
/// From a request's headers to its answer, including its body.
const DATA_REQUEST: Duration = Duration::from_secs(5);
/// How long work may take whose sender is gone, once every connection has ended. The mirror has as long again for the
/// writes that it lacks.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Both listeners bound, and the store opened; Redis was tried once.
#[derive(Debug)]
pub struct Service {
    data: Bound,
    admin: Bound,
    limits: Limits,
    closed_connections: Counters,
    store: OpenedStore,
    events: Arc<ProviderEvents>,
    feed: Arc<Feed>,
    regions: Arc<Regions>,
    hijack: Option<Arc<Hijack>>,
    work: TaskTracker,
}

/// A listener and what it serves.
#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    routes: Router,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot write the ports file")]
    PortsFile(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("for `mirror-redis`")]
    Mirror(#[source] RedisOptionsError),
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    SigningKeys(#[from] signing::ReadError),
    #[error(transparent)]
    Clients(#[from] ClientsError),
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    #[error("--geo-database")]
    GeoDatabase(#[from] DatabaseError),
}

/// What the routes of both listeners are made of.
struct Parts {
    secrets: Arc<[DerivedKeys]>,
    stores: Stores,
    issuers: Arc<Issuers>,
    feed: Arc<Feed>,
    regions: Arc<Regions>,
    /// What other regions are answered with, and what they get. `None`: none may ask.
    joins: Option<(Arc<[DerivedKeys]>, Arc<Serving>)>,
    revocations: Arc<Revocations>,
    audit: Arc<Audit>,
    sessions: Option<Arc<Sessions>>,
    events: Arc<ProviderEvents>,
    hijack: Option<Arc<Hijack>>,
    registry: Arc<Registry>,
    work: TaskTracker,
}

impl Service {
    /// Binds both listeners and writes the ports file. Redis need not be reachable yet.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(options: Options) -> Result<Self, ServeError> {
        options.check()?;
        let files = options.read_files()?;
        if let Some(mirror) = options.mirror_redis() {
            mirror.access().map_err(ServeError::Mirror)?;
        }
        let providers = LoadedProviders::load(&files.providers)?;
        let peers = peers(&options, &files)?;
        let places = options.sightings.geo_database.as_deref().map(Places::open).transpose()?.map(Arc::new);
        let data_tls = options.tls().map(|tls| tls.serve(Listener::Data)).transpose()?;
        let admin_tls = options.admin.tls().map(|tls| tls.serve(Listener::Admin)).transpose()?;
        let metrics = Metrics::new();
        let keys = open_keys(&options, &metrics).await?;
        let data = listen(options.listen).await?;
        let admin = listen(options.admin_listen).await?;
        let store = OpenedStore::open(&options, Arc::new(metrics.store.clone())).await?;
        let addresses = Addresses { listen: data.1, admin: admin.1 };
        if let Some(path) = &options.ports_file {
            write_ports(path, addresses).await.map_err(ServeError::PortsFile)?;
        }
        tracing::info!(listen = %addresses.listen, admin = %addresses.admin, "listening");
        if options.admin.operator_page && options.admin.tls().is_none() && !addresses.admin.ip().is_loopback() {
            tracing::warn!("browsers reach the operator's page without TLS: admin tokens are sent in plain text");
        }
        let loaded = Loaded { providers, peers, places };
        let parts = Parts::new(&options, &files, loaded, &metrics, keys, store.stores())?;
        let limits = Limits {
            connections: options.max_connections,
            unauthenticated_per_peer: options.max_unauthenticated_per_peer,
            idle: DATA_IDLE,
        };
        let bound = |(listener, address), tls, routes| Bound { listener, address, tls, routes };
        Ok(Self {
            data: bound(data, data_tls, data_routes(&parts, &options, &metrics)),
            admin: bound(admin, admin_tls, admin_routes(&parts, &options, files)),
            limits,
            closed_connections: metrics.closed_connections,
            store,
            events: parts.events,
            feed: parts.feed,
            regions: parts.regions,
            hijack: parts.hijack,
            work: parts.work,
        })
    }

    /// Checks the options, and that the files and keys that they name can be used. Neither binds a listener nor asks Redis. A store in a
    /// file must be there, and is not read.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn check(options: &Options) -> Result<(), ServeError> {
        options.check()?;
        let files = options.read_files()?;
        match &options.store {
            // A service may be using it.
            Some(NamedStore::File(file)) if !options.create_store => {
                store_embedded::look(&file.path()).map_err(OpenStoreError::from)?
            }
            Some(_) => {}
            None => {
                store_redis::RedisOptions::from(options.redis.clone()).access().map_err(OpenStoreError::from)?;
            }
        }
        if let Some(mirror) = options.mirror_redis() {
            mirror.access().map_err(ServeError::Mirror)?;
        }
        LoadedProviders::load(&files.providers)?;
        peers(options, &files)?;
        options.sightings.geo_database.as_deref().map(Places::open).transpose()?;
        for (tls, listener) in [(options.tls(), Listener::Data), (options.admin.tls(), Listener::Admin)] {
            if let Some(tls) = tls {
                tls.config(listener)?;
            }
        }
        read_keys(options).await.map(drop)
    }

    pub fn addresses(&self) -> Addresses {
        Addresses { listen: self.data.address, admin: self.admin.address }
    }

    /// Serves until `stop` is done. Then requests in progress may take ten seconds more, those whose senders are gone five
    /// more, and the mirror another five to get what it lacks.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { data, admin, limits, closed_connections, store, events, feed, regions, hijack, work } = self;
        let (say_stop, on_stop) = watch::channel(false);
        let accept = |bound: Bound, idle| {
            let (closed, on_stop) = (closed_connections.clone(), on_stop.clone());
            connections::accept(bound.listener, bound.routes, Limits { idle, ..limits }, bound.tls, closed, on_stop)
        };
        let serving = async { tokio::join!(accept(data, DATA_IDLE), accept(admin, ADMIN_IDLE)) };
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
            say_stop.send_replace(true);
            // Polls are held for longer than a stop may take.
            feed.stop();
        };
        // The start does not wait for the providers' keys.
        let (say_end, on_end) = watch::channel(false);
        events.start(&on_end);
        // Nothing is fetched any more once the service stops.
        events.start_polls(&on_stop);
        feed.start(&on_end);
        regions.start(&on_stop);
        if let Some(hijack) = &hijack {
            hijack.start(&on_end);
        }
        tokio::join!(serving, stopping);
        say_end.send_replace(true);
        work.close();
        if timeout(LAST_WORK, work.wait()).await.is_err() {
            tracing::warn!("work of disconnected clients was not finished");
        }
        match store.settle(LAST_WORK).await {
            0 => {}
            names => tracing::error!(
                names,
                "stopped with writes that the mirror lacks: run `portcullis migrate` before the switch"
            ),
        }
        tracing::info!("stopped");
    }
}

/// The keys of JWTs and the clients, which sessions need. `None`: no sessions are made.
type Keys = Option<(sessions::Config, Arc<Signing>, Arc<Clients>)>;

/// What sessions need, as it was read.
struct ReadKeys {
    config: sessions::Config,
    sources: Vec<signing::Source>,
    texts: Vec<String>,
    keys: Vec<Arc<signing::SigningKey>>,
    clients: Clients,
}

/// Opens the keys and reads the files that sessions need. `None`: no sessions are made.
async fn read_keys(options: &Options) -> Result<Option<ReadKeys>, ServeError> {
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
async fn open_keys(options: &Options, metrics: &Metrics) -> Result<Keys, ServeError> {
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
struct Loaded {
    providers: LoadedProviders,
    peers: Vec<Peer>,
    places: Option<Arc<Places>>,
}

impl Parts {
    /// Makes each part from the parts that it uses.
    fn new(
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

    fn health(&self) -> health::AppState {
        let signing = self.sessions.as_ref().map(|sessions| Arc::clone(&sessions.signing));
        let regions = Arc::clone(&self.regions);
        health::AppState::new(Arc::clone(&self.stores.revocations), signing, regions, Arc::clone(&self.registry))
    }
}

fn data_routes(parts: &Parts, options: &Options, metrics: &Metrics) -> Router {
    let refused = Arc::default();
    let checks = check::AppState {
        secrets: Arc::clone(&parts.secrets),
        revocations: Arc::clone(&parts.stores.revocations),
        replay_guard: Arc::clone(&parts.stores.replay_guard),
        issuers: Arc::clone(&parts.issuers),
        keeps: options.retention(),
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
        metrics: metrics.checks.clone(),
        refused: Arc::clone(&refused),
    };
    let gate = Gate::of_checks(options.max_requests, MAX_QUESTION_BYTES);
    let mut routes: OpenApiRouter =
        check::routes().with_state(checks).layer(middleware::from_fn_with_state(gate, gate::limit));
    if let Some(sessions) = &parts.sessions {
        let state = oauth2::AppState {
            sessions: Arc::clone(sessions),
            replay_guard: Arc::clone(&parts.stores.replay_guard),
            audit: Arc::clone(&parts.audit),
            metrics: metrics.oauth.clone(),
            refused,
        };
        let gate = (Gate::new(options.max_requests, oauth2::MAX_BODY), parts.work.clone());
        let endpoints = oauth2::routes().layer(middleware::from_fn_with_state(gate, gate::run_to_completion));
        routes = routes.merge(endpoints.merge(oauth2::key_routes()).with_state(state));
        if let Some(lists) = &sessions.status_lists {
            // They are for strangers, who must not take the places of clients.
            let gate = Gate::new(options.max_requests, 0);
            let lists = status_list::routes().with_state(Arc::clone(lists));
            routes = routes.merge(lists.layer(middleware::from_fn_with_state(gate, gate::limit)));
        }
    }
    // Whether the process lives must be told when every place is taken, too.
    let routes = routes
        .merge(health::probes().with_state(parts.health()))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST));
    let routes = routes
        .merge(feed_routes(parts, options, metrics))
        .merge(join_routes(parts, metrics))
        .merge(sighting_routes(parts, options, metrics));
    // They have limits of their own: keys may have to be fetched, and a revocation waits for disks.
    let state = provider_endpoints::AppState::new(Arc::clone(&parts.events), metrics.provider_requests.clone());
    let events = provider_endpoints::routes(|endpoint| parts.events.serves(endpoint)).with_state(state);
    routes.merge(events.layer(middleware::from_fn(connections::protect))).into()
}

/// Polls are held, so they do not take the places of checks, and may take longer.
fn feed_routes(parts: &Parts, options: &Options, metrics: &Metrics) -> OpenApiRouter {
    let state = feed::AppState {
        secrets: Arc::clone(&parts.secrets),
        feed: Arc::clone(&parts.feed),
        keeps: options.retention(),
        future_iat_tolerance_seconds: options.future_iat_tolerance_seconds(),
        metrics: metrics.feed.clone(),
        refused: Arc::default(),
        pieces: feed::AppState::pieces(),
    };
    // More than may follow: those that are too many get an answer that says so.
    let gate = Gate::of_checks(options.max_followers.saturating_add(options.max_requests), MAX_POLL_BYTES);
    feed::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, feed::REQUEST))
}

fn join_routes(parts: &Parts, metrics: &Metrics) -> OpenApiRouter {
    let Some((secrets, serving)) = parts.joins.clone() else { return OpenApiRouter::new() };
    let state = join::AppState { secrets, serving, metrics: metrics.regions.clone(), refused: Arc::default() };
    let gate = Gate::of_checks(join::MAX_REQUESTS, MAX_REQUEST_BYTES);
    join::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, join::REQUEST))
}

/// Reports do not take the places of checks.
fn sighting_routes(parts: &Parts, options: &Options, metrics: &Metrics) -> OpenApiRouter {
    let Some(hijack) = &parts.hijack else { return OpenApiRouter::new() };
    let state = sightings::AppState {
        secrets: Arc::clone(&parts.secrets),
        hijack: Arc::clone(hijack),
        metrics: metrics.hijack.clone(),
        refused: Arc::default(),
    };
    let gate = Gate::of_checks(options.max_requests, MAX_REPORT_BYTES);
    sightings::routes()
        .with_state(state)
        .layer(middleware::from_fn_with_state(gate, gate::limit))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST))
}

fn admin_routes(parts: &Parts, options: &Options, files: Files) -> Router {
    let callers = Callers { token: files.admin_token, certificates: options.admin.certificate_callers() };
    let admin = admin::Parts {
        revocations: Arc::clone(&parts.revocations),
        sessions: parts.sessions.clone(),
        audit: Arc::clone(&parts.audit),
        callers,
        health: parts.health(),
        page: options.admin.operator_page,
        work: parts.work.clone(),
    };
    let limits = admin::Limits {
        requests: options.max_requests,
        rate: options.admin.admin_rate,
        answer: options.write_limit() + Duration::from_secs(10),
    };
    admin::routes(admin, limits, openapi::admin_document().into())
}

/// The other regions that are followed.
fn peers(options: &Options, files: &Files) -> Result<Vec<Peer>, OptionsError> {
    match files.join_secrets.first() {
        Some(secret) => Ok(options.join.peers(secret)?),
        None => Ok(Vec::new()),
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A reader of the file finds all of it or none of it.
async fn write_ports(path: &Path, addresses: Addresses) -> io::Result<()> {
    let text = serde_json::json!({
        "listen": addresses.listen.to_string(),
        "admin": addresses.admin.to_string(),
    });
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    tokio::fs::write(&beside, format!("{text}\n")).await?;
    tokio::fs::rename(&beside, path).await
}
