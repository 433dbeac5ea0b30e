//! Hijacked sessions: sightings by filters are judged against what is remembered of each session, and lead to what the operator
//! configured.
mod history;
mod judge;
mod metrics;
mod places;
#[cfg(test)]
mod population;
mod reaction;
mod settings;
mod signal;
mod webhook;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jose::base64url;
use store::{Claim, ReplayGuard, SightingStore, StoreError, WriteError};
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio_util::task::TaskTracker;
use wire::sightings::{Client, Names, Reported, Sighting};
use wire::{DerivedKeys, Kind, RevocationKey};

use crate::base::clock::{unix_millis, unix_seconds};
use crate::domain::audit::Audit;
use crate::domain::revocations::Revocations;
use crate::domain::transmitter::Transmitter;
use crate::model::session_keys::Ring;
use history::History;
pub use metrics::{Metrics, ReportResult};
pub use places::{DatabaseError, Places};
use reaction::Reaction;
pub use settings::{Settings, SettingsError};
pub use signal::Signal;

/// How far a report's clock may be from ours. An older report was held back, or is sent once more.
const MAX_CLOCK_DIFFERENCE: u64 = 60;
/// For how long a report is remembered: longer than it counts.
const REMEMBERED: Duration = Duration::from_secs(180);
/// Reports that are judged at the same time.
const MAX_REPORTS: usize = 32;
/// The longest that the maker of a session waits until it is remembered from where that was.
const MAX_MADE: Duration = Duration::from_secs(1);
/// How often another instance may change a record between our read and our write.
const TRIES: u32 = 4;

/// One for each service with a file of settings.
#[derive(Debug)]
pub struct Hijack {
    settings: Settings,
    secrets: Arc<[DerivedKeys]>,
    /// The users whose sessions are not judged, under each live secret.
    exempt: HashSet<RevocationKey>,
    places: Option<Arc<Places>>,
    store: Arc<dyn SightingStore>,
    replay_guard: Arc<dyn ReplayGuard>,
    ring: Arc<Ring>,
    reaction: Reaction,
    metrics: Metrics,
    judging: Arc<Semaphore>,
    work: TaskTracker,
}

/// What it is made of.
pub struct Parts {
    pub secrets: Arc<[DerivedKeys]>,
    pub store: Arc<dyn SightingStore>,
    pub replay_guard: Arc<dyn ReplayGuard>,
    pub ring: Arc<Ring>,
    pub revocations: Arc<Revocations>,
    pub audit: Arc<Audit>,
    pub transmitter: Arc<Transmitter>,
    pub metrics: Metrics,
    pub work: TaskTracker,
}

/// The client that a session was made for.
#[derive(Debug, Default)]
pub struct Origin {
    pub address: Option<IpAddr>,
    pub user_agent: Option<String>,
}

/// A sighting with signals.
#[derive(Debug, Clone)]
pub struct Alarm {
    pub signals: Vec<Signal>,
    pub kind: Kind,
    pub session: RevocationKey,
    pub user: Option<RevocationKey>,
    /// What is behind these keys, if the filter says it.
    pub names: Option<Box<Names>>,
    /// The last client before, and this one.
    pub before: Client,
    pub now: Client,
    /// Unix seconds.
    pub at: u64,
    /// The index of the secret that the filter has.
    pub secret: usize,
}

impl Hijack {
    /// What waits for the webhook of `former` goes on waiting if it is the same one.
    pub fn new(settings: Settings, places: Option<Arc<Places>>, parts: Parts, former: Option<&Self>) -> Self {
        let users = settings.subjects.iter().flat_map(|subject| {
            let id = subject.subject.as_bytes();
            parts.secrets.iter().map(move |derived| derived.revocation_key(Kind::User, &subject.issuer, id))
        });
        let exempt = users.collect();
        let Parts { secrets, store, replay_guard, ring, revocations, audit, transmitter, metrics, work } = parts;
        let reaction = Reaction::new(
            &settings,
            revocations,
            audit,
            transmitter,
            metrics.clone(),
            former.map(|former| &former.reaction),
        );
        let judging = Arc::new(Semaphore::new(MAX_REPORTS));
        Self { settings, secrets, exempt, places, store, replay_guard, ring, reaction, metrics, judging, work }
    }

    /// Sends what goes to the webhook, until `stop`, or until it is ended.
    pub fn start(&self, stop: &Receiver<bool>) {
        self.reaction.start(&self.work, stop);
    }

    /// Ends the webhook, unless `now` has the same one.
    pub fn end_unless_in(&self, now: Option<&Self>) {
        self.reaction.end_unless_in(now.map(|now| &now.reaction));
    }

    /// Takes a report, and judges it in the background. False: it is not taken.
    pub async fn take(self: &Arc<Self>, reported: &Reported) -> bool {
        let result = self.admit(reported).await;
        self.metrics.reported(result);
        result.is_taken()
    }

