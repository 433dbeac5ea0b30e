//! Copies a store to another while services write to both, verifies it, and only then declares the other one complete.
//!
//! It keeps no notes: what is there already is compared and left, so a run that was broken off is simply run again
//! (docs/decisions/0041). It holds one page of names at a time.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contents::{Found, Kind, Name, PATTERN, State};
use super::create::{self, CreateError, reached};
use super::entry::Sentinel;
use super::keeper::{self, Kept, Orders, Role};
use super::reader::Reader;
use super::redis_options::{Address, Mode, RedisOptions, RedisOptionsError};
use super::routes::Member;
use super::standing::Allow;
use super::transfer::{AUDIT_PAGE, AuditRange, Transfer, audit_page, states};
use super::writer::{Terms, Writer};
use super::{AUDIT_ENTRIES, Pin};
use store::{Observer, StoreError, StoreId, Unobserved, WriteError};

/// Names that SCAN is asked for at once; it may give some more.
const PAGE: usize = 1000;
/// A run waits for as many differences that stay, each for as long as it was told to; then for none.
const PATIENCE: u32 = 6;
const POLL: Duration = Duration::from_millis(100);
/// Sessions keep times of their server's clock, so the clocks must not differ by more.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);
/// The most names that a report tells.
const MAX_TOLD: usize = 20;
/// The most characters of a name in it.
const MAX_TOLD_NAME: usize = 200;
/// Revocations of the other store alone that are looked at twice; more are counted as they are found.
const MAX_LONE: usize = 1000;
/// How far from its place in the source an audit entry is looked for.
const AUDIT_LATE_MILLIS: u64 = 10_000;
/// What is about to expire need not be on both sides.
const ABOUT_TO_EXPIRE_MILLIS: i64 = 5000;

/// What is to be copied where.
#[derive(Debug, Clone)]
pub struct Migration {
    pub from: RedisOptions,
    pub to: RedisOptions,
    /// Bounds connecting and each round trip.
    pub redis_timeout: Duration,
    /// Bounds the wait for what was written to be on disk and on replicas.
    pub confirm_timeout: Duration,
    pub min_replicas: u32,
    pub require_disk: bool,
    pub allow: Allow,
    /// Must be given if the other store is complete already, as its owner's word that it is the one that is meant.
    pub to_store_id: Option<StoreId>,
    /// How long a difference may last before it counts: a service has written to one store and is about to write to the
    /// other.
    pub settle: Duration,
    /// Compare, and write nothing.
    pub verify_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub verifying: bool,
    pub seen: u64,
    /// About: names of others in the same Redis are counted too.
    pub of: u64,
}

/// What was found of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub found: u64,
    /// Of those, copied by this run; the others were there.
    pub copied: u64,
    /// Missing, weaker, older or shorter-lived in the other store when it was verified.
    pub differing: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub from: StoreId,
    pub to: StoreId,
    /// By what it is, as [`Kind::name`] says.
    pub tallies: Vec<(&'static str, Tally)>,
    /// Names that are none of ours, or whose content is not; they were not copied.
    pub strange: u64,
    /// Revocations that only the other store has: they were lifted while they were copied, and hold there.
    pub lone: u64,
    /// Some of the names that differ, are strange or alone.
    pub told: Vec<String>,
    /// The other store may be answered from.
    pub complete: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("for `{0}`")]
    Options(&'static str, #[source] RedisOptionsError),
    #[error("`{0}` cannot be used: {1}")]
    Unusable(&'static str, String),
    #[error("`{0}`: {name}", name = .1.name())]
    StoreError(&'static str, StoreError),
    #[error(
        "`to` is not prepared: `portcullis migrate --prepare`, then restart the services with `--redis-also`, then this"
    )]
    NotPrepared,
    #[error("`to` holds something that is no store to be filled: {0}")]
    Foreign(String),
    #[error(
        "`to` is the complete store {0} already; if that is the one that is meant, say so with `--to-store-id {0}`"
    )]
    Complete(StoreId),
    #[error("`to` is the store {0}, and not the one of `--to-store-id`")]
    Another(StoreId),
    #[error("`from` and `to` are one store, {0}")]
    Same(StoreId),
    #[error("the clocks of the servers differ by {0} s, and sessions keep times: synchronise them first")]
    Clocks(u64),
    #[error("`{0}`: slots moved between its servers while it was read: run it again when they are in place")]
    Moved(&'static str),
    #[error("`to`: {0}")]
    Write(WriteError),
    #[error("`to` was verified, and could not be declared complete: {0}; run it again")]
    Finish(CreateError),
}

