//! Takes a new configuration while the service runs: all of it is checked, then what can change is replaced at once.
//!
//! Each configuration makes its own parts and its own routes. New requests go to the new routes, also on open connections;
//! requests in progress finish with the earlier ones. What lasts (the store, the feed, counters, connections, what is pending)
//! is not touched.
use std::sync::Arc;

use axum::Router;
use tokio::sync::{Mutex, watch};

use super::error::ServeError;
use super::opened_store::OpenStoreError;
use super::options::{NamedStore, Options, peers};
use super::parts::{Lasting, Parts, Senders, Tasks, read_clients, watch_clients};
use super::routes;
use super::tls::{Listener, ListenerConfig, ListenerTls};
use crate::domain::hijack::Places;
use crate::domain::provider_events::LoadedProviders;

/// What a listener serves now.
#[derive(Debug)]
pub struct Served {
    pub routes: watch::Sender<Router>,
    pub tls: Option<ListenerConfig>,
}

/// Of one running service.
#[derive(Debug)]
pub struct Reloader {
    lasting: Arc<Lasting>,
    tasks: Arc<Tasks>,
    on_end: watch::Receiver<bool>,
    state: Mutex<State>,
}

struct State {
    options: Options,
    data: Served,
    admin: Served,
    senders: Senders,
}

impl Reloader {
    pub fn new(
        (lasting, tasks): (Arc<Lasting>, Arc<Tasks>),
        options: Options,
        (data, admin): (Served, Served),
        senders: Senders,
        on_end: watch::Receiver<bool>,
    ) -> Self {
        Self { lasting, tasks, on_end, state: Mutex::new(State { options, data, admin, senders }) }
    }

    /// Replaces what can be replaced. Returns the options, of those that can change otherwise, that need a restart this time.
    ///
    /// # Errors
    /// The new options cannot be used, or not together with those that need a restart. Nothing was changed.
    pub async fn reload(&self, new: &Options) -> Result<Vec<&'static str>, ServeError> {
        let (lasting, tasks) = (&*self.lasting, &*self.tasks);
        let mut state = self.state.lock().await;
        let state = &mut *state;
        // All of it, also what waits for a restart.
        check(new).await?;
        let (options, waiting) = state.options.with_changes(new);
        options.check()?;
        let files = options.read_files()?;
        let providers = LoadedProviders::load(&files.providers)?;
        let clients = read_clients(&options).await?;
        let data_tls = ListenerTls::read_all(options.tls(), Listener::Data)?;
        let admin_tls = ListenerTls::read_all(options.admin.tls(), Listener::Admin)?;
        let parts = Parts::new(&options, &files, Arc::clone(&clients), lasting, &state.senders)?;

        // Nothing fails from here on.
        lasting.issuers.configure(options.known_issuers(&files.providers));
        tasks.reconfigure(&parts, providers);
        parts.start(&self.on_end);
        let _ = state.data.routes.send_replace(routes::data(&options, lasting, tasks, &parts));
        let _ =
            state.admin.routes.send_replace(routes::admin(&options, files.admin_token.clone(), lasting, tasks, &parts));
        for (served, tls) in [(&mut state.data, data_tls), (&mut state.admin, admin_tls)] {
            if let (Some(current), Some(read)) = (&mut served.tls, tls) {
                current.replace(read);
            }
        }
        // Only now: requests send by the new ones.
        let senders = parts.senders();
        state.senders.end_others(&senders);
        state.senders = senders;
        watch_clients(&options, &clients);
        state.options = options;
        Ok(waiting)
    }
}

/// Checks the options, and the files that they name apart from the keys of sessions.
///
/// # Errors
/// See [`ServeError`].
pub async fn check(options: &Options) -> Result<(), ServeError> {
    options.check()?;
    let files = options.read_files()?;
    match &options.store {
        // A service may be using it.
        Some(NamedStore::File(file)) if !options.create_store => {
            store_embedded::look(&file.path()).map_err(OpenStoreError::from)?;
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
        ListenerTls::read_all(tls, listener)?;
    }
    read_clients(options).await.map(drop)
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("data", &self.data).field("admin", &self.admin).finish_non_exhaustive()
    }
}
