//! The two listeners: bound, served within limits, and shut down without dropping what is in progress.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use rustls::ServerConfig;
use store::{Observer, Stores};
use store_redis::RedisStore;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::DerivedKeys;
use wire::check::MAX_QUESTION_BYTES;

use crate::app::metrics::Metrics;
use crate::app::options::OptionsError;
use crate::app::redis_store;
use crate::app::tls::{Listener, TlsError};
use crate::base::connections::{self, Limits};
use crate::base::throttle::Throttle;
use crate::domain::audit::Audit;
use crate::domain::issuers::Issuers;
use crate::domain::provider_events::{self, ProvidersError, Signals};
use crate::domain::sessions::Sessions;
use crate::http::admin::guard::Rates;
use crate::http::gate::Gate;
use crate::http::oauth2::client::{Clients, ClientsError};
use crate::http::{admin, check, gate, health, oauth2};
use crate::model::note::{SealError, Seals};
use crate::model::session_keys::Ring;
use crate::signing::{self, Signing, TokenLimits};
use crate::{Options, RedisOptionsError, SessionOptions};

/// Longer than Envoy keeps an idle upstream connection (1 h): who closes first loses a request now and then, and on
/// this listener that request would be somebody's.
const DATA_IDLE: Duration = Duration::from_secs(3900);
const ADMIN_IDLE: Duration = Duration::from_secs(60);
/// From a request's headers to its answer, its body in between.
const DATA_REQUEST: Duration = Duration::from_secs(5);
/// Readiness asked of Redis at once; more are told what is known without asking.
const MAX_PROBES: usize = 16;
/// How long work may take whose sender is gone, once every connection has ended; and what the mirror lacks, after that.
const LAST_WORK: Duration = Duration::from_secs(5);
/// Bulk requests in progress; more are refused.
const MAX_BULK: usize = 4;

