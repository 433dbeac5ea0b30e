//! The two listeners: bound, served within limits, and shut down without dropping what is in progress.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::timeout::TimeoutLayer;
use wire::Derived;
use wire::check::{MAX_QUESTION_BYTES, PATH};

use crate::connections::{self, Limits};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::options::OptionsError;
use crate::seal::{SealError, Seals};
use crate::signals::{ProvidersError, Signals};
use crate::store::Store;
use crate::throttle::Throttle;
use crate::{Options, RedisOptionsError, admin, check, gate, health};

/// Longer than Envoy keeps an idle upstream connection (1 h): who closes first loses a request now and then, and on
/// this listener that request would be somebody's.
const DATA_IDLE: Duration = Duration::from_secs(3900);
const ADMIN_IDLE: Duration = Duration::from_secs(60);
/// From a request's headers to its answer, its body in between.
const DATA_REQUEST: Duration = Duration::from_secs(5);
/// Readiness asked of Redis at once; more are told what is known without asking.
const MAX_PROBES: usize = 16;
/// Bulk requests in progress; more are refused.
const MAX_BULK: usize = 4;

/// Both listeners bound, and Redis tried once.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    data: TcpListener,
    admin: TcpListener,
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
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Providers(#[from] ProvidersError),
}

/// What every request may use.
#[derive(Debug)]
pub struct Shared {
    pub options: Arc<Options>,
    pub secrets: Vec<Derived>,
    pub seals: Seals,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    /// Questions refused, as they are logged.
    pub refused: Throttle,
    pub probes: Semaphore,
    /// Places of bulk requests, held until their answers end.
    pub bulk: Arc<Semaphore>,
    pub signals: Signals,
}

impl Service {
    /// Binds both listeners and writes the ports file. Redis need not be there yet.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(options: Options) -> Result<Self, ServeError> {
        options.check()?;
        let signals = Signals::new(&options)?;
        let options = Arc::new(options);
        let data = listen(options.listen).await?;
        let admin = listen(options.admin_listen).await?;
        let address = |listener: &TcpListener, address| {
            listener.local_addr().map_err(|source| ServeError::Listen { address, source })
        };
        let addresses =
            Addresses { listen: address(&data, options.listen)?, admin: address(&admin, options.admin_listen)? };
        let secrets: Vec<_> = options.secrets.iter().map(wire::Secret::derive).collect();
        let seals = Seals::new(&secrets)?;
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(Arc::clone(&options), Arc::clone(&metrics)).await?;
        if let Some(path) = &options.ports_file {
            write_ports(path, addresses).await.map_err(ServeError::PortsFile)?;
        }
        tracing::info!(listen = %addresses.listen, admin = %addresses.admin, "listening");
        let shared = Shared {
            options,
            secrets,
            seals,
            store,
            metrics,
            refused: Throttle::default(),
            probes: Semaphore::new(MAX_PROBES),
            bulk: Arc::new(Semaphore::new(MAX_BULK)),
            signals,
        };
        Ok(Self { shared: Arc::new(shared), data, admin, addresses })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop` is done, then lets requests in progress end, for at most ten seconds.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (say_stop, on_stop) = watch::channel(false);
        let (connections, newcomers) = (self.shared.options.max_connections, self.shared.options.max_newcomers);
        let limits = |idle| Limits { connections, newcomers, idle };
        let data = data_routes(Arc::clone(&self.shared));
        let admin = admin::routes(Arc::clone(&self.shared));
        let serving = async {
            tokio::join!(
                connections::accept(self.data, data, limits(DATA_IDLE), on_stop.clone()),
                connections::accept(self.admin, admin, limits(ADMIN_IDLE), on_stop.clone()),
            );
        };
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
            say_stop.send_replace(true);
        };
        tokio::join!(serving, stopping);
        tracing::info!("stopped");
    }
}

fn data_routes(shared: Arc<Shared>) -> Router {
    let gate = Gate::new(shared.options.max_requests, MAX_QUESTION_BYTES);
    Router::new()
        .route(PATH, post(check::check))
        .layer(middleware::from_fn_with_state(gate, gate::pass))
        // Whether we live must be told when every place is taken, too.
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST))
        // They bound themselves: keys may have to be fetched, and a revocation waits for disks.
        .merge(shared.signals.routes())
        .with_state(shared)
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
