//! The two listeners: bound, served within limits, and shut down without dropping what is in progress.
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
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

use crate::gate::{Gate, admit};
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::options::OptionsError;
use crate::seal::{SealError, Seals};
use crate::sparing::Sparing;
use crate::store::Store;
use crate::{Options, admin, check, health};

/// Open connections per listener. The newest is dropped: a queue would keep a prober waiting for an answer.
const MAX_CONNECTIONS: usize = 8192;
/// From accepting a connection to all headers of its first request. hyper's own limit starts only once it knows which
/// HTTP is spoken, and until then a silent connection would cost nothing to keep for ever.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// From a request's headers to the end of its body.
const BODY: Duration = Duration::from_secs(2);
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
    limits: Limits,
}

/// What strangers may take. Other than the constants only in tests, which cannot wait for so long.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    first_request: Duration,
    body: Duration,
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
    /// The log's share of questions that are none of ours.
    pub refusals: Sparing,
    pub readiness: Readiness,
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
        let (refusals, readiness) = (Sparing::default(), Readiness::default());
        let shared = Arc::new(Shared { options, secrets, seals, store, metrics, refusals, readiness });
        let limits = Limits { connections: MAX_CONNECTIONS, first_request: FIRST_REQUEST, body: BODY };
        Ok(Self { shared, data, admin, addresses, limits })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop` is done, then lets requests in progress end, for at most ten seconds.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (say_stop, on_stop) = watch::channel(false);
        let (places, limits) = (self.shared.options.max_requests, self.limits);
        let gate = |most, refuse: fn(StatusCode) -> Response| Arc::new(Gate::new(places, most, limits.body, refuse));
        let data = data_routes(Arc::clone(&self.shared), gate(MAX_QUESTION_BYTES, IntoResponse::into_response));
        let admin = admin::routes(Arc::clone(&self.shared), gate);
        let serving = async {
            tokio::join!(
                accept(self.data, data, limits, DATA_IDLE, on_stop.clone()),
                accept(self.admin, admin, limits, ADMIN_IDLE, on_stop.clone()),
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

fn data_routes(shared: Arc<Shared>, gate: Arc<Gate>) -> Router {
    Router::new()
        .route(PATH, post(check::check))
        .route_layer(middleware::from_fn_with_state(gate, admit))
        // Below the gate: whoever probes must learn that a full service lives.
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(DefaultBodyLimit::max(MAX_QUESTION_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DATA_REQUEST))
        .with_state(shared)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// HTTP/1.1 and HTTP/2 with prior knowledge on one port.
async fn accept(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    idle: Duration,
    mut on_stop: watch::Receiver<bool>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1024)
        .max_header_list_size(16 * 1024);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let full = Sparing::default();
    loop {
        let accepted = tokio::select! {
            _ = on_stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: they come back as connections end.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Some(left_out) = full.turn(Instant::now()) {
                tracing::warn!(limit = limits.connections, left_out, "dropped a connection: too many are open");
            }
            continue;
        };
        // Small answers must not wait for more; without it they are slower, no worse.
        let _ = stream.set_nodelay(true);
        let asked = Arc::new(AtomicBool::new(false));
        let service = Noting { routes: TowerToHyperService::new(routes.clone()), asked: Arc::clone(&asked) };
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = match timeout(limits.first_request, &mut connection).await {
                Ok(ended) => ended,
                Err(_) if asked.load(Ordering::Relaxed) => connection.await,
                Err(_) => {
                    tracing::debug!("closed a connection that asked nothing");
                    Ok(())
                }
            };
            if let Err(error) = ended {
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

/// Notes that a connection has asked something.
struct Noting {
    routes: TowerToHyperService<Router>,
    asked: Arc<AtomicBool>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Noting {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as hyper::service::Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        hyper::service::Service::call(&self.routes, request)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread::JoinHandle;

    use tokio::sync::oneshot;

    use super::*;
    use crate::options::tests::options;

    const LIMITS: Limits =
        Limits { connections: 64, first_request: Duration::from_millis(600), body: Duration::from_millis(600) };

    /// The real listeners, with places for one request and no Redis.
    struct Running {
        at: Addresses,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Running {
        fn start(limits: Limits) -> Self {
            let (say, hear) = std::sync::mpsc::channel();
            let (stop, on_stop) = oneshot::channel();
            let thread = std::thread::spawn(move || {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
                    async {
                        let service = Service { limits, ..Service::bind(options()).await.unwrap() };
                        say.send(service.addresses()).unwrap();
                        service.run(async { drop(on_stop.await) }).await;
                    },
                );
            });
            let at = hear.recv_timeout(Duration::from_secs(10)).unwrap();
            Self { at, stop: Some(stop), thread: Some(thread) }
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.stop.take());
            let ended = self.thread.take().unwrap().join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }

    fn send(at: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// All that comes until the other side closes.
    fn until_closed(mut stream: TcpStream) -> String {
        let mut got = Vec::new();
        match stream.read_to_end(&mut got) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("still open: {error}"),
            _ => String::from_utf8_lossy(&got).into_owned(),
        }
    }

    fn status(stream: &mut TcpStream) -> String {
        let mut got = [0; 1024];
        let read = stream.read(&mut got).unwrap();
        String::from_utf8_lossy(&got[..read]).chars().skip("HTTP/1.1 ".len()).take(3).collect()
    }

    const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    const SLOW: &[u8] = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n";
    const NONSENSE: &[u8] = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";

    // hyper-util waits for ever to learn which HTTP is spoken, and hyper for a first request on HTTP/2.
    #[test]
    fn a_connection_that_asks_nothing_is_closed_on_both_listeners() {
        let service = Running::start(LIMITS);
        let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice();
        let (version, cut) = (b"PRI * HTTP/2.0\r\n".as_slice(), b"GET /healthz HTT".as_slice());
        let silent: Vec<_> = [service.at.listen, service.at.admin]
            .into_iter()
            .flat_map(|at| [b"".as_slice(), version, settings, cut].map(|sent| send(at, sent)))
            .collect();
        let since = Instant::now();
        for stream in silent {
            assert!(!until_closed(stream).contains("HTTP/1.1 200"));
        }
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    }

    #[test]
    fn a_connection_that_asked_once_is_kept() {
        let service = Running::start(LIMITS);
        let mut stream = send(service.at.listen, HEALTH);
        assert_eq!(status(&mut stream), "200");
        std::thread::sleep(LIMITS.first_request * 2);
        stream.write_all(HEALTH).unwrap();
        assert_eq!(status(&mut stream), "200");
    }

    // Bodies that did not come held every place, and even /healthz was told 503.
    #[test]
    fn slow_bodies_take_no_place_and_are_not_waited_for() {
        let service = Running::start(LIMITS);
        let slow: Vec<_> = (0..20).map(|_| send(service.at.listen, SLOW)).collect();
        for _ in 0..3 {
            assert_eq!(status(&mut send(service.at.listen, NONSENSE)), "400");
            assert_eq!(status(&mut send(service.at.listen, HEALTH)), "200");
        }
        for stream in slow {
            let answer = until_closed(stream);
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }

    #[test]
    fn a_body_is_refused_for_its_size_before_and_after_it_is_sent() {
        let service = Running::start(LIMITS);
        let head = |length: &str| format!("POST /v1/check HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
        let announced = head(&format!("content-length: {}", MAX_QUESTION_BYTES + 1));
        assert_eq!(status(&mut send(service.at.listen, announced.as_bytes())), "413");
        let chunk = format!("{:x}\r\n{}\r\n", MAX_QUESTION_BYTES + 1, "x".repeat(MAX_QUESTION_BYTES + 1));
        let chunked = head("transfer-encoding: chunked") + &chunk;
        assert_eq!(status(&mut send(service.at.listen, chunked.as_bytes())), "413");
        let fits = head(&format!("content-length: {MAX_QUESTION_BYTES}")) + &"x".repeat(MAX_QUESTION_BYTES);
        assert_eq!(status(&mut send(service.at.listen, fits.as_bytes())), "400");
    }

    #[test]
    fn the_newest_connection_over_the_limit_is_dropped_and_its_place_comes_back() {
        let service = Running::start(Limits { connections: 2, ..LIMITS });
        let mut kept: Vec<_> = (0..2).map(|_| send(service.at.listen, HEALTH)).collect();
        for stream in &mut kept {
            assert_eq!(status(stream), "200");
        }
        assert_eq!(until_closed(send(service.at.listen, b"")), "");
        // Each listener counts its own.
        assert_eq!(status(&mut send(service.at.admin, HEALTH)), "200");
        for stream in &mut kept {
            stream.write_all(HEALTH).unwrap();
            assert_eq!(status(stream), "200");
        }
        drop(kept);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !until_closed(send(service.at.listen, b"GET /healthz HTTP/1.0\r\n\r\n")).contains("200") {
            assert!(Instant::now() < deadline);
        }
    }
}
