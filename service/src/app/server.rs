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
use tokio_util::task::TaskTracker;

use crate::app::metrics::Metrics;
use crate::app::opened_store::{OpenStoreError, OpenedStore};
use crate::app::options::Options;
use crate::app::parts::{Loaded, Parts, open_keys, peers, read_keys};
use crate::app::routes::{admin_routes, data_routes};
pub use crate::app::serve_error::ServeError;
use crate::app::tls::Listener;
use crate::base::connections::{self, Limits};
use crate::base::metrics::Counters;
use crate::domain::feed::Feed;
use crate::domain::hijack::{Hijack, Places};
use crate::domain::provider_events::{LoadedProviders, ProviderEvents};
use crate::domain::regions::Regions;

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
            Some(file) if !options.create_store => store_embedded::look(&file.path()).map_err(OpenStoreError::from)?,
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