    async fn admit(self: &Arc<Self>, reported: &Reported) -> ReportResult {
        if reported.needs().now_seconds.abs_diff(unix_seconds()) > MAX_CLOCK_DIFFERENCE {
            return ReportResult::OtherTime;
        }
        let Ok(permit) = Arc::clone(&self.judging).try_acquire_owned() else { return ReportResult::Busy };
        let digest = reported.digest().first_chunk::<16>().copied().unwrap_or_default();
        let name = format!("sightings-{}", base64url::encode(digest));
        match self.replay_guard.claim(&name, REMEMBERED).await {
            Ok(Claim::Claimed) => {}
            Ok(Claim::Pending | Claim::Done) => return ReportResult::Repeated,
            Err(_) => return ReportResult::Failed,
        }
        let (hijack, sightings, secret) = (Arc::clone(self), reported.sightings().to_vec(), reported.secret());
        self.work.spawn(async move {
            for sighting in sightings {
                hijack.judge(sighting, secret).await;
            }
            drop(permit);
        });
        ReportResult::Judged
    }

    /// Remembers from where a session was made, so that its first use is compared with that. Its maker does not wait for a slow
    /// store.
    pub async fn made(&self, issuer: &str, sid: &str, subject: &str, origin: &Origin) {
        if origin.address.is_none() && origin.user_agent.is_none() {
            return;
        }
        let remembered = tokio::time::timeout(MAX_MADE, self.remember_made(issuer, sid, subject, origin));
        if remembered.await.is_err() {
            self.metrics.too_slow();
        }
    }

    async fn remember_made(&self, issuer: &str, sid: &str, subject: &str, origin: &Origin) {
        for (secret, derived) in self.secrets.iter().enumerate() {
            let user = derived.revocation_key(Kind::User, issuer, subject.as_bytes());
            let agent = origin.user_agent.as_ref().map(|agent| Client::agent_of(derived, agent.as_bytes()));
            let client = Client { network: origin.address.map(Client::network_of), agent, ..Client::default() };
            let session = derived.revocation_key(Kind::Session, issuer, sid.as_bytes());
            let (kind, user) = (Kind::Session, Some(user));
            self.judge(Sighting { kind, session, user, age_millis: 0, client, names: None }, secret).await;
        }
    }

    async fn judge(&self, mut sighting: Sighting, secret: usize) {
        let are_right =
            |names: &Names| self.secrets.get(secret).is_some_and(|derived| names.are_of(&sighting, derived));
        if !sighting.names.as_deref().is_none_or(are_right) {
            sighting.names = None;
        }
        if sighting.user.is_some_and(|user| self.exempt.contains(&user)) {
            return;
        }
        match self.remember(&sighting, secret).await {
            Ok(None) => {}
            Ok(Some(alarm)) => self.reaction.react(alarm).await,
            Err(error) => self.metrics.not_judged(&error),
        }
    }

    /// Adds a sighting to the record of its session. The signals are those of the record that it was added to.
    async fn remember(&self, sighting: &Sighting, secret: usize) -> Result<Option<Alarm>, WriteError> {
        let mut now = sighting.client;
        if let Some(places) = &self.places {
            places.locate(&mut now);
        }
        let at = unix_millis().saturating_sub(sighting.age_millis.into());
        let quiet = u64::try_from(self.settings.quiet.as_millis()).unwrap_or(u64::MAX);
        let context = format!("sightings {}", sighting.session);
        for _ in 0..TRIES {
            let earlier = self.store.sightings(sighting.session).await.map_err(WriteError::NotWritten)?;
            let opened = |sealed: &Vec<u8>| {
                let text = self.ring.all().find_map(|at| self.ring.open(at, &context, sealed))?;
                History::decode(&text)
            };
            // One that cannot be opened is of a secret that is gone: it is replaced.
            let mut history = earlier.as_ref().and_then(opened).unwrap_or_default();
            let before = history.clients.first().map(|used| used.client).unwrap_or_default();
            let mut signals = judge::judge(&history, &now, at, &self.settings);
            signals.retain(|signal| history.report(*signal, at, quiet));
            history.add(now, at);
            let failed = |_| WriteError::NotWritten(StoreError::StoreFailed);
            let record = self.ring.seal(self.ring.first(), &context, history.encode()).map_err(failed)?;
            let (session, keep) = (sighting.session, self.settings.keep);
            if self.store.replace_sightings(session, earlier.as_deref(), record, keep).await? {
                let Sighting { kind, user, names, .. } = sighting.clone();
                let alarm = Alarm { signals, kind, session, user, names, before, now, at: at / 1000, secret };
                return Ok((!alarm.signals.is_empty()).then_some(alarm));
            }
        }
        Err(WriteError::NotWritten(StoreError::StoreFailed))
    }
}