const FROM: &str = "from";
const TO: &str = "to";

impl MigrateError {
    /// Trying again may help, nothing was refused.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unusable(..) | Self::StoreError(..) | Self::Moved(_) | Self::Write(_) | Self::Finish(_))
    }
}

impl Report {
    pub fn is_verified(&self) -> bool {
        self.strange == 0 && self.tallies.iter().all(|(_, tally)| tally.differing == 0)
    }
}

/// Copies, verifies, and declares the other store complete if nothing differs. Whoever drops this breaks it off; it is
/// run again from the start, which is quick over what is there.
///
/// # Errors
/// See [`MigrateError`]. A difference is none: [`Report::is_verified`].
pub async fn migrate(plan: &Migration, say: impl Fn(Progress)) -> Result<Report, MigrateError> {
    let mut run = Run::open(plan, &say).await?;
    if !plan.verify_only {
        run.pass(Step::Copy).await?;
        run.copy_audit().await?;
    }
    run.pass(Step::Verify).await?;
    run.verify_audit().await?;
    run.find_lone().await?;
    let mut report = run.report();
    report.complete = run.is_complete;
    if !plan.verify_only && !run.is_complete && report.is_verified() {
        let routes = run.transfer.there.kept.routes();
        create::finish(&routes, run.to, plan.redis_timeout).await.map_err(MigrateError::Finish)?;
        report.complete = true;
    }
    Ok(report)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Copy,
    Verify,
}

struct Run<'a> {
    plan: &'a Migration,
    say: &'a dyn Fn(Progress),
    transfer: Transfer,
    from: StoreId,
    to: StoreId,
    is_complete: bool,
    tallies: BTreeMap<Kind, Tally>,
    strange: HashSet<String>,
    more_strange: u64,
    lone: u64,
    told: Vec<String>,
    patience: u32,
}

impl<'a> Run<'a> {
    async fn open(plan: &'a Migration, say: &'a dyn Fn(Progress)) -> Result<Self, MigrateError> {
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        let limit = plan.redis_timeout;
        let keep = async |side, options: &RedisOptions, pin: Pin, role| {
            let access = options.access().map_err(|error| MigrateError::Options(side, error))?;
            let orders = Orders {
                access: access.clone(),
                allow: plan.allow,
                limit,
                pin,
                create: false,
                role,
                observer: Arc::clone(&observer),
            };
            let kept = Arc::new(keeper::keep(orders).await);
            let unusable = |error: CreateError| MigrateError::Unusable(side, error.to_string());
            reached(&kept, limit).await.map_err(unusable)?;
            Ok((access, kept))
        };
        let (from_pin, to_pin) = (Pin::default(), Pin::for_writing());
        let (_, from_kept) = keep(FROM, &plan.from, from_pin.clone(), Role::Ours).await?;
        let (to_access, to_kept) = keep(TO, &plan.to, to_pin.clone(), Role::Also).await?;
        let from = stands(FROM, &from_kept, &from_pin, limit).await?;
        let (to, is_complete) = target(&to_kept, limit).await?;
        if to == from {
            return Err(MigrateError::Same(to));
        }
        match plan.to_store_id {
            Some(given) if given != to => return Err(MigrateError::Another(to)),
            None if is_complete => return Err(MigrateError::Complete(to)),
            _ => {}
        }
        stands(TO, &to_kept, &to_pin, limit).await?;
        let terms = Terms {
            redis_timeout: limit,
            confirm_timeout: plan.confirm_timeout,
            min_replicas: plan.min_replicas,
            require_disk: plan.require_disk,
            confirm: true,
            future_iat_tolerance_seconds: 0,
            allow: plan.allow,
        };
        let reader = |kept, pin| Reader { kept, pin, limit, observer: Arc::clone(&observer) };
        let transfer = Transfer {
            from: Arc::new(reader(from_kept, from_pin)),
            there: reader(Arc::clone(&to_kept), to_pin.clone()),
            to: Writer::new(to_access, to_kept, to_pin, terms),
            audit_entries: AUDIT_ENTRIES,
        };
        let run = Self {
            plan,
            say,
            transfer,
            from,
            to,
            is_complete,
            tallies: Kind::ALL.into_iter().map(|kind| (kind, Tally::default())).collect(),
            strange: HashSet::new(),
            more_strange: 0,
            lone: 0,
            told: Vec::new(),
            patience: PATIENCE,
        };
        run.compare_clocks().await?;
        Ok(run)
    }

