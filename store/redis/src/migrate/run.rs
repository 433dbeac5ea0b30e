//! One run: both stores opened, every name of the source copied or compared.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::clock::unix_millis;
use store::{Export, Observer, StoreError, StoreId, Unobserved};

use super::scan::{PAGE, keys, layout, scan, servers_of};
use super::target::{target, wait_until_usable};
use super::{FROM, MigrateError, Migration, MigrationSource, Progress, Report, TO, Tally};
use crate::bootstrap::CreateError;
use crate::contents::{Found, Kind, Name, PATTERN, State};
use crate::create::reached;
use crate::identity::StoreIdentity;
use crate::options::{Mode, RedisOptions};
use crate::reader::Reader;
use crate::source::{Source, name};
use crate::states::states;
use crate::topology::{self, MonitorConfig, Role};
use crate::transfer::{MAX_MIRRORED_AUDIT_ENTRIES, Transfer};
use crate::writer::{WriteTerms, Writer};

/// A run waits for so many pages with differences that stay, each for the `settle` time; then for none.
const SETTLE_BUDGET: u32 = 6;
/// Sessions have times by their server's clock, so the clocks must not differ by more.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);
/// The most names in a report.
const MAX_NAMES: usize = 20;
/// The most characters of a name in it.
const MAX_NAME_CHARS: usize = 200;
/// Revocations only in the target that are checked twice. More are counted as they are found.
pub const MAX_ONLY_IN_TARGET: usize = 1000;
/// The pause between two looks at a difference.
pub const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Copy,
    Verify,
}

pub struct Run<'a> {
    pub plan: &'a Migration,
    say: &'a dyn Fn(Progress),
    pub transfer: Transfer,
    pub from: StoreId,
    pub to: StoreId,
    pub is_complete: bool,
    pub tallies: BTreeMap<Kind, Tally>,
    not_understood: HashSet<String>,
    more_not_understood: u64,
    pub only_in_target: u64,
    names: Vec<String>,
    pub settle_budget: u32,
}

impl<'a> Run<'a> {
    pub async fn open(plan: &'a Migration, say: &'a dyn Fn(Progress)) -> Result<Self, MigrateError> {
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        let limit = plan.redis_timeout;
        let open_side = async |side, options: &RedisOptions, identity: StoreIdentity, role| {
            let access = options.access().map_err(|error| MigrateError::Options(side, error))?;
            let config = MonitorConfig {
                access: access.clone(),
                allow: plan.allow,
                limit,
                identity,
                create: false,
                role,
                observer: Arc::clone(&observer),
            };
            let topology = Arc::new(topology::start(config).await);
            let unusable = |error: CreateError| MigrateError::Unusable(side, error.to_string());
            reached(&topology, limit).await.map_err(unusable)?;
            Ok((access, topology))
        };
        let (from_identity, to_identity) = (StoreIdentity::default(), StoreIdentity::for_writing());
        let reader = |topology, identity| Reader { topology, identity, limit, observer: Arc::clone(&observer) };
        let (source, from_servers) = match &plan.from {
            MigrationSource::Export(export) => (Source::Export(Arc::clone(export)), None),
            MigrationSource::Redis(options) => {
                let (_, topology) = open_side(FROM, options, from_identity.clone(), Role::Primary).await?;
                let source = Source::Redis(Arc::new(reader(Arc::clone(&topology), from_identity.clone())));
                (source, Some(topology))
            }
        };
        let (to_access, to_topology) = open_side(TO, &plan.to, to_identity.clone(), Role::Mirror).await?;
        let from = match (&source, from_servers) {
            (Source::Export(export), _) => export.id(),
            (Source::Redis(_), Some(topology)) => wait_until_usable(FROM, &topology, &from_identity, limit).await?,
            (Source::Redis(_), None) => return Err(MigrateError::Store(FROM, StoreError::StoreFailed)),
        };
        let (to, is_complete) = target(&to_topology, limit).await?;
        if to == from {
            return Err(MigrateError::Same(to));
        }
        match plan.to_store_id {
            Some(given) if given != to => return Err(MigrateError::Another(to)),
            None if is_complete => return Err(MigrateError::Complete(to)),
            _ => {}
        }
        wait_until_usable(TO, &to_topology, &to_identity, limit).await?;
        let terms = WriteTerms {
            redis_timeout: limit,
            confirm_timeout: plan.confirm_timeout,
            min_replicas: plan.min_replicas,
            require_disk: plan.require_disk,
            confirm: true,
            future_iat_tolerance_seconds: 0,
            allow: plan.allow,
        };
        let transfer = Transfer {
            from: source,
            there: reader(Arc::clone(&to_topology), to_identity.clone()),
            to: Writer::new(to_access, to_topology, to_identity, terms),
            audit_entries: MAX_MIRRORED_AUDIT_ENTRIES,
        };
        let run = Self {
            plan,
            say,
            transfer,
            from,
            to,
            is_complete,
            tallies: Kind::ALL.into_iter().map(|kind| (kind, Tally::default())).collect(),
            not_understood: HashSet::new(),
            more_not_understood: 0,
            only_in_target: 0,
            names: Vec::new(),
            settle_budget: SETTLE_BUDGET,
        };
        run.compare_clocks().await?;
        Ok(run)
    }

