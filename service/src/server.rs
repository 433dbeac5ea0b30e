//! The two listeners: bound, served within limits, and shut down without dropping what is in progress.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower_http::timeout::TimeoutLayer;
use wire::Derived;
use wire::check::{MAX_QUESTION_BYTES, PATH};

use crate::metrics::Metrics;
use crate::options::OptionsError;
use crate::seal::{SealError, Seals};
use crate::store::Store;
use crate::{Options, admin, check, health};

/// Open connections per listener; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Longer than Envoy keeps an idle upstream connection (1 h): who closes first loses a request now and then, and on
/// this listener that request would be somebody's.
const DATA_IDLE: Duration = Duration::from_secs(3900);
const ADMIN_IDLE: Duration = Duration::from_secs(60);
/// From a request's headers to its answer, its body in between.
const DATA_REQUEST: Duration = Duration::from_secs(5);
/// How long requests in progress may take once we were told to stop.
const DRAIN: Duration = Duration::from_secs(10);

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
    /// Without its source, which may show a password.
    #[error("the Redis URL cannot be used: write redis://[user:password@]host:port[/db]")]
    Redis,
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What every request may use.
#[derive(Debug)]
pub struct Shared {
    pub options: Arc<Options>,
    pub secrets: Vec<Derived>,
    pub seals: Seals,
    pub store: Store,
    pub metrics: Arc<Metrics>,
}

impl Service {
    /// Binds both listeners and writes the ports file. Redis need not be there yet.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(options: Options) -> Result<Self, ServeError> {
        options.check()?;
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
        let store = Store::open(Arc::clone(&options), Arc::clone(&metrics)).await.map_err(|_| ServeError::Redis)?;
        if let Some(path) = &options.ports_file {
            write_ports(path, addresses).await.map_err(ServeError::PortsFile)?;
        }
        tracing::info!(listen = %addresses.listen, admin = %addresses.admin, "listening");
        Ok(Self { shared: Arc::new(Shared { options, secrets, seals, store, metrics }), data, admin, addresses })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop` is done, then lets requests in progress end, for at most ten seconds.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (say_stop, on_stop) = watch::channel(false);
        let limit = self.shared.options.max_requests;
        let data = limited(data_routes(Arc::clone(&self.shared)), limit);
        let admin = limited(admin::routes(Arc::clone(&self.shared)), limit);
        let serving = async {
            tokio::join!(
                accept(self.data, data, DATA_IDLE, on_stop.clone()),
                accept(self.admin, admin, ADMIN_IDLE, on_stop.clone()),
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
    Router::new()
        .route(PATH, post(check::check))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(DefaultBodyLimit::max(MAX_QUESTION_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST))
        .with_state(shared)
}

/// Refuses what is over the limit at once: a check that queues is a check that times out.
fn limited(routes: Router, limit: usize) -> Router {
    routes.layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(limit)), admit))
}

async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many requests in progress\n").into_response(),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// HTTP/1.1 and HTTP/2 with prior knowledge on one port.
async fn accept(listener: TcpListener, routes: Router, idle: Duration, mut on_stop: watch::Receiver<bool>) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1024)
        .max_header_list_size(16 * 1024);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = on_stop.wait_for(|stop| *stop) => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((stream, _))) = accepted else {
            // Out of file descriptors, most likely: they come back as connections end.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Small answers must not wait for more; without it they are slower, no worse.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in progress when time was up");
    }
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
