//! Connections: accepted within limits, and left unless somebody proves in time that they are used with our secret.
//!
//! Anybody in the network can open a connection and say nothing, or say "PRI" and wait, or ask /healthz once and stay.
//! So a connection is a newcomer until it carried a request made with our secret (the filter's, or the admin's). It is
//! ended when it stays one, and one address has only so many. What is proven has no such bound: all proxies may come
//! from the one address of a NAT.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::throttle::Throttle;
use crate::tls;

/// How long a connection may stay a newcomer, from its acceptance, or from the end of its TLS handshake.
const NEWCOMER: Duration = Duration::from_secs(10);
/// How long a request of a newcomer may still take then.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long requests in progress may take once we were told to stop.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all; more wait to be accepted.
    pub connections: usize,
    /// Newcomers from one address; more are closed at once.
    pub newcomers: usize,
    /// How long a proven connection may be quiet.
    pub idle: Duration,
}

/// In the extensions of each request: whose newcomer's it is.
#[derive(Debug, Clone)]
pub struct Proof(Arc<Newcomer>);

/// In the extensions of each request of a client that proved to have this certificate: its names.
#[derive(Debug, Clone)]
pub struct Certificate(pub Arc<[String]>);

#[derive(Debug)]
struct Newcomer {
    proven: AtomicBool,
    address: IpAddr,
    /// What counts as one address.
    peer: IpAddr,
    peers: Arc<Peers>,
}

/// How many newcomers each address has.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// HTTP/1.1 and HTTP/2 with prior knowledge on one port.
pub async fn accept(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    mut on_stop: watch::Receiver<bool>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(256)
        .max_header_list_size(16 * 1024);
    let places = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::default());
    let turned_away = Throttle::default();
    // Nothing is sent: the channel closes when the last connection is gone.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            _ = on_stop.wait_for(|stop| *stop) => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((stream, peer))) = accepted else {
            // Out of file descriptors, most likely: they come back as connections end.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(proof) = peers.enter(peer.ip(), limits.newcomers) else {
            if let Some(more) = turned_away.pass(Instant::now()) {
                tracing::warn!(peer = %peer.ip(), more, "turned away a connection: its address has too many unproven");
            }
            continue;
        };
        // Small answers must not wait for more; without it they are slower, no worse.
        let _ = stream.set_nodelay(true);
        let (http, routes) = (http.clone(), routes.clone());
        let tls = tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (alive, on_stop) = (alive.clone(), on_stop.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(&http, stream, routes, proof, None, on_stop).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                        let certificate = peer.map(|peer| Certificate(tls::names(peer).into()));
                        serve(&http, stream, routes, proof, certificate, on_stop).await;
                    }
                }
            }
            drop((place, alive));
        });
    }
    drop((listener, alive));
    if timeout(DRAIN, all_gone.recv()).await.is_err() {
        tracing::warn!("requests were still in progress when time was up");
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    http: &auto::Builder<TokioExecutor>,
    stream: S,
    routes: Router,
    proof: Proof,
    certificate: Option<Certificate>,
    on_stop: watch::Receiver<bool>,
) {
    let routes = TowerToHyperService::new(routes);
    let of_request = proof.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_request.clone());
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        routes.call(request)
    });
    drive(http.serve_connection(TokioIo::new(stream), service).into_owned(), proof, on_stop).await;
}

async fn drive(connection: impl GracefulConnection, proof: Proof, mut on_stop: watch::Receiver<bool>) {
    tokio::pin!(connection);
    let stays_a_newcomer = async {
        sleep(NEWCOMER).await;
        if proof.was_given() {
            std::future::pending::<()>().await;
        }
    };
    let left = tokio::select! {
        _ = connection.as_mut() => return,
        _ = on_stop.wait_for(|stop| *stop) => DRAIN,
        () = stays_a_newcomer => LAST_REQUEST,
    };
    // An answer that is on its way still goes out.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(left, connection).await;
}

impl Proof {
    /// A request on this connection was made with our secret.
    pub fn given(&self) {
        if !self.0.proven.swap(true, Ordering::Relaxed) {
            self.0.peers.leave(self.0.peer);
        }
    }

    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    fn was_given(&self) -> bool {
        self.0.proven.load(Ordering::Relaxed)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if !*self.proven.get_mut() {
            self.peers.leave(self.peer);
        }
    }
}

impl Peers {
    fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Proof> {
        let address = peer.to_canonical();
        let peer = network_of(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Proof(Arc::new(Newcomer { proven: AtomicBool::new(false), address, peer, peers: Arc::clone(self) })))
    }

    fn leave(&self, peer: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}

/// Whoever has one IPv6 address has the other addresses of its /64 as well.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_newcomers_and_any_number_that_are_proven() {
        let peers = Arc::new(Peers::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = peers.enter(one, 2).unwrap();
        let second = peers.enter(one, 2).unwrap();
        assert!(peers.enter(one, 2).is_none());
        assert!(peers.enter("192.0.2.2".parse().unwrap(), 2).is_some());
        first.given();
        first.given();
        let third = peers.enter(one, 2).unwrap();
        assert!(peers.enter(one, 2).is_none());
        drop((first, second, third));
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let peers = Arc::new(Peers::default());
        let _first = peers.enter("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(peers.enter("2001:db8::2".parse().unwrap(), 1).is_none());
        assert!(peers.enter("2001:db8:0:1::2".parse().unwrap(), 1).is_some());
        let _mapped = peers.enter("::ffff:192.0.2.1".parse().unwrap(), 1).unwrap();
        assert!(peers.enter("192.0.2.1".parse().unwrap(), 1).is_none());
    }
}
