//! Connections: accepted within limits, and left unless somebody proves in time that they are used with our secret.
//!
//! Anybody in the network can open a connection and say nothing, or say "PRI" and wait, or ask /healthz once and stay.
//! So a connection is a newcomer until it carried a request made with our secret (the filter's, or the admin's). It is
//! ended when it stays one, and one address has only so many: one more ends the oldest of them. So does one more where
//! there are too many connections in all. A proxy that connects anew asks at once and gets in, however many connections
//! are held idle. What is proven has no such bound: all proxies may come from the one address of a NAT. Whoever tells of a
//! logout has no secret of ours, so a few connections with such a request under way are not ended for others.
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::app::metrics::{MadeRoom, Metrics};
use crate::app::tls;
use crate::base::throttle::Throttle;

/// How long a connection may stay a newcomer, from its acceptance, or from the end of its TLS handshake.
const NEWCOMER: Duration = Duration::from_secs(10);
/// How long a request of a newcomer may still take then.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Requests of one newcomer that are read at once, over HTTP/2; more wait until it is proven or one of them ends.
const NEWCOMERS_REQUESTS: usize = 4;
/// What one connection may send ahead of our reading, over HTTP/2. All of a newcomer's waiting requests share it.
const WINDOW: u32 = 128 * 1024;
/// Connections that are not ended for others while a request of theirs is under way ([`Proof::keep`]): in all, and of one
/// address, which may send nothing but rubbish.
const MAX_KEPT: usize = 64;
const MAX_KEPT_OF_PEER: usize = 8;
/// How long requests in progress may take once we were told to stop.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all; one more ends the oldest newcomer, and waits where there is none.
    pub connections: usize,
    /// Newcomers from one address; one more ends the oldest of them.
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
    /// In the order of their coming.
    number: u64,
    makes_room: Notify,
    peers: Arc<Peers>,
}

/// The newcomers of each address, the oldest first.
#[derive(Debug, Default)]
struct Peers(Mutex<Newcomers>);

#[derive(Debug, Default)]
struct Newcomers {
    next: u64,
    /// Those that may be ended for others.
    by_peer: HashMap<IpAddr, BTreeMap<u64, Weak<Newcomer>>>,
    /// How many of each address may not.
    kept: HashMap<IpAddr, usize>,
}

/// A newcomer that is not ended for others as long as this lives.
#[derive(Debug)]
pub struct Kept(Arc<Newcomer>);

/// HTTP/1.1 and HTTP/2 with prior knowledge on one port.
pub async fn accept(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    metrics: Arc<Metrics>,
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
    let places = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::default());
    let turned_away = Throttle::default();
    // Nothing is sent: the channel closes when the last connection is gone.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            _ = on_stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: they come back as connections end.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (proof, made_room) = peers.enter(peer.ip(), limits.newcomers);
        if made_room {
            metrics.connection_ended(MadeRoom::OfAddress);
        }
        if made_room && let Some(more) = turned_away.pass(Instant::now()) {
            tracing::warn!(peer = %peer.ip(), more, "ended a connection: its address has too many unproven ones");
        }
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let made_room = peers.end_oldest_but(&proof);
                if made_room {
                    metrics.connection_ended(MadeRoom::OfAll);
                }
                if made_room && let Some(more) = turned_away.pass(Instant::now()) {
                    tracing::warn!(more, "ended an unproven connection: there are too many in all");
                }
                tokio::select! {
                    _ = on_stop.wait_for(|stop| *stop) => break,
                    place = Arc::clone(&places).acquire_owned() => match place {
                        Ok(place) => place,
                        Err(_) => break,
                    },
                }
            }
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
                    let handshake = async {
                        tokio::select! {
                            () = proof.0.makes_room.notified() => None,
                            stream = timeout(HANDSHAKE, tls.accept(stream)) => stream.ok()?.ok(),
                        }
                    };
                    if let Some(stream) = handshake.await {
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
    let few = Arc::new(Semaphore::new(NEWCOMERS_REQUESTS));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_request.clone());
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let (routes, proof, few) = (routes.clone(), of_request.clone(), Arc::clone(&few));
        async move {
            let _one_of_few = if proof.was_given() { None } else { few.acquire_owned().await.ok() };
            routes.call(request).await
        }
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
        () = proof.0.makes_room.notified() => return,
        _ = on_stop.wait_for(|stop| *stop) => DRAIN,
        () = stays_a_newcomer => LAST_REQUEST,
    };
    // An answer that is on its way still goes out.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(left, connection).await;
}

