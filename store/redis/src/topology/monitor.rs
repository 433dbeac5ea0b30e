//! Keeps connections to the servers that may be asked, and says which of them has which bucket. One task; requests use
//! what it says and never wait for a connection, so a Redis that is gone costs them nothing.
//!
//! It works in rounds. A round asks every server that is wanted who it is and what it knows of the others; what more
//! than half of them confirm counts for [`LEASE`] from the round's begin ([`super::topology`], [`super::sentinels`]). A
//! single server has nobody beside it and is asked for its state only.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Pin;
use super::connect::{Failure, Wire, failed, pipeline};
use super::create;
use super::entry::{Bucket, Sentinel};
use super::redis_options::{Access, Address, Mode, Whom};
use super::routes::{LEASE, LEAST_PATIENCE, Member, Route, Routes};
use super::sentinels::{Primary, Sentinels};
use super::standing::{Allow, Standing, Unfit};
use super::topology::{self, Agreement, Owner, View};
use store::{Observer, StoreError, StoreId};

/// How often a server's state and sentinels are read: its policy and role can change at any time.
const RECHECK: Duration = Duration::from_secs(2);
/// How long to wait after a failure, or for a sentinel to appear; and between rounds where leases are to be renewed.
const RETRY: Duration = Duration::from_millis(200);
/// The least time between two rounds, whoever asks for one.
const BREATH: Duration = Duration::from_millis(20);
/// The most that a step of a round takes where leases are to be renewed: connecting, asking, reading sentinels. A round
/// with a silent server and the next must fit into [`LEASE`].
const STEP: Duration = Duration::from_millis(400);
/// How long a single server may hold another store, or none, before its name is resolved again.
const CHANGED: Duration = Duration::from_secs(5);
/// The most servers of one Cluster.
const MOST: usize = 1000;
const USABLE: &str = "usable";

/// What a keeper is to keep.
pub struct Orders {
    pub access: Access,
    pub allow: Allow,
    pub limit: Duration,
    pub pin: Pin,
    /// Make the store if there is none.
    pub create: bool,
    pub role: Role,
    pub observer: Arc<dyn Observer>,
}

/// What the store is to us, for log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answered from.
    Ours,
    /// Of `--redis-also`: written to.
    Also,
}