    async fn compare_clocks(&self) -> Result<(), MigrateError> {
        let mut times = Vec::new();
        let from = match &self.transfer.from {
            Source::Redis(reader) => {
                servers_of(FROM, reader)?.into_iter().map(|server| (FROM, server)).collect::<Vec<_>>()
            }
            Source::Export(_) => {
                times.push((Duration::from_millis(unix_millis()), Instant::now()));
                Vec::new()
            }
        };
        let to = servers_of(TO, &self.transfer.there)?.into_iter().map(|server| (TO, server));
        for (side, server) in from.into_iter().chain(to) {
            let asked = Instant::now();
            let time = server.connection.ask_one::<(u64, u64)>(redis::cmd("TIME"), self.plan.redis_timeout).await;
            let (seconds, micros) = time.map_err(|failure| MigrateError::Store(side, failure.error))?;
            times.push((Duration::from_secs(seconds) + Duration::from_micros(micros), asked));
        }
        let Some((first, asked)) = times.first().copied() else { return Ok(()) };
        // Each time is brought back to the moment of the first question.
        let distances = times.iter().map(|(time, at)| time.saturating_sub(at.duration_since(asked)).abs_diff(first));
        match distances.max() {
            Some(most) if most > MAX_CLOCK_DIFFERENCE => Err(MigrateError::Clocks(most.as_secs())),
            _ => Ok(()),
        }
    }

    /// Every name of the source, page by page.
    pub async fn pass(&mut self, step: Step) -> Result<(), MigrateError> {
        match (self.transfer.from.clone(), &self.plan.from) {
            (Source::Redis(reader), MigrationSource::Redis(options)) => {
                self.pass_servers(step, &reader, options.mode).await
            }
            (Source::Export(export), _) => self.pass_export(step, export.as_ref()).await,
            (Source::Redis(_), MigrationSource::Export(_)) => Err(MigrateError::Store(FROM, StoreError::StoreFailed)),
        }
    }

