//! The task that finds the servers, round by round. A round asks every wanted server for its health and its view of the
//! others. A view that a majority confirms is trusted for [`LEASE`] from the start of the round ([`super::cluster`],
//! [`super::sentinels`]). A single server has no peers, so it is only asked for its health.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use futures_util::future::join_all;
use store::{StoreError, StoreId};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::cluster::{self, Agreement, Owner};
use super::probe::{Claim, Probe, RECHECK, probe};
use super::sentinels::{Primary, Sentinels};
use super::status::{Findings, StatusLog};
use super::{MonitorConfig, Role};
use crate::bootstrap;
use crate::connection::ConnectionError;
use crate::entry::{Bucket, Sentinel};
use crate::health::HealthError;
use crate::lease::LEASE;
use crate::options::{Address, Mode};
use crate::routes::{Route, Routes, Server};

/// The pause after a failure, while waiting for a sentinel, and between rounds if leases must be renewed.
const RETRY: Duration = Duration::from_millis(200);
/// The least time between two rounds.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// The time limit of a step if leases must be renewed: connecting, asking, reading sentinels. A round with a silent
/// server and the next round must fit into [`LEASE`].
const STEP: Duration = Duration::from_millis(400);
/// How long a single server may hold another store, or none, before its name is resolved again.
const CHANGED: Duration = Duration::from_secs(5);
const MAX_SERVERS: usize = 1000;
const USABLE: &str = "usable";

pub struct TopologyMonitor {
    config: MonitorConfig,
    authority: Authority,
    wanted: Vec<Address>,
    servers: BTreeMap<Address, Result<Probe, ConnectionError>>,
    /// The last known sentinel of each bucket. `None`: never read.
    sentinels: Vec<Option<Sentinel>>,
    /// Since when a single server holds another store.
    changed_since: Option<Instant>,
    /// Our store was seen once. It is not created again.
    was_found: bool,
    log: StatusLog,
    publish: watch::Sender<Arc<Routes>>,
    wake: Arc<Notify>,
}

/// How the primary is found.
enum Authority {
    /// By the address alone.
    Address,
    Cluster,
    Sentinels(Sentinels),
}

/// What a round found.
struct Found {
    /// One for each bucket.
    owners: Vec<Owned>,
    /// Primaries of a Cluster, with buckets or without.
    sound: Vec<Address>,
    wanted: Vec<Address>,
    /// Why there is no primary.
    no_primary: Option<String>,
}

#[derive(Clone)]
enum Owned {
    By(Address),
    /// There is one, but no majority confirms it.
    Perhaps(Address),
    Unknown,
}

impl TopologyMonitor {
    pub fn new(config: MonitorConfig, publish: watch::Sender<Arc<Routes>>, wake: Arc<Notify>) -> Self {
        let (authority, wanted) = match config.access.options.mode {
            Mode::Single => (Authority::Address, config.access.seeds.clone()),
            Mode::Cluster => (Authority::Cluster, config.access.seeds.clone()),
            Mode::Sentinel => (Authority::Sentinels(Sentinels::new(&config.access)), Vec::new()),
        };
        Self {
            config,
            authority,
            wanted,
            servers: BTreeMap::new(),
            sentinels: Bucket::all().map(|_| None).collect(),
            changed_since: None,
            was_found: false,
            log: StatusLog::default(),
            publish,
            wake,
        }
    }