    async fn compare_clocks(&self) -> Result<(), MigrateError> {
        let mut times = Vec::new();
        for (side, reader) in [(FROM, &*self.transfer.from), (TO, &self.transfer.there)] {
            for member in members(side, reader)? {
                let asked = Instant::now();
                let time = member.wire.ask_one::<(u64, u64)>(redis::cmd("TIME"), self.plan.redis_timeout).await;
                let (seconds, micros) = time.map_err(|failure| MigrateError::StoreError(side, failure.trouble))?;
                times.push((Duration::from_secs(seconds) + Duration::from_micros(micros), asked));
            }
        }
        let Some((first, asked)) = times.first().copied() else { return Ok(()) };
        // As if all had been asked at the moment of the first.
        let distances = times.iter().map(|(time, at)| time.saturating_sub(at.duration_since(asked)).abs_diff(first));
        match distances.max() {
            Some(most) if most > MAX_CLOCK_DIFFERENCE => Err(MigrateError::Clocks(most.as_secs())),
            _ => Ok(()),
        }
    }

    /// Every name of the source, page by page.
    async fn pass(&mut self, step: Step) -> Result<(), MigrateError> {
        let servers = members(FROM, &self.transfer.from)?;
        let layout = self.layout(&servers).await?;
        let mut of = 0;
        for member in &servers {
            of += keys(member, self.plan.redis_timeout).await.unwrap_or(0);
        }
        let mut seen = 0;
        for member in &servers {
            let mut cursor = 0;
            loop {
                let (next, names) = scan(FROM, member, cursor, PATTERN, self.plan.redis_timeout).await?;
                cursor = next;
                seen += names.len() as u64;
                let mut ours = Vec::with_capacity(names.len());
                for name in names {
                    match Found::parse(&name) {
                        Found::Sentinel | Found::Timing | Found::Issuers => {}
                        Found::Ours(name) if name.kind == Kind::Audit => {}
                        Found::Ours(name) => ours.push(name),
                        Found::Strange => self.strange(&String::from_utf8_lossy(&name)),
                    }
                }
                match step {
                    Step::Copy => self.copy(ours).await?,
                    Step::Verify => self.verify(ours).await?,
                }
                (self.say)(Progress { verifying: step == Step::Verify, seen, of: of.max(seen) });
                if cursor == 0 {
                    break;
                }
            }
        }
        // What moved from a server that was not read yet to one that was would have been missed.
        let servers = members(FROM, &self.transfer.from)?;
        match self.layout(&servers).await? == layout {
            true => Ok(()),
            false => Err(MigrateError::Moved(FROM)),
        }
    }

    async fn copy(&mut self, names: Vec<Name>) -> Result<(), MigrateError> {
        let compared = self.compare(names).await?;
        let (mut merges, mut merged) = (Vec::new(), Vec::new());
        for (name, here, there) in compared {
            let tally = self.tallies.entry(name.kind).or_default();
            // A SCAN may show a name twice; the second time it is there.
            tally.found += u64::from(!here.is_absent());
            if !there.covers(name.kind, &here) {
                tally.copied += 1;
                merges.extend(name.merge(&here).map(|merge| (name.bucket, merge)));
                merged.push(name);
            }
        }
        self.transfer.run(merges).await.map_err(MigrateError::Write)?;
        self.forget_sessions_that_ended(&merged).await
    }