/// While such a request is under way, its connection is not ended for others.
pub async fn keep(Extension(proof): Extension<Proof>, request: axum::extract::Request, next: Next) -> Response {
    let _kept = proof.keep();
    next.run(request).await
}

impl Proof {
    /// A request on this connection was made with our secret.
    pub fn given(&self) {
        if !self.0.proven.swap(true, Ordering::Relaxed) {
            self.0.peers.leave(self.0.peer, self.0.number);
        }
    }

    /// Until the returned value is dropped, this connection is not ended for others. `None`: too many are kept already.
    pub fn keep(&self) -> Option<Kept> {
        let newcomer = &self.0;
        let mut all = newcomer.peers.lock();
        let of_peer = all.kept.get(&newcomer.peer).copied().unwrap_or_default();
        if of_peer >= MAX_KEPT_OF_PEER || all.kept.values().sum::<usize>() >= MAX_KEPT {
            return None;
        }
        // Not among them: it is proven, kept for another request, or about to end.
        all.take(newcomer.peer, newcomer.number)?;
        *all.kept.entry(newcomer.peer).or_default() += 1;
        Some(Kept(Arc::clone(newcomer)))
    }

    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    pub fn was_given(&self) -> bool {
        self.0.proven.load(Ordering::Relaxed)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let newcomer = &self.0;
        let mut all = newcomer.peers.lock();
        if let Some(kept) = all.kept.get_mut(&newcomer.peer) {
            *kept = kept.saturating_sub(1);
            if *kept == 0 {
                all.kept.remove(&newcomer.peer);
            }
        }
        if !newcomer.proven.load(Ordering::Relaxed) {
            all.by_peer.entry(newcomer.peer).or_default().insert(newcomer.number, Arc::downgrade(newcomer));
        }
    }
}

impl Newcomers {
    fn take(&mut self, peer: IpAddr, number: u64) -> Option<Weak<Newcomer>> {
        let own = self.by_peer.get_mut(&peer)?;
        let taken = own.remove(&number);
        if own.is_empty() {
            self.by_peer.remove(&peer);
        }
        taken
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if !*self.proven.get_mut() {
            self.peers.leave(self.peer, self.number);
        }
    }
}

impl Peers {
    /// The new one, and whether its address's oldest was ended for it.
    fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> (Proof, bool) {
        let address = peer.to_canonical();
        let peer = network_of(peer);
        let mut all = self.lock();
        let number = all.next;
        all.next += 1;
        let newcomer = Arc::new(Newcomer {
            proven: AtomicBool::new(false),
            address,
            peer,
            number,
            makes_room: Notify::new(),
            peers: Arc::clone(self),
        });
        let own = all.by_peer.entry(peer).or_default();
        let oldest = if own.len() >= most.max(1) { own.pop_first() } else { None };
        own.insert(number, Arc::downgrade(&newcomer));
        drop(all);
        // Not under the lock: the last one to let go of a newcomer takes it.
        let made_room = oldest.is_some_and(|(_, oldest)| end(&oldest));
        (Proof(newcomer), made_room)
    }

    /// Whether there was another newcomer than this one.
    fn end_oldest_but(&self, own: &Proof) -> bool {
        let oldest = {
            let mut all = self.lock();
            let oldest = all
                .by_peer
                .iter()
                .filter_map(|(peer, own)| own.first_key_value().map(|(number, _)| (*number, *peer)))
                .filter(|(number, _)| *number != own.0.number)
                .min();
            oldest.and_then(|(number, peer)| all.by_peer.get_mut(&peer)?.remove(&number))
        };
        oldest.is_some_and(|oldest| end(&oldest))
    }