    async fn pass_export(&mut self, step: Step, export: &dyn Export) -> Result<(), MigrateError> {
        let failed = |error| MigrateError::Store(FROM, error);
        let (of, mut seen, mut after) = (export.count().map_err(failed)?, 0, None);
        loop {
            let (names, last) = export.names(after.as_deref(), PAGE).map_err(failed)?;
            seen += names.len() as u64;
            self.step(step, names.iter().map(name).collect()).await?;
            (self.say)(Progress { verifying: step == Step::Verify, seen, of: of.max(seen) });
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    async fn step(&mut self, step: Step, names: Vec<Name>) -> Result<(), MigrateError> {
        match step {
            Step::Copy => self.copy(names).await,
            Step::Verify => self.verify(names).await,
        }
    }

    async fn pass_servers(&mut self, step: Step, reader: &Reader, mode: Mode) -> Result<(), MigrateError> {
        let servers = servers_of(FROM, reader)?;
        let layout_before = layout(mode, &servers, self.plan.redis_timeout).await?;
        let mut of = 0;
        for server in &servers {
            of += keys(server, self.plan.redis_timeout).await.unwrap_or(0);
        }
        let mut seen = 0;
        for server in &servers {
            let mut cursor = 0;
            loop {
                let (next, names) = scan(FROM, server, cursor, PATTERN, self.plan.redis_timeout).await?;
                cursor = next;
                seen += names.len() as u64;
                let mut ours = Vec::with_capacity(names.len());
                for name in names {
                    match Found::parse(&name) {
                        Found::Sentinel | Found::Log | Found::Timing | Found::Sightings | Found::Issuers => {}
                        Found::Ours(name) if name.kind == Kind::Audit => {}
                        Found::Ours(name) => ours.push(name),
                        Found::Strange => self.not_understood(&String::from_utf8_lossy(&name)),
                    }
                }
                self.step(step, ours).await?;
                (self.say)(Progress { verifying: step == Step::Verify, seen, of: of.max(seen) });
                if cursor == 0 {
                    break;
                }
            }
        }
        // A slot that moved from a server that was not read yet to one that was read would have been missed.
        let servers = servers_of(FROM, reader)?;
        match layout(mode, &servers, self.plan.redis_timeout).await? == layout_before {
            true => Ok(()),
            false => Err(MigrateError::Moved(FROM)),
        }
    }

    async fn copy(&mut self, names: Vec<Name>) -> Result<(), MigrateError> {
        let compared = self.compare(names).await?;
        let (mut merges, mut merged) = (Vec::new(), Vec::new());
        for (name, here, there) in compared {
            let tally = self.tallies.entry(name.kind).or_default();
            // SCAN may return a name twice. The second time it is in the target.
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

    /// A session that a service deleted in both stores, after it was read and before it was written, must not come back.
    async fn forget_sessions_that_ended(&self, merged: &[Name]) -> Result<(), MigrateError> {
        let sessions: Vec<_> = merged.iter().filter(|name| name.kind == Kind::Session).cloned().collect();
        let now = self.transfer.from.states(&sessions).await.map_err(|error| MigrateError::Store(FROM, error))?;
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
            self.settle_budget = self.settle_budget.saturating_sub(1);
        }
        for name in differing {
            self.tallies.entry(name.kind).or_default().differing += 1;
            self.note(format!("differs: {}", shown(&name.text)));
        }
        Ok(())
    }

    /// The states of each name in both stores. Names that cannot be read are left out, and counted.
    pub async fn compare(&mut self, names: Vec<Name>) -> Result<Vec<(Name, State, State)>, MigrateError> {
        // The source first: what is written in between is then in the target too, and not missing there.
        let here = self.transfer.from.states(&names).await.map_err(|error| MigrateError::Store(FROM, error))?;
        let there = states(&self.transfer.there, &names).await.map_err(|error| MigrateError::Store(TO, error))?;
        let mut compared = Vec::with_capacity(names.len());
        for ((name, here), there) in names.into_iter().zip(here).zip(there) {
            match (here, there) {
                (Some(here), Some(there)) => compared.push((name, here, there)),
                (_, _) => self.not_understood(&name.text),
            }
        }
        Ok(compared)
    }

    pub fn settle(&self) -> Duration {
        if self.settle_budget == 0 { Duration::ZERO } else { self.plan.settle }
    }

    fn not_understood(&mut self, name: &str) {
        let name = shown(name);
        if self.not_understood.len() < MAX_ONLY_IN_TARGET {
            if self.not_understood.insert(name.clone()) {
                self.note(format!("not understood: {name}"));
            }
        } else if !self.not_understood.contains(&name) {
            self.more_not_understood += 1;
        }
    }

    pub fn note(&mut self, what: String) {
        if self.names.len() < MAX_NAMES {
            self.names.push(what);
        }
    }

    pub fn report(&self) -> Report {
        Report {
            from: self.from,
            to: self.to,
            tallies: self.tallies.iter().map(|(kind, tally)| (kind.name(), *tally)).collect(),
            not_understood: self.not_understood.len() as u64 + self.more_not_understood,
            only_in_target: self.only_in_target,
            names: self.names.clone(),
            complete: false,
        }
    }
}

/// Another application may have chosen the name, and it is shown on a terminal.
pub fn shown(name: &str) -> String {
    name.escape_debug().take(MAX_NAME_CHARS).collect()
}