    /// A session that a service deleted in both stores, after we had read it and before we wrote it, must not come back.
    async fn forget_sessions_that_ended(&self, merged: &[Name]) -> Result<(), MigrateError> {
        let sessions: Vec<_> = merged.iter().filter(|name| name.kind == Kind::Session).cloned().collect();
        let now =
            states(&self.transfer.from, &sessions).await.map_err(|trouble| MigrateError::StoreError(FROM, trouble))?;
        let gone = sessions.iter().zip(now).filter(|(_, state)| state.as_ref().is_some_and(State::is_absent));
        let deletes: Vec<_> = gone.map(|(name, _)| (name.bucket, redis::cmd("DEL").arg(&name.text).clone())).collect();
        self.transfer.run(deletes).await.map(|_| ()).map_err(MigrateError::Write)
    }

    async fn verify(&mut self, names: Vec<Name>) -> Result<(), MigrateError> {
        let compared = self.compare(names).await?;
        if self.plan.verify_only {
            for (name, here, _) in &compared {
                self.tallies.entry(name.kind).or_default().found += u64::from(!here.is_absent());
            }
        }
        let differ = |all: Vec<(Name, State, State)>| -> Vec<Name> {
            let differ = all.into_iter().filter(|(name, here, there)| !there.covers(name.kind, here));
            differ.map(|(name, ..)| name).collect()
        };
        let mut differing = differ(compared);
        let began = Instant::now();
        while !differing.is_empty() && began.elapsed() < self.settle() {
            tokio::time::sleep(POLL).await;
            differing = differ(self.compare(differing).await?);
        }
        if !differing.is_empty() {
            self.patience = self.patience.saturating_sub(1);
        }
        for name in differing {
            self.tallies.entry(name.kind).or_default().differing += 1;
            self.tell(format!("differs: {}", shown(&name.text)));
        }
        Ok(())
    }

    /// What lies under each on either side. Those that cannot be read are left out, and counted.
    async fn compare(&mut self, names: Vec<Name>) -> Result<Vec<(Name, State, State)>, MigrateError> {
        // The source first: what is written in between is in the other one too then, and not missing there.
        let here =
            states(&self.transfer.from, &names).await.map_err(|trouble| MigrateError::StoreError(FROM, trouble))?;
        let there =
            states(&self.transfer.there, &names).await.map_err(|trouble| MigrateError::StoreError(TO, trouble))?;
        let mut compared = Vec::with_capacity(names.len());
        for ((name, here), there) in names.into_iter().zip(here).zip(there) {
            match (here, there) {
                (Some(here), Some(there)) => compared.push((name, here, there)),
                (_, _) => self.strange(&name.text),
            }
        }
        Ok(compared)
    }

    async fn copy_audit(&mut self) -> Result<(), MigrateError> {
        loop {
            let brought = self.transfer.bring_audit(None).await.map_err(MigrateError::Write)?;
            self.tallies.entry(Kind::Audit).or_default().copied += brought as u64;
            if brought < AUDIT_PAGE {
                return Ok(());
            }
        }
    }

