//! Accepts connections within limits, serves HTTP on them, and closes those that stay unauthenticated.
//!
//! Anybody in the network can open a connection and send nothing, or send "PRI" and wait, or ask /healthz once and stay.
//! A connection is unauthenticated until it carries a request made with our secret (the filter's or the admin's). It is
//! closed if it stays so, and one address may have a limited number of them: one more closes the oldest. The same happens
//! when there are too many connections in all. So a proxy that connects anew gets in however many idle connections are
//! held. Authenticated connections have no limit per address: all proxies may come from the one address of a NAT.
mod unauthenticated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::metrics::Counters;
use super::throttle::Throttle;
use unauthenticated::Unauthenticated;
pub use unauthenticated::{Connection, protect};

/// How long a connection may stay unauthenticated, from its acceptance, or from the end of its TLS handshake.
const UNAUTHENTICATED: Duration = Duration::from_secs(10);
/// How long a request on it may still take then.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Requests of one unauthenticated connection that are read at once, over HTTP/2. More wait until it is authenticated or
/// one of them ends.
const UNAUTHENTICATED_REQUESTS: usize = 4;
/// What one connection may send ahead of our reading, over HTTP/2. All waiting requests of a connection share it.
const WINDOW: u32 = 128 * 1024;
/// How long requests in progress may take after the service was told to stop.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all. One more closes the oldest unauthenticated one, and waits where there is none.
    pub connections: usize,
    /// Unauthenticated ones of one address. One more closes the oldest of them.
    pub unauthenticated_per_peer: usize,
    /// How long an authenticated connection may be idle.
    pub idle: Duration,
}

/// Which limit an unauthenticated connection was closed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    OfAddress,
    OfAll,
}

impl Closed {
    const ALL: [Closed; 2] = [Closed::OfAddress, Closed::OfAll];

    fn name(self) -> &'static str {
        match self {
            Closed::OfAddress => "of_address",
            Closed::OfAll => "of_all",
        }
    }
}

/// Unauthenticated connections that were closed to make room, by the limit.
pub fn closed_counters() -> Counters {
    Counters::new("reason", Closed::ALL.map(Closed::name))
}

/// HTTP/1.1 and HTTP/2 with prior knowledge on one port. A request is served by the newest routes.
pub async fn accept(
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    limits: Limits,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    closed: Counters,
    mut on_stop: watch::Receiver<bool>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(256)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW / 2)
        .max_header_list_size(16 * 1024);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let unauthenticated = Arc::new(Unauthenticated::default());
    let logged = Throttle::default();
    // Nothing is sent: the channel closes when the last connection is gone.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            _ = on_stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Probably out of file descriptors: they are freed as connections end.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (connection, made_room) = unauthenticated.enter(peer.ip(), limits.unauthenticated_per_peer);
        if made_room {
            closed.count(Closed::OfAddress.name());
        }
        if made_room && let Some(more) = logged.pass(Instant::now()) {
            tracing::warn!(peer = %peer.ip(), more, "closed a connection: its address has too many unauthenticated ones");
        }
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let made_room = unauthenticated.close_oldest_except(&connection);
                if made_room {
                    closed.count(Closed::OfAll.name());
                }
                if made_room && let Some(more) = logged.pass(Instant::now()) {
                    tracing::warn!(more, "closed an unauthenticated connection: there are too many in all");
                }
                tokio::select! {
                    _ = on_stop.wait_for(|stop| *stop) => break,
                    permit = Arc::clone(&permits).acquire_owned() => match permit {
                        Ok(permit) => permit,
                        Err(_) => break,
                    },
                }
            }
        };
        // Small answers must not wait for more data; without it they are only slower.
        let _ = stream.set_nodelay(true);
        let (http, routes) = (http.clone(), routes.clone());
        let tls = tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (alive, on_stop) = (alive.clone(), on_stop.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(&http, stream, routes, connection, None, on_stop).await,
                Some(tls) => {
                    let handshake = async {
                        tokio::select! {
                            () = connection.closing() => None,
                            stream = timeout(HANDSHAKE, tls.accept(stream)) => stream.ok()?.ok(),
                        }
                    };
                    if let Some(stream) = handshake.await {
                        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                        let certificate = peer.map(Certificate::of);
                        serve(&http, stream, routes, connection, certificate, on_stop).await;
                    }
                }
            }
            drop((permit, alive));
        });
    }
    drop((listener, alive));
    if timeout(DRAIN, all_gone.recv()).await.is_err() {
        tracing::warn!("requests were still in progress at the deadline");
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    http: &auto::Builder<TokioExecutor>,
    stream: S,
    routes: watch::Receiver<Router>,
    connection: Connection,
    certificate: Option<Certificate>,
    on_stop: watch::Receiver<bool>,
) {
    let of_request = connection.clone();
    let slots = Arc::new(Semaphore::new(UNAUTHENTICATED_REQUESTS));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_request.clone());
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let routes = TowerToHyperService::new(routes.borrow().clone());
        let (connection, slots) = (of_request.clone(), Arc::clone(&slots));
        async move {
            let _slot = if connection.is_authenticated() { None } else { slots.acquire_owned().await.ok() };
            routes.call(request).await
        }
    });
    drive(http.serve_connection(TokioIo::new(stream), service).into_owned(), connection, on_stop).await;
}

async fn drive(http: impl GracefulConnection, connection: Connection, mut on_stop: watch::Receiver<bool>) {
    tokio::pin!(http);
    let stays_unauthenticated = async {
        sleep(UNAUTHENTICATED).await;
        if connection.is_authenticated() {
            std::future::pending::<()>().await;
        }
    };
    let left = tokio::select! {
        _ = http.as_mut() => return,
        () = connection.closing() => return,
        _ = on_stop.wait_for(|stop| *stop) => DRAIN,
        () = stays_unauthenticated => LAST_REQUEST,
    };
    // An answer that is being sent is completed.
    http.as_mut().graceful_shutdown();
    let _ = timeout(left, http).await;
}