    fn leave(&self, peer: IpAddr, number: u64) {
        self.lock().take(peer, number);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Newcomers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(newcomer: &Weak<Newcomer>) -> bool {
    let newcomer = newcomer.upgrade();
    newcomer.as_ref().inspect(|newcomer| newcomer.makes_room.notify_one()).is_some()
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
    fn a_kept_connection_is_not_ended_for_others_and_only_a_few_are_kept() {
        let peers = Arc::new(Peers::default());
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let first = peers.enter(address(1), 2).0;
        let kept = first.keep().unwrap();
        assert!(first.keep().is_none(), "kept once");
        let second = peers.enter(address(1), 2).0;
        let others: Vec<_> = (0..4).map(|_| peers.enter(address(1), 2).0).collect();
        assert!(!is_ended(&first) && is_ended(&second));
        while peers.end_oldest_but(&others[3]) {}
        assert!(!is_ended(&first));
        drop(kept);
        assert!(peers.end_oldest_but(&others[3]) && is_ended(&first));
        // Of one address, and in all.
        let mut many = Vec::new();
        for peer in 1..=100 {
            for _ in 0..MAX_KEPT_OF_PEER + 1 {
                let proof = peers.enter(address(peer), 1000).0;
                many.extend(proof.keep());
            }
        }
        assert_eq!(many.len(), MAX_KEPT);
        assert_eq!(many.iter().filter(|kept| kept.0.peer == address(1)).count(), MAX_KEPT_OF_PEER);
        drop(many);
        assert!(peers.lock().kept.is_empty());
    }

    fn is_ended(proof: &Proof) -> bool {
        let mut notified = std::pin::pin!(proof.0.makes_room.notified());
        notified.as_mut().enable()
    }

    #[test]
    fn one_more_newcomer_of_an_address_ends_its_oldest() {
        let peers = Arc::new(Peers::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let (first, _) = peers.enter(one, 2);
        let (second, _) = peers.enter(one, 2);
        let (other, made_room) = peers.enter("192.0.2.2".parse().unwrap(), 2);
        assert!(!made_room && !is_ended(&first));
        let (third, made_room) = peers.enter(one, 2);
        assert!(made_room && is_ended(&first) && !is_ended(&second) && !is_ended(&other));
        // What is proven takes no room, and is never ended.
        second.given();
        second.given();
        let (fourth, made_room) = peers.enter(one, 2);
        assert!(!made_room && !is_ended(&second) && !is_ended(&third));
        drop((first, second, third, fourth, other));
        assert!(peers.lock().by_peer.is_empty());
    }

    #[test]
    fn the_oldest_of_all_makes_room_and_never_the_new_one() {
        let peers = Arc::new(Peers::default());
        let (first, _) = peers.enter("192.0.2.1".parse().unwrap(), 9);
        let (second, _) = peers.enter("192.0.2.2".parse().unwrap(), 9);
        let (new, _) = peers.enter("192.0.2.1".parse().unwrap(), 9);
        assert!(peers.end_oldest_but(&new) && is_ended(&first) && !is_ended(&second));
        assert!(peers.end_oldest_but(&new) && is_ended(&second));
        assert!(!peers.end_oldest_but(&new) && !is_ended(&new));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let peers = Arc::new(Peers::default());
        let (_first, _) = peers.enter("2001:db8::1".parse().unwrap(), 1);
        let (_second, made_room) = peers.enter("2001:db8::2".parse().unwrap(), 1);
        assert!(made_room);
        assert!(!peers.enter("2001:db8:0:1::2".parse().unwrap(), 1).1);
        let (_mapped, _) = peers.enter("::ffff:192.0.2.1".parse().unwrap(), 1);
        assert!(peers.enter("192.0.2.1".parse().unwrap(), 1).1);
    }
}
