//! The two listeners: bound, served within limits, and shut down without dropping requests in progress.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::ServeError;
use super::metrics::Metrics;
use super::opened_store::OpenedStore;
use super::options::{Options, peers};
use super::parts::{Lasting, Parts, Senders, Tasks, open_keys, read_clients, read_keys, watch_clients};
use super::reload::{Reloader, Served, check};
use super::routes;
use super::tls::{Listener, ListenerConfig, ListenerTls};
use crate::base::connections::{self, Limits};
use crate::domain::hijack::Places;
use crate::domain::provider_events::LoadedProviders;

/// Longer than Envoy keeps an idle upstream connection (1 h): the side that closes first loses a request now and then, and
/// on this listener that would be a client's.
const DATA_IDLE: Duration = Duration::from_secs(3900);
const ADMIN_IDLE: Duration = Duration::from_secs(60);
/// How long work may take whose sender is gone, once every connection has ended. The mirror has as long again for the
/// writes that it lacks.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Both listeners bound, and the store opened; Redis was tried once.
#[derive(Debug)]
pub struct Service {
    data: Bound,
    admin: Bound,
    limits: Limits,
    store: OpenedStore,
    lasting: Arc<Lasting>,
    tasks: Arc<Tasks>,
    /// Those of the start. A reload starts its own.
    parts: Parts,
    reloader: Arc<Reloader>,
    say_end: watch::Sender<bool>,
}

/// A listener and what it serves.
#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    routes: watch::Receiver<Router>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
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
        let data_tls = ListenerTls::read_all(options.tls(), Listener::Data)?.map(ListenerConfig::of);
        let admin_tls = ListenerTls::read_all(options.admin.tls(), Listener::Admin)?.map(ListenerConfig::of);
        let metrics = Metrics::new();
        let signing = open_keys(&options, &metrics).await?;
        let clients = read_clients(&options).await?;
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
        let lasting = Lasting::new(&options, &files, (store.stores(), metrics), signing, places);
        let parts = Parts::new(&options, &files, Arc::clone(&clients), &lasting, &Senders::default())?;
        watch_clients(&options, &clients);
        let tasks = Tasks::new(&options, &lasting, &parts, providers, peers);
        let limits = Limits {
            connections: options.max_connections,
            unauthenticated_per_peer: options.max_unauthenticated_per_peer,
            idle: DATA_IDLE,
        };
        let data_routes = watch::Sender::new(routes::data(&options, &lasting, &tasks, &parts));
        let token = files.admin_token.clone();
        let admin_routes = watch::Sender::new(routes::admin(&options, token, &lasting, &tasks, &parts));
        let data_served = Served { routes: data_routes, tls: data_tls };
        let admin_served = Served { routes: admin_routes, tls: admin_tls };
        let (say_end, on_end) = watch::channel(false);
        let (lasting, tasks) = (Arc::new(lasting), Arc::new(tasks));
        let lasts = (Arc::clone(&lasting), Arc::clone(&tasks));
        let (data, admin) = (Bound::new(data, &data_served), Bound::new(admin, &admin_served));
        let senders = parts.senders();
        let reloader = Arc::new(Reloader::new(lasts, options, (data_served, admin_served), senders, on_end));
        Ok(Self { data, admin, limits, store, lasting, tasks, parts, reloader, say_end })
    }

    /// Checks the options, and that the files and keys that they name can be used. Neither binds a listener nor asks Redis. A
    /// store in a file must be there, and is not read.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn check(options: &Options) -> Result<(), ServeError> {
        check(options).await?;
        read_keys(options).await.map(drop)
    }

    /// Takes new options while the service runs.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    pub fn addresses(&self) -> Addresses {
        Addresses { listen: self.data.address, admin: self.admin.address }
    }

    /// Serves until `stop` is done. Then requests in progress may take ten seconds more, those whose senders are gone five
    /// more, and the mirror another five to get what it lacks.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { data, admin, limits, store, lasting, tasks, parts, reloader: _reloader, say_end } = self;
        let Lasting { feed, places, metrics, work, .. } = &*lasting;
        let (say_stop, on_stop) = watch::channel(false);
        let accept = |bound: Bound, idle| {
            let (closed, on_stop) = (metrics.closed_connections.clone(), on_stop.clone());
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
        let on_end = say_end.subscribe();
        // Nothing is fetched any more once the service stops.
        tasks.events.start(&on_stop, &on_end);
        feed.start(&on_end);
        tasks.regions.start(&on_stop);
        if let Some(places) = places {
            work.spawn(Arc::clone(places).watch(on_end.clone()));
        }
        parts.start(&on_end);
        // A reload takes their place.
        drop(parts);
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

impl Bound {
    fn new((listener, address): (TcpListener, SocketAddr), served: &Served) -> Self {
        let tls = served.tls.as_ref().map(ListenerConfig::subscribe);
        Self { listener, address, tls, routes: served.routes.subscribe() }
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