    pub async fn run(mut self) {
        loop {
            let began = Instant::now();
            let found = self.round().await;
            self.read_sentinels(&found).await;
            let mut routes = self.routes(&found, began);
            if self.may_create(&routes) {
                self.create(&routes).await;
                self.read_sentinels(&found).await;
                routes = self.routes(&found, began);
            }
            let is_ready = routes.health().is_ok();
            routes.state = if is_ready { USABLE.to_owned() } else { self.findings(&found, &routes) };
            let evicted = self.probes().filter_map(|probe| probe.health.evicted).sum();
            self.log.update(self.config.role, &routes, is_ready, evicted, &*self.config.observer);
            let is_changed = routes.whole.is_err();
            self.publish.send_replace(Arc::new(routes));
            // A server that has become a primary is connected to at once.
            let is_new = found.wanted.iter().any(|address| !self.servers.contains_key(address));
            self.wanted = found.wanted;
            self.close_what_leads_elsewhere(is_changed);
            sleep(LEAST_PAUSE).await;
            if is_new {
                continue;
            }
            let pause = if !self.has_leases() && is_ready { RECHECK } else { RETRY };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn has_leases(&self) -> bool {
        !matches!(self.authority, Authority::Address)
    }

    fn step(&self) -> Duration {
        if self.has_leases() { self.config.limit.min(STEP) } else { self.config.limit }
    }

    fn probe_of(&self, address: &Address) -> Option<&Probe> {
        self.servers.get(address)?.as_ref().ok()
    }

    fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.servers.values().flatten()
    }

    /// Asks every wanted server, and the Sentinels.
    async fn round(&mut self) -> Found {
        let step = self.step();
        let (access, mode) = (&self.config.access, self.config.access.options.mode);
        self.servers.retain(|address, _| self.wanted.contains(address));
        let probing = self.wanted.iter().map(async |address| {
            let last = self.servers.get(address).and_then(|probed| probed.as_ref().ok()).cloned();
            (address.clone(), probe(access, mode, address, last, step).await)
        });
        let probing = join_all(probing);
        let (probed, primary) = match &mut self.authority {
            Authority::Sentinels(sentinels) => {
                let (probed, primary) = tokio::join!(probing, sentinels.ask(access, step));
                (probed, Some(primary))
            }
            Authority::Address | Authority::Cluster => (probing.await, None),
        };
        self.servers.extend(probed);
        match (&self.authority, primary) {
            (Authority::Address, _) => {
                let owned = self.wanted.first().cloned().map_or(Owned::Unknown, Owned::By);
                Found { owners: of_all_buckets(&owned), sound: vec![], wanted: self.wanted.clone(), no_primary: None }
            }
            (_, Some(primary)) => self.found_by_sentinels(primary),
            (_, None) => self.found_by_nodes(),
        }
    }

    fn found_by_sentinels(&self, primary: Primary) -> Found {
        let (owned, wanted, no_primary) = match primary {
            Primary::Agreed(address) => {
                let owned = match self.probe_of(&address).map(|probe| &probe.claim) {
                    Some(Claim::Primary(true)) => Owned::By(address.clone()),
                    _ => Owned::Perhaps(address.clone()),
                };
                (owned, vec![address], None)
            }
            Primary::Named(address) => (Owned::Perhaps(address.clone()), vec![address], None),
            Primary::Unknown(why) => (Owned::Unknown, self.wanted.clone(), Some(why)),
        };
        Found { owners: of_all_buckets(&owned), sound: vec![], wanted, no_primary }
    }

    fn found_by_nodes(&self) -> Found {
        let mut views = Vec::new();
        let mut addresses = BTreeMap::new();
        for (address, probed) in &self.servers {
            if let Ok(Probe { claim: Claim::View(view), .. }) = probed
                && !addresses.contains_key(&view.me)
            {
                addresses.insert(view.me.clone(), address.clone());
                views.push(view.clone());
            }
        }
        let Agreement { owners, primaries, sound } = cluster::agree(&views);
        for (id, address) in &primaries {
            addresses.entry(id.clone()).or_insert_with(|| address.clone());
        }
        let owned = |owner: &Owner| match owner {
            Owner::Agreed(id) => addresses.get(id).cloned().map_or(Owned::Unknown, Owned::By),
            Owner::Named(id) => addresses.get(id).cloned().map_or(Owned::Unknown, Owned::Perhaps),
            Owner::Unknown => Owned::Unknown,
        };
        let owners = owners.iter().map(owned).collect();
        // The seeds stay: a replica today may be the only server left tomorrow.
        let mut wanted: Vec<_> = primaries.iter().filter_map(|(id, _)| addresses.get(id).cloned()).collect();
        wanted.extend(self.config.access.seeds.iter().cloned());
        wanted.sort_unstable();
        wanted.dedup();
        wanted.truncate(MAX_SERVERS);
        let sound = sound.iter().filter_map(|id| addresses.get(id).cloned()).collect();
        Found { owners, sound, wanted, no_primary: None }
    }

    /// Reads the sentinels that are due, those of one server in one round trip.
    async fn read_sentinels(&mut self, found: &Found) {
        let step = self.step();
        let mut buckets_of: BTreeMap<&Address, Vec<Bucket>> = BTreeMap::new();
        for (bucket, owned) in Bucket::all().zip(&found.owners) {
            if let Owned::By(address) = owned {
                buckets_of.entry(address).or_default().push(bucket);
            }
        }
        let is_whole = self.whole().is_ok() && self.config.identity.id().is_some();
        let is_due = |probe: &Probe, buckets: &Vec<Bucket>| match &probe.sentinels_read {
            Some((when, read)) => !is_whole || when.elapsed() >= RECHECK || read != buckets,
            None => true,
        };
        let reading = buckets_of.into_iter().filter_map(|(address, buckets)| {
            let probe = self.probe_of(address)?;
            is_due(probe, &buckets).then(|| (address.clone(), buckets, Arc::clone(&probe.connection)))
        });
        let reading = reading.map(async |(address, buckets, connection)| {
            let read = bootstrap::read(&connection, &buckets, step).await;
            (address, buckets, read)
        });
        for (address, buckets, read) in join_all(reading).await {
            let Some(probed) = self.servers.get_mut(&address) else { continue };
            match read {
                Ok(read) => {
                    for (bucket, sentinel) in read {
                        if let Some(last) = self.sentinels.get_mut(bucket.index()) {
                            *last = Some(sentinel);
                        }
                    }
                    if let Ok(probe) = probed {
                        probe.sentinels_read = Some((Instant::now(), buckets));
                    }
                }
                Err(failure) => *probed = Err(failure),
            }
        }
        self.learn_identity();
    }

    /// The first complete store that is found is ours.
    fn learn_identity(&mut self) {
        let identity = &self.config.identity;
        let ids: Vec<StoreId> =
            self.sentinels.iter().flatten().filter_map(|sentinel| identity.usable(*sentinel)).collect();
        self.was_found |= !ids.is_empty();
        let Some(first) = ids.first() else { return };
        let all_are = self.sentinels.iter().flatten().all(|sentinel| identity.usable(*sentinel) == Some(*first));
        if all_are && identity.id().is_none() {
            match self.config.role {
                Role::Primary => tracing::info!(store = %first, "answering from this store only, until restarted"),
                Role::Mirror => tracing::info!(store = %first, "mirroring to this store only, until restarted"),
            }
            identity.set(*first);
        }
    }

    /// True when every sentinel that was read is present and of our store.
    fn whole(&self) -> Result<(), StoreError> {
        match self.sentinels.iter().flatten().all(|sentinel| self.config.identity.is_ours(*sentinel)) {
            true => Ok(()),
            false => Err(StoreError::StoreChanged),
        }
    }

    fn routes(&mut self, found: &Found, began: Instant) -> Routes {
        let last = Arc::clone(&self.publish.borrow());
        let until = self.has_leases().then(|| began + LEASE);
        let mut servers: Vec<Server> = Vec::new();
        let mut indexes: BTreeMap<&Address, usize> = BTreeMap::new();
        for (address, probed) in &self.servers {
            if let Ok(probe) = probed {
                indexes.insert(address, servers.len());
                servers.push(Server {
                    address: address.clone(),
                    connection: Arc::clone(&probe.connection),
                    health: probe.health.judge(self.config.allow),
                    sound_until: until.filter(|_| found.sound.contains(address)),
                });
            }
        }
        let route = |(bucket, owned): (Bucket, &Owned)| {
            let (address, is_agreed) = match owned {
                Owned::By(address) => (address, true),
                Owned::Perhaps(address) => (address, false),
                Owned::Unknown => return Route::Nowhere(StoreError::StoreRefused),
            };
            let server = match (indexes.get(address), self.servers.get(address)) {
                (Some(server), _) => *server,
                (None, Some(Err(failure))) => return Route::Nowhere(failure.error),
                (None, _) => return Route::Nowhere(StoreError::StoreRefused),
            };
            if is_agreed {
                return Route::To { server, until };
            }
            // An earlier agreement holds until its lease ends, if the same server is still named.
            let was = last.to(bucket).ok().and_then(|was| last.servers.get(was));
            let is_same =
                was.zip(servers.get(server)).is_some_and(|(was, now)| Arc::ptr_eq(&was.connection, &now.connection));
            match last.buckets.get(bucket.index()) {
                Some(Route::To { until, .. }) if is_same => Route::To { server, until: *until },
                _ => Route::Nowhere(StoreError::StoreUnsafe),
            }
        };
        let buckets = Bucket::all().zip(&found.owners).map(route).collect();
        let one_keyspace = !matches!(self.authority, Authority::Cluster);
        let (number, epoch, whole) = (last.number + 1, last.epoch, self.whole());
        let mut routes = Routes { number, epoch, servers, buckets, whole, one_keyspace, state: String::new() };
        routes.epoch += u64::from(routes.may_lack(&last));
        routes
    }

    /// A known store that lost its sentinels is never created again: that would mean that nothing is revoked.
    fn may_create(&self, routes: &Routes) -> bool {
        let is_healthy = |bucket| {
            let server = routes.to(bucket).ok().and_then(|to| routes.servers.get(to));
            server.is_some_and(|server| server.health.is_ok())
        };
        self.config.create
            && !self.was_found
            && self.sentinels.iter().all(|seen| matches!(seen, Some(Sentinel::Missing | Sentinel::New(_))))
            && Bucket::all().all(is_healthy)
    }

    async fn create(&mut self, routes: &Routes) {
        match bootstrap::complete(routes, None, self.step()).await {
            Ok(id) => tracing::warn!(
                store = %id,
                "made a new store, since --create-store is given and there was none: revocations made before are gone if \
                 this store is not new"
            ),
            Err(error) => tracing::warn!(%error, "the store could not be created"),
        }
        for probe in self.servers.values_mut().flatten() {
            probe.sentinels_read = None;
        }
    }

    /// All that is wrong, for an operator.
    fn findings(&self, found: &Found, routes: &Routes) -> String {
        let is_asked =
            |address: &Address| found.owners.iter().any(|owned| matches!(owned, Owned::By(owner) if owner == address));
        let findings = Findings {
            servers: &self.servers,
            allow: self.config.allow,
            is_asked: &is_asked,
            no_primary: found.no_primary.as_deref(),
            sentinels: &self.sentinels,
            has_leases: self.has_leases(),
        };
        findings.describe(routes)
    }

    /// The name of a single server may now resolve to another one. An open connection cannot change servers.
    fn close_what_leads_elsewhere(&mut self, is_changed: bool) {
        if self.has_leases() {
            return;
        }
        let since = is_changed.then(|| *self.changed_since.get_or_insert_with(Instant::now));
        let is_stale = since.is_some_and(|since| since.elapsed() > CHANGED);
        for probe in self.probes() {
            let is_replica = probe.health.judge(self.config.allow) == Err(HealthError::Replica);
            if is_replica || is_stale {
                probe.connection.close(if is_replica { StoreError::StoreUnsafe } else { StoreError::StoreChanged });
            }
        }
        self.changed_since = since.filter(|_| !is_stale);
    }
}

fn of_all_buckets(owned: &Owned) -> Vec<Owned> {
    vec![owned.clone(); Bucket::all().count()]
}

/// Within a quarter of `pause`, so that many services do not ask at the same time.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness they ask in step, which does no harm.
    let _ = rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.75 + f64::from(byte) / 512.0)
}