/// Both listeners bound, and Redis tried once.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    store: Arc<RedisStore>,
    data: TcpListener,
    admin: TcpListener,
    data_tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    admin_tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    addresses: Addresses,
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
    Redis(#[from] RedisOptionsError),
    #[error("for `mirror-redis`")]
    MirrorRedis(#[source] RedisOptionsError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    SigningKeys(#[from] signing::ReadError),
    #[error(transparent)]
    Clients(#[from] ClientsError),
    #[error(transparent)]
    Providers(#[from] ProvidersError),
}

/// What every request may use.
#[derive(Debug)]
pub struct Shared {
    pub options: Arc<Options>,
    pub secrets: Vec<DerivedKeys>,
    pub seals: Seals,
    pub stores: Stores,
    pub audit: Audit,
    pub sessions: Option<Sessions>,
    /// Of calls to the admin listener.
    pub rates: Rates,
    pub metrics: Arc<Metrics>,
    /// Questions refused, as they are logged.
    pub refused: Throttle,
    pub probes: Semaphore,
    /// Places of bulk requests, held until their answers end.
    pub bulk: Arc<Semaphore>,
    pub signals: Signals,
    pub issuers: Issuers,
    /// What is finished whoever hangs up. Its places bound it, not this.
    pub work: TaskTracker,
}

impl Service {
    /// Binds both listeners and writes the ports file. Redis need not be there yet.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(options: Options) -> Result<Self, ServeError> {
        options.check()?;
        if let Some(also) = &options.mirror_redis {
            also.access().map_err(ServeError::MirrorRedis)?;
        }
        let signals = Signals::new(&options)?;
        let options = Arc::new(options);
        let data_tls = options.tls.clone().map(|tls| tls.serve(Listener::Data)).transpose()?;
        let admin_tls = options.admin_tls.clone().map(|tls| tls.files.serve(Listener::Admin)).transpose()?;
        let ring = Arc::new(Ring::new(match &options.sessions {
            Some(sessions) if !sessions.secrets.is_empty() => &sessions.secrets,
            _ => &options.secrets,
        }));
        let metrics = Arc::new(Metrics::new());
        let sessions = match &options.sessions {
            Some(given) => Some(open_sessions(given.clone(), Arc::clone(&ring), &options, &metrics).await?),
            None => None,
        };
        let data = listen(options.listen).await?;
        let admin = listen(options.admin_listen).await?;
        let address = |listener: &TcpListener, address| {
            listener.local_addr().map_err(|source| ServeError::Listen { address, source })
        };
        let addresses =
            Addresses { listen: address(&data, options.listen)?, admin: address(&admin, options.admin_listen)? };
        let secrets: Vec<_> = options.secrets.iter().map(wire::Secret::derive).collect();
        let seals = Seals::new(&secrets)?;
        let observer: Arc<dyn Observer> = metrics.clone();
        let store = RedisStore::open(&redis_store::config(&options), observer).await?;
        if let Some(path) = &options.ports_file {
            write_ports(path, addresses).await.map_err(ServeError::PortsFile)?;
        }
        tracing::info!(listen = %addresses.listen, admin = %addresses.admin, "listening");
        let store = Arc::new(store);
        let stores = Stores::from(Arc::clone(&store));
        let shared = Shared {
            audit: Audit::new(Arc::clone(&stores.audit), ring, options.audit_retention),
            sessions,
            issuers: Issuers::new(&options),
            rates: Rates::new(options.admin_rate, Instant::now()),
            options,
            secrets,
            seals,
            stores,
            metrics,
            refused: Throttle::default(),
            probes: Semaphore::new(MAX_PROBES),
            bulk: Arc::new(Semaphore::new(MAX_BULK)),
            signals,
            work: TaskTracker::new(),
        };
        Ok(Self { shared: Arc::new(shared), store, data, admin, data_tls, admin_tls, addresses })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop` is done, then lets requests in progress end, for at most ten seconds, for five more those
    /// whose senders are gone, and for five more copies what the mirror lacks.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (say_stop, on_stop) = watch::channel(false);
        let (connections, newcomers) = (self.shared.options.max_connections, self.shared.options.max_newcomers);
        let limits = |idle| Limits { connections, newcomers, idle };
        let data = data_routes(Arc::clone(&self.shared));
        let admin = admin::routes(Arc::clone(&self.shared));
        let serving = async {
            let metrics = || Arc::clone(&self.shared.metrics);
            tokio::join!(
                connections::accept(self.data, data, limits(DATA_IDLE), self.data_tls, metrics(), on_stop.clone()),
                connections::accept(self.admin, admin, limits(ADMIN_IDLE), self.admin_tls, metrics(), on_stop.clone()),
            );
        };
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
            say_stop.send_replace(true);
        };
        // No start waits for the providers' keys.
        let (say_end, on_end) = watch::channel(false);
        for issuer in self.shared.signals.issuers() {
            self.shared.work.spawn(provider_events::watch(Arc::clone(&self.shared), issuer, on_end.clone()));
        }
        tokio::join!(serving, stopping);
        say_end.send_replace(true);
        self.shared.work.close();
        if timeout(LAST_WORK, self.shared.work.wait()).await.is_err() {
            tracing::warn!("work whose senders are gone was not finished");
        }
        match self.store.settle(LAST_WORK).await {
            0 => {}
            names => tracing::error!(
                names,
                "stopped with writes that the mirror lacks: run `portcullis migrate` before the switch"
            ),
        }
        tracing::info!("stopped");
    }
}

/// Opens the keys and reads the files that sessions need, and again when they change.
async fn open_sessions(
    given: SessionOptions,
    ring: Arc<Ring>,
    options: &Options,
    metrics: &Arc<Metrics>,
) -> Result<Sessions, ServeError> {
    let limits = TokenLimits { sessions: given.token_sessions, timeout: given.token_timeout };
    let sources = signing::open(&given.signing_keys, limits).await?;
    let (texts, keys) = signing::read(&sources).await?;
    // The longest that a token of ours is good anywhere.
    let overlap = Duration::from_secs(options.retention_seconds());
    let signing = Arc::new(Signing::new(keys, overlap, Arc::clone(metrics), Instant::now()));
    if !sources.is_empty() {
        tokio::spawn(signing::watch(Arc::clone(&signing), sources, texts));
    }
    let clients = Arc::new(Clients::default());
    if let Some(path) = given.clients.clone() {
        clients.load(&path).await?;
        tokio::spawn(oauth2::client::watch(Arc::clone(&clients), path));
    }
    Ok(Sessions::new(given, ring, signing, clients))
}

fn data_routes(shared: Arc<Shared>) -> Router {
    let gate = Gate::of_checks(shared.options.max_requests, MAX_QUESTION_BYTES);
    let mut routes = check_routes().layer(middleware::from_fn_with_state(gate, gate::pass));
    if shared.sessions.is_some() {
        let carried = (Gate::new(shared.options.max_requests, oauth2::MAX_BODY), shared.work.clone());
        let carried = oauth2::routes().layer(middleware::from_fn_with_state(carried, gate::carry));
        routes = routes.merge(carried).merge(oauth2::key_routes());
    }
    // Whether we live must be told when every place is taken, too.
    let routes =
        routes.merge(health::probes()).layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST));
    // They bound themselves: keys may have to be fetched, and a revocation waits for disks.
    let signals = shared.signals.routes().layer(middleware::from_fn(connections::keep));
    Router::from(routes.merge(signals)).with_state(shared)
}

fn check_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(check::check))
}

/// The description of the data listener.
pub fn data_api() -> OpenApi {
    let routes = check_routes().merge(oauth2::routes()).merge(oauth2::key_routes()).merge(provider_events::routes());
    routes.merge(health::probes()).into_openapi()
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Whoever reads the file finds all of it or none of it.
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