    async fn verify_audit(&mut self) -> Result<(), MigrateError> {
        let from = |trouble| MigrateError::StoreError(FROM, trouble);
        let mut after = "0".to_owned();
        loop {
            let page = audit_page(&self.transfer.from, AuditRange::After(&after)).await.map_err(from)?;
            let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else { return Ok(()) };
            let range = AuditRange::Between(first, last);
            // One that came second to another got a later id, there or here.
            let millis = |id: &str| id.split('-').next().and_then(|id| id.parse().ok()).unwrap_or(0_u64);
            let begin = millis(first).saturating_sub(AUDIT_LATE_MILLIS).to_string();
            let end = millis(last).saturating_add(AUDIT_LATE_MILLIS).to_string();
            let began = Instant::now();
            let mut missing;
            loop {
                // Trimmed here meanwhile, it may be missing there.
                let here = audit_page(&self.transfer.from, range).await.map_err(from)?;
                let there = audit_page(&self.transfer.there, AuditRange::Between(&begin, &end)).await;
                let there = there.map_err(|trouble| MigrateError::StoreError(TO, trouble))?;
                // Encrypted under a nonce of its own, no entry is like another.
                let there: HashSet<_> = there.into_iter().map(|(_, value)| value).collect();
                missing =
                    here.into_iter().filter(|(_, value)| !there.contains(value)).map(|(id, _)| id).collect::<Vec<_>>();
                if missing.is_empty() || began.elapsed() >= self.settle() {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
            if !missing.is_empty() {
                self.patience = self.patience.saturating_sub(1);
            }
            let tally = self.tallies.entry(Kind::Audit).or_default();
            tally.found += page.len() as u64;
            tally.differing += missing.len() as u64;
            for id in missing {
                self.tell(format!("differs: audit entry {id}"));
            }
            // What comes from here on, services bring.
            if page.len() < AUDIT_PAGE {
                return Ok(());
            }
            after = last.clone();
        }
    }

    /// Revocations that only the other store has. Nothing is taken away there: what ends too much harms nobody.
    async fn find_lone(&mut self) -> Result<(), MigrateError> {
        let mut suspects = Vec::new();
        for member in members(TO, &self.transfer.there)? {
            let mut cursor = 0;
            loop {
                let pattern = super::entry::PATTERN;
                let (next, names) = scan(TO, &member, cursor, pattern, self.plan.redis_timeout).await?;
                cursor = next;
                let names = names.iter().filter_map(|name| match Found::parse(name) {
                    Found::Ours(name) => Some(name),
                    Found::Sentinel | Found::Timing | Found::Issuers | Found::Strange => None,
                });
                let lone = self.lone(names.collect()).await?;
                let room = MAX_LONE.saturating_sub(suspects.len());
                self.lone += lone.len().saturating_sub(room) as u64;
                suspects.extend(lone.into_iter().take(room));
                if cursor == 0 {
                    break;
                }
            }
        }
        // One that was being lifted is gone there too by now.
        if !suspects.is_empty() {
            tokio::time::sleep(POLL * 10).await;
        }
        for name in self.lone(suspects).await? {
            self.lone += 1;
            self.tell(format!("only in `to`: {}", shown(&name.text)));
        }
        Ok(())
    }

    async fn lone(&mut self, names: Vec<Name>) -> Result<Vec<Name>, MigrateError> {
        let stays = |state: &State| match state {
            State::Text { ttl, .. } => *ttl < 0 || *ttl > ABOUT_TO_EXPIRE_MILLIS,
            _ => false,
        };
        let compared = self.compare(names).await?.into_iter();
        Ok(compared.filter(|(_, here, there)| here.is_absent() && stays(there)).map(|(name, ..)| name).collect())
    }

    /// Who has what of the source, by the servers' own word; none of it on its way.
    async fn layout(&self, members: &[Member]) -> Result<Vec<(Address, String)>, MigrateError> {
        let mut layout = Vec::with_capacity(members.len());
        for member in members {
            let mut slots = String::new();
            if self.plan.from.mode == Mode::Cluster {
                let mut ask = redis::cmd("CLUSTER");
                ask.arg("NODES");
                let told = member.wire.ask_one::<String>(ask, self.plan.redis_timeout).await;
                let told = told.map_err(|failure| MigrateError::StoreError(FROM, failure.trouble))?;
                // `<id> <address> myself,<flags> <primary> <ping> <pong> <epoch> <link> <slot>…`; in brackets what is on
                // its way.
                let own =
                    told.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")));
                slots = own.unwrap_or_default().split(' ').skip(8).collect::<Vec<_>>().join(" ");
                if slots.contains('[') {
                    return Err(MigrateError::Moved(FROM));
                }
            }
            layout.push((member.address.clone(), slots));
        }
        Ok(layout)
    }

    fn settle(&self) -> Duration {
        if self.patience == 0 { Duration::ZERO } else { self.plan.settle }
    }

    fn strange(&mut self, name: &str) {
        let name = shown(name);
        if self.strange.len() < MAX_LONE {
            if self.strange.insert(name.clone()) {
                self.tell(format!("not understood: {name}"));
            }
        } else if !self.strange.contains(&name) {
            self.more_strange += 1;
        }
    }

    fn tell(&mut self, what: String) {
        if self.told.len() < MAX_TOLD {
            self.told.push(what);
        }
    }

    fn report(&self) -> Report {
        Report {
            from: self.from,
            to: self.to,
            tallies: self.tallies.iter().map(|(kind, tally)| (kind.name(), *tally)).collect(),
            strange: self.strange.len() as u64 + self.more_strange,
            lone: self.lone,
            told: self.told.clone(),
            complete: false,
        }
    }
}

/// Somebody else may have chosen the name, whatever it begins with, and it is shown on a terminal.
fn shown(name: &str) -> String {
    name.escape_debug().take(MAX_TOLD_NAME).collect()
}

/// Waits until the store of `pin` can be used.
async fn stands(side: &'static str, kept: &Kept, pin: &Pin, limit: Duration) -> Result<StoreId, MigrateError> {
    let deadline = Instant::now() + limit;
    loop {
        let routes = kept.routes();
        if let (Ok(()), Some(id)) = (routes.standing(), pin.id()) {
            return Ok(id);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if kept.newer(routes.number, left).await.is_none() {
            return Err(MigrateError::Unusable(side, kept.routes().state.clone()));
        }
    }
}

/// Which store is to be filled, and whether it was declared complete.
async fn target(kept: &Kept, limit: Duration) -> Result<(StoreId, bool), MigrateError> {
    let read = create::read_all(&kept.routes(), limit).await;
    let read = read.map_err(|error| MigrateError::Unusable(TO, error.to_string()))?;
    let mut ids = HashSet::new();
    let mut is_complete = true;
    for sentinel in read.values() {
        match sentinel {
            Sentinel::Filling(id) => {
                is_complete = false;
                ids.insert(id.to_string());
            }
            Sentinel::Whole(id) => {
                ids.insert(id.to_string());
            }
            Sentinel::Missing => return Err(MigrateError::NotPrepared),
            Sentinel::New(id) => return Err(MigrateError::Foreign(format!("the store {id}, not made to the end"))),
            Sentinel::Strange => return Err(MigrateError::Foreign("strange sentinels".to_owned())),
        }
    }
    let mut ids = ids.into_iter();
    match (ids.next().and_then(|id| id.parse().ok()), ids.next()) {
        (Some(id), None) => Ok((id, is_complete)),
        _ => Err(MigrateError::Foreign("parts of two stores".to_owned())),
    }
}

/// The servers that have buckets.
fn members(side: &'static str, reader: &Reader) -> Result<Vec<Member>, MigrateError> {
    let routes = reader.kept.routes();
    let parts = routes.parts().map_err(|trouble| MigrateError::StoreError(side, trouble))?;
    Ok(parts.into_iter().map(|(member, _)| member.clone()).collect())
}

async fn scan(
    side: &'static str,
    member: &Member,
    cursor: u64,
    pattern: &str,
    limit: Duration,
) -> Result<(u64, Vec<Vec<u8>>), MigrateError> {
    let mut ask = redis::cmd("SCAN");
    ask.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
    // Always over the same connection: a server that was started again would not understand the cursor.
    let scanned = member.wire.ask_one(ask, limit).await;
    scanned.map_err(|failure| MigrateError::StoreError(side, failure.trouble))
}

/// How many names a server has, about.
async fn keys(member: &Member, limit: Duration) -> Option<u64> {
    let mut ask = redis::cmd("INFO");
    ask.arg("keyspace");
    let text: String = member.wire.ask_one(ask, limit).await.ok()?;
    let keys = |line: &str| line.split_once(":keys=")?.1.split(',').next()?.parse::<u64>().ok();
    Some(text.lines().filter_map(keys).sum())
}