/// What a keeper says, and how it is woken.
#[derive(Debug)]
pub struct Kept {
    pub routes: watch::Receiver<Arc<Routes>>,
    pub wake: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// Returns when the first round is over, well or not.
pub async fn keep(orders: Orders) -> Kept {
    let (say, mut routes) = watch::channel(Arc::new(Routes::none(StoreError::StoreRefused)));
    routes.mark_unchanged();
    let wake = Arc::new(Notify::new());
    let authority = match orders.access.options.mode {
        Mode::Single => Authority::Nobody,
        Mode::Cluster => Authority::Cluster,
        Mode::Sentinel => Authority::Sentinels(Sentinels::new(&orders.access)),
    };
    let wanted = match authority {
        Authority::Sentinels(_) => Vec::new(),
        Authority::Nobody | Authority::Cluster => orders.access.seeds.clone(),
    };
    let keeper = Keeper {
        orders,
        authority,
        wanted,
        links: BTreeMap::new(),
        sentinels: Bucket::all().map(|_| None).collect(),
        changed_since: None,
        settled: false,
        said: None,
        say,
        wake: Arc::clone(&wake),
    };
    let task = tokio::spawn(keeper.run());
    // An error would mean that the keeper ended, and it does not.
    let _ = routes.changed().await;
    Kept { routes, wake, task }
}

impl Kept {
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    /// Waits for routes that were made after `number`, for no longer than `limit`.
    pub async fn newer(&self, number: u64, limit: Duration) -> Option<Arc<Routes>> {
        self.wake.notify_one();
        let mut routes = self.routes.clone();
        let newer = timeout(limit, routes.wait_for(|routes| routes.number > number)).await;
        newer.ok()?.ok().map(|routes| Arc::clone(&routes))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who says which server is the primary.
enum Authority {
    /// The address leads to it, or does not.
    Nobody,
    Cluster,
    Sentinels(Sentinels),
}

struct Keeper {
    orders: Orders,
    authority: Authority,
    wanted: Vec<Address>,
    links: BTreeMap<Address, Link>,
    /// What each bucket's sentinel was when it was last read; `None`: never.
    sentinels: Vec<Option<Sentinel>>,
    /// A single server holds another store since then.
    changed_since: Option<Instant>,
    /// Our store was there once, and is not made again.
    settled: bool,
    /// What was logged last, so that only changes are.
    said: Option<String>,
    say: watch::Sender<Arc<Routes>>,
    wake: Arc<Notify>,
}

/// A server that is wanted.
struct Link {
    up: Result<Up, Failure>,
}

#[derive(Clone)]
struct Up {
    wire: Arc<Wire>,
    standing: Standing,
    /// When its state was read.
    judged: Instant,
    /// When the sentinels of its buckets were read, and of which.
    read: Option<(Instant, Vec<Bucket>)>,
    claim: Claim,
}

/// What a server says of its own part.
#[derive(Clone)]
enum Claim {
    Nothing,
    View(View),
    Primary(bool),
}

/// What a round found of who has what.
struct Found {
    owners: Vec<Owned>,
    /// Primaries of a Cluster, with buckets or without.
    sound: Vec<Address>,
    wanted: Vec<Address>,
    /// Why nobody can be named, if so.
    why: Option<String>,
}

#[derive(Clone)]
enum Owned {
    By(Address),
    /// By hearsay.
    Perhaps(Address),
    Nobody,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let found = self.round().await;
            self.read_sentinels(&found).await;
            let mut routes = self.routes(&found, began);
            if self.may_create(&routes) {
                match create::complete(&routes, None, self.step()).await {
                    Ok(id) => tracing::warn!(
                        store = %id,
                        "made a new store, since --create-store is given and there was none: revocations made before \
                         are gone if this store is not new"
                    ),
                    Err(error) => tracing::warn!(%error, "the store could not be made"),
                }
                self.forget_sentinels();
                self.read_sentinels(&found).await;
                routes = self.routes(&found, began);
            }
            let is_well = routes.standing().is_ok();
            routes.state = if is_well { USABLE.to_owned() } else { self.state(&routes, &found) };
            self.log(&routes.state, is_well);
            let is_changed = routes.whole.is_err();
            self.say.send_replace(Arc::new(routes));
            // One that has become a primary is connected to at once.
            let is_new = found.wanted.iter().any(|address| !self.links.contains_key(address));
            self.wanted = found.wanted;
            self.leave_what_leads_elsewhere(is_changed);
            sleep(BREATH).await;
            if is_new {
                continue;
            }
            let is_single = matches!(self.authority, Authority::Nobody);
            let pause = if is_single && is_well { RECHECK } else { RETRY };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// The most that one step may take.
    fn step(&self) -> Duration {
        match self.authority {
            Authority::Nobody => self.orders.limit,
            Authority::Cluster | Authority::Sentinels(_) => self.orders.limit.min(STEP),
        }
    }

    /// Asks every wanted server, and the authority.
    async fn round(&mut self) -> Found {
        let step = self.step();
        let (access, mode) = (&self.orders.access, self.orders.access.options.mode);
        self.links.retain(|address, _| self.wanted.contains(address));
        let asking = self.wanted.iter().map(async |address| {
            let up = self.links.get(address).and_then(|link| link.up.as_ref().ok()).cloned();
            (address.clone(), Link { up: ask(access, mode, address, up, step).await })
        });
        let asking = join_all(asking);
        let (links, primary) = match &mut self.authority {
            Authority::Sentinels(sentinels) => {
                let (links, primary) = tokio::join!(asking, sentinels.ask(access, step));
                (links, Some(primary))
            }
            Authority::Nobody | Authority::Cluster => (asking.await, None),
        };
        self.links.extend(links);
        match (&self.authority, primary) {
            (Authority::Nobody, _) => {
                let address = self.wanted.first().cloned();
                let owned = address.map_or(Owned::Nobody, Owned::By);
                let owners = vec![owned; Bucket::all().count()];
                Found { owners, sound: Vec::new(), wanted: self.wanted.clone(), why: None }
            }
            (_, Some(primary)) => self.found_by_sentinels(primary),
            (_, None) => self.found_by_nodes(),
        }
    }

    fn found_by_sentinels(&self, primary: Primary) -> Found {
        let (owned, wanted, why) = match primary {
            Primary::Agreed(address) => {
                let claim = self.links.get(&address).and_then(|link| link.up.as_ref().ok()).map(|up| &up.claim);
                let owned = match claim {
                    Some(Claim::Primary(true)) => Owned::By(address.clone()),
                    _ => Owned::Perhaps(address.clone()),
                };
                (owned, vec![address], None)
            }
            Primary::Named(address) => (Owned::Perhaps(address.clone()), vec![address], None),
            Primary::Nobody(why) => (Owned::Nobody, self.wanted.clone(), Some(why)),
        };
        Found { owners: vec![owned; Bucket::all().count()], sound: Vec::new(), wanted, why }
    }

    fn found_by_nodes(&self) -> Found {
        let mut views = Vec::new();
        let mut places = BTreeMap::new();
        for (address, link) in &self.links {
            if let Ok(Up { claim: Claim::View(view), .. }) = &link.up
                && !places.contains_key(&view.me)
            {
                places.insert(view.me.clone(), address.clone());
                views.push(view.clone());
            }
        }
        let Agreement { owners, primaries, sound } = topology::agree(&views);
        for (id, address) in &primaries {
            places.entry(id.clone()).or_insert_with(|| address.clone());
        }
        let owned = |owner: &Owner| match owner {
            Owner::Agreed(id) => places.get(id).cloned().map_or(Owned::Nobody, Owned::By),
            Owner::Named(id) => places.get(id).cloned().map_or(Owned::Nobody, Owned::Perhaps),
            Owner::Nobody => Owned::Nobody,
        };
        let owners: Vec<_> = owners.iter().map(owned).collect();
        // The seeds stay: whoever of them is a replica today may be all that is left tomorrow.
        let mut wanted: Vec<_> = primaries.iter().filter_map(|(id, _)| places.get(id).cloned()).collect();
        wanted.extend(self.orders.access.seeds.iter().cloned());
        wanted.sort_unstable();
        wanted.dedup();
        wanted.truncate(MOST);
        let sound = sound.iter().filter_map(|id| places.get(id).cloned()).collect();
        Found { owners, sound, wanted, why: None }
    }

    /// Reads what has become due, each server's in one round trip.
    async fn read_sentinels(&mut self, found: &Found) {
        let step = self.step();
        let mut of: BTreeMap<&Address, Vec<Bucket>> = BTreeMap::new();
        for (bucket, owned) in Bucket::all().zip(&found.owners) {
            if let Owned::By(address) = owned {
                of.entry(address).or_default().push(bucket);
            }
        }
        let is_whole = self.whole().is_ok() && self.orders.pin.id().is_some();
        let due = |up: &Up, buckets: &Vec<Bucket>| match &up.read {
            Some((when, read)) => !is_whole || when.elapsed() >= RECHECK || read != buckets,
            None => true,
        };
        let reading = of.into_iter().filter_map(|(address, buckets)| {
            let up = self.links.get(address)?.up.as_ref().ok()?;
            due(up, &buckets).then(|| (address.clone(), buckets, Arc::clone(&up.wire)))
        });
        let reading = reading.map(async |(address, buckets, wire)| {
            let read = create::read(&wire, &buckets, step).await;
            (address, buckets, read)
        });
        for (address, buckets, read) in join_all(reading).await {
            let Some(link) = self.links.get_mut(&address) else { continue };
            match read {
                Ok(read) => {
                    for (bucket, sentinel) in read {
                        if let Some(kept) = self.sentinels.get_mut(bucket.place()) {
                            *kept = Some(sentinel);
                        }
                    }
                    if let Ok(up) = &mut link.up {
                        up.read = Some((Instant::now(), buckets));
                    }
                }
                Err(failure) => link.up = Err(failure),
            }
        }
        self.learn();
    }

    fn forget_sentinels(&mut self) {
        for link in self.links.values_mut() {
            if let Ok(up) = &mut link.up {
                up.read = None;
            }
        }
    }

    /// The first whole store that is found is ours.
    fn learn(&mut self) {
        let ids = self.sentinels.iter().flatten().filter_map(|sentinel| self.orders.pin.usable(*sentinel));
        let ids: Vec<StoreId> = ids.collect();
        self.settled |= !ids.is_empty();
        let Some(first) = ids.first() else { return };
        let all_are = self.sentinels.iter().flatten().all(|sentinel| self.orders.pin.usable(*sentinel) == Some(*first));
        if all_are && self.orders.pin.id().is_none() {
            match self.orders.role {
                Role::Ours => tracing::info!(store = %first, "answering from this store only, until restarted"),
                Role::Also => tracing::info!(store = %first, "writing to this store also, until restarted"),
            }
            self.orders.pin.set(*first);
        }
    }

    /// Whether no sentinel that was read is missing or another's.
    fn whole(&self) -> Result<(), StoreError> {
        match self.sentinels.iter().flatten().all(|sentinel| self.orders.pin.takes(*sentinel)) {
            true => Ok(()),
            false => Err(StoreError::StoreChanged),
        }
    }

    fn routes(&mut self, found: &Found, began: Instant) -> Routes {
        let before = Arc::clone(&self.say.borrow());
        let until = match self.authority {
            Authority::Nobody => None,
            Authority::Cluster | Authority::Sentinels(_) => Some(began + LEASE),
        };
        let mut members: Vec<Member> = Vec::new();
        let mut places: BTreeMap<&Address, usize> = BTreeMap::new();
        for (address, link) in &self.links {
            if let Ok(up) = &link.up {
                places.insert(address, members.len());
                members.push(Member {
                    address: address.clone(),
                    wire: Arc::clone(&up.wire),
                    fit: up.standing.judge(self.orders.allow),
                    sound_until: until.filter(|_| found.sound.contains(address)),
                });
            }
        }
        let route = |(bucket, owned): (Bucket, &Owned)| {
            let (address, agreed) = match owned {
                Owned::By(address) => (address, true),
                Owned::Perhaps(address) => (address, false),
                Owned::Nobody => return Route::Nowhere(StoreError::StoreRefused),
            };
            let member = match (places.get(address), self.links.get(address)) {
                (Some(member), _) => *member,
                (None, Some(Link { up: Err(failure) })) => return Route::Nowhere(failure.trouble),
                (None, _) => return Route::Nowhere(StoreError::StoreRefused),
            };
            if agreed {
                return Route::To { member, until };
            }
            // What was agreed on before holds as long as it was to hold, if it is still this server that is named.
            let was = before.to(bucket).ok().and_then(|was| before.members.get(was));
            let is_same = was.zip(members.get(member)).is_some_and(|(was, now)| Arc::ptr_eq(&was.wire, &now.wire));
            match before.buckets.get(bucket.place()) {
                Some(Route::To { until, .. }) if is_same => Route::To { member, until: *until },
                _ => Route::Nowhere(StoreError::StoreUnsafe),
            }
        };
        let buckets = Bucket::all().zip(&found.owners).map(route).collect();
        let one_keyspace = !matches!(self.authority, Authority::Cluster);
        let state = String::new();
        Routes { number: before.number + 1, members, buckets, whole: self.whole(), one_keyspace, state }
    }

    /// A store that we knew and that lost its sentinels is never made again by us: that would say "nobody revoked".
    fn may_create(&self, routes: &Routes) -> bool {
        let is_fit = |bucket| {
            let member = routes.to(bucket).ok().and_then(|to| routes.members.get(to));
            member.is_some_and(|member| member.fit.is_ok())
        };
        self.orders.create
            && !self.settled
            && self.sentinels.iter().all(|seen| matches!(seen, Some(Sentinel::Missing | Sentinel::New(_))))
            && Bucket::all().all(is_fit)
    }

    fn state(&self, routes: &Routes, found: &Found) -> String {
        let mut parts = Vec::new();
        for (address, link) in &self.links {
            match &link.up {
                Err(failure) => parts.push(format!("{}: {address}: {}", failure.trouble.name(), failure.why)),
                Ok(up) => {
                    if let Err(unfit) = up.standing.judge(self.orders.allow)
                        && self.is_asked(address, found)
                    {
                        parts.push(format!("{}: {address}: {unfit}", StoreError::StoreUnsafe.name()));
                    }
                }
            }
        }
        parts.extend(found.why.clone());
        let count = |wanted: fn(&Sentinel) -> bool| self.sentinels.iter().flatten().filter(|seen| wanted(seen)).count();
        let missing = count(|seen| matches!(seen, Sentinel::Missing));
        let new = count(|seen| matches!(seen, Sentinel::New(_)));
        let filling = count(|seen| matches!(seen, Sentinel::Filling(_)));
        if routes.whole.is_err() {
            let all = self.sentinels.len();
            let what = match (missing, new) {
                _ if filling > 0 => "the store is still being filled from another: `portcullis migrate` completes it \
                                     once it has verified it; until then only `--redis-also` may name it"
                    .to_owned(),
                (0, 0) => "a sentinel is another store's. This service answers from the store that it found first, or that \
                           `--store-id` names, and from no other. If the store was made anew on purpose, restart every \
                           service"
                    .to_owned(),
                (missing, 0) if missing < all => format!(
                    "{missing} of {all} sentinels are missing: a part of the store was lost, and revocations with it; \
                     restore it first"
                ),
                (_, 0) => {
                    "no sentinel. If this store is meant to be new, make it with `portcullis store create`, and restart \
                     the services that answered from another one before; else revocations were lost, restore them first"
                        .to_owned()
                }
                _ => "the store was not made to the end; do it with `portcullis store create`".to_owned(),
            };
            parts.push(format!("{}: {what}", StoreError::StoreChanged.name()));
        }
        let lost = Bucket::all().filter(|bucket| routes.to(*bucket).is_err()).count();
        if lost > 0 && !matches!(self.authority, Authority::Nobody) {
            parts.push(format!("{lost} of {} buckets have no confirmed primary", Bucket::all().count()));
        }
        parts.join("; ")
    }

    fn is_asked(&self, address: &Address, found: &Found) -> bool {
        found.owners.iter().any(|owned| matches!(owned, Owned::By(owner) if owner == address))
    }

    /// A single server's name may lead to another by now; its connection never does.
    fn leave_what_leads_elsewhere(&mut self, is_changed: bool) {
        if !matches!(self.authority, Authority::Nobody) {
            return;
        }
        let since = is_changed.then(|| *self.changed_since.get_or_insert_with(Instant::now));
        self.changed_since = since;
        let is_stale = since.is_some_and(|since| since.elapsed() > CHANGED);
        for link in self.links.values_mut() {
            let Ok(up) = &link.up else { continue };
            let is_replica = up.standing.judge(self.orders.allow) == Err(Unfit::Replica);
            if is_replica || is_stale {
                let trouble = if is_replica { StoreError::StoreUnsafe } else { StoreError::StoreChanged };
                up.wire.leave(trouble);
            }
        }
        if is_stale {
            self.changed_since = None;
        }
    }

    fn log(&mut self, state: &str, ready: bool) {
        let observer = &self.orders.observer;
        match self.orders.role {
            Role::Ours => {
                observer.ready(ready);
                let evicted = self.links.values().filter_map(|link| link.up.as_ref().ok()?.standing.evicted);
                observer.evicted(evicted.sum());
            }
            Role::Also => observer.mirror_ready(ready),
        }
        if self.said.as_deref() == Some(state) {
            return;
        }
        match (self.orders.role, ready) {
            (Role::Ours, true) => tracing::info!(state, "store"),
            (Role::Ours, false) => tracing::warn!(state, "store"),
            (Role::Also, true) => tracing::info!(state, "the other store (redis-also)"),
            (Role::Also, false) => tracing::warn!(state, "the other store (redis-also): writes are not acknowledged"),
        }
        self.said = Some(state.to_owned());
    }
}

/// Connects if need be, and asks what the server says of itself.
async fn ask(access: &Access, mode: Mode, address: &Address, up: Option<Up>, limit: Duration) -> Result<Up, Failure> {
    let asking = async {
        // Each connection resolves the name again: it may lead to another server since.
        let (wire, known) = match up.filter(|up| up.wire.left().is_none()) {
            Some(up) => (Arc::clone(&up.wire), Some(up)),
            None => (Arc::new(Wire::open(access, address, Whom::Redis, limit).await?), None),
        };
        let known = known.filter(|up| mode != Mode::Single && up.judged.elapsed() < RECHECK);
        let mut asks = pipeline();
        match mode {
            Mode::Single => {}
            Mode::Cluster => {
                asks.cmd("CLUSTER").arg("NODES");
                asks.cmd("TIME");
            }
            Mode::Sentinel => {
                asks.cmd("ROLE");
            }
        }
        if known.is_none() {
            asks.cmd("INFO");
            if mode == Mode::Cluster {
                asks.cmd("CONFIG").arg("GET").arg("cluster-node-timeout");
            }
        }
        let asked = Instant::now();
        // Of the server, in Unix milliseconds, where it is asked.
        let mut now = 0;
        let mut replies = wire.ask(&asks, limit).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| failed(&"no reply"))?.map_err(Failure::from);
        let mut claim = match mode {
            Mode::Single => Claim::Nothing,
            Mode::Cluster => {
                let nodes: String = redis::from_redis_value(next()?).map_err(|error| failed(&error))?;
                let (seconds, micros): (u64, u64) = redis::from_redis_value(next()?).map_err(|error| failed(&error))?;
                now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
                Claim::View(View::parse(&nodes, address).ok_or_else(|| failed(&"CLUSTER NODES is not understood"))?)
            }
            Mode::Sentinel => {
                let role: Vec<redis::Value> = redis::from_redis_value(next()?).map_err(|error| failed(&error))?;
                let word = role.into_iter().next().and_then(|word| redis::from_redis_value::<String>(word).ok());
                Claim::Primary(word.as_deref() == Some("master"))
            }
        };
        // Managed servers may not say it; then it is taken for the least.
        let mut doubt = |patience: Option<Duration>| {
            if let Claim::View(view) = &mut claim {
                view.doubt_the_silent(now, patience.unwrap_or(LEAST_PATIENCE));
            }
        };
        if let Some(known) = known {
            doubt(known.standing.patience);
            return Ok(Up { claim, ..known });
        }
        let info: String = redis::from_redis_value(next()?).map_err(|error| failed(&error))?;
        let mut standing = Standing::parse(&info);
        if standing.version.is_none() && standing.role.is_none() {
            return Err(failed(&"INFO is not understood"));
        }
        if mode == Mode::Cluster {
            // Managed servers may refuse; then the operator's word must do.
            standing.patience = next().ok().and_then(|reply| {
                let config: BTreeMap<String, u64> = redis::from_redis_value(reply).ok()?;
                config.into_values().next().map(Duration::from_millis)
            });
        }
        doubt(standing.patience);
        Ok(Up { wire, standing, judged: asked, read: None, claim })
    };
    match timeout(limit, asking).await {
        Ok(asked) => asked,
        Err(_) => Err(Failure { trouble: StoreError::StoreSlow, why: format!("no answer within {limit:?}") }),
    }
}

/// Within a quarter of `pause`, so that many services do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness they ask in step, and no harm is done.
    let _ = rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.75 + f64::from(byte) / 512.0)
}
