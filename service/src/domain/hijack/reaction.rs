//! What the signals of a session lead to: counts, entries, lines, requests to a webhook, security events, or its end.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch::Receiver;
use tokio_util::task::TaskTracker;
use wire::sightings::Client;

use super::metrics::ActionResult;
use super::settings::{Action, Settings};
use super::webhook::Webhook;
use super::{Alarm, Metrics, Signal};
use crate::domain::audit::{Audit, Event};
use crate::domain::revocations::Revocations;
use crate::domain::transmitter::{self, Content, Initiator, Subject, Transmitter};

/// The author of entries and revocations.
const BY: &str = "hijack detection";
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Reaction {
    settings: Settings,
    revocations: Arc<Revocations>,
    audit: Arc<Audit>,
    webhook: Option<Arc<Webhook>>,
    transmitter: Arc<Transmitter>,
    /// When the current minute began, and the sessions that were ended in it.
    ends: Mutex<(Option<Instant>, u32)>,
    metrics: Metrics,
}

/// What a line, and a request to the webhook, say. Sessions and users are named by their revocation keys, as in access logs.
#[derive(Debug, Serialize)]
struct Message<'a> {
    signals: Vec<&'static str>,
    kind: &'static str,
    session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Unix seconds.
    at: u64,
    before: Place<'a>,
    now: Place<'a>,
    /// It is being ended.
    ends: bool,
    /// A login is being demanded.
    step_up: bool,
}

#[derive(Debug, Serialize)]
struct Place<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    /// Latitude and longitude.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<(f64, f64)>,
}

impl Reaction {
    pub fn new(
        settings: &Settings,
        revocations: Arc<Revocations>,
        audit: Arc<Audit>,
        transmitter: Arc<Transmitter>,
        metrics: Metrics,
        former: Option<&Self>,
    ) -> Self {
        let webhook = settings.webhook.as_ref().map(|wanted| {
            // What waits for the same webhook goes on waiting.
            let kept = former.and_then(|former| former.webhook.as_ref()).filter(|webhook| webhook.is_of(wanted));
            kept.cloned().unwrap_or_else(|| Arc::new(Webhook::new(wanted.clone(), metrics.clone())))
        });
        Self { settings: settings.clone(), revocations, audit, webhook, transmitter, ends: Mutex::default(), metrics }
    }

    pub fn start(&self, work: &TaskTracker, stop: &Receiver<bool>) {
        if let Some(webhook) = &self.webhook {
            webhook.start(work, stop);
        }
    }

    /// Ends the webhook, unless `now` has the same one.
    pub fn end_unless_in(&self, now: Option<&Self>) {
        if let Some(webhook) = &self.webhook {
            let kept = now.and_then(|now| now.webhook.as_ref()).is_some_and(|kept| Arc::ptr_eq(kept, webhook));
            if !kept {
                webhook.end();
            }
        }
    }

    pub async fn react(&self, alarm: Alarm) {
        alarm.signals.iter().for_each(|signal| self.metrics.signal(*signal));
        let wanted = alarm.signals.iter().flat_map(|signal| self.settings.actions(*signal));
        let mut actions: BTreeSet<Action> = wanted.copied().collect();
        if actions.contains(&Action::End) {
            // After a login with the same session id it would still be ended.
            actions.remove(&Action::StepUp);
        }
        let is_limited = |action: &Action| matches!(action, Action::End | Action::StepUp);
        if actions.iter().any(is_limited) && !self.may_end(Instant::now()) {
            actions.retain(|action| !is_limited(action));
            self.metrics.acted(ActionResult::TooMany);
        }
        let message = Message::new(&alarm, &actions);
        let text = serde_json::to_string(&message).unwrap_or_default();
        for action in actions {
            let result = match action {
                Action::Audit => {
                    self.audit.write(entry(&alarm, &text)).await;
                    ActionResult::Audited
                }
                Action::Log => {
                    tracing::warn!(target: "portcullis::hijack", "{text}");
                    ActionResult::Logged
                }
                // Counted when it was sent.
                Action::Webhook => match self.webhook.as_ref().is_some_and(|webhook| webhook.enqueue(text.clone())) {
                    true => continue,
                    false => ActionResult::NotSent,
                },
                // Counted by the transmitter.
                Action::Event => {
                    self.transmitter.send(&event(&alarm, Content::AtRisk(names(&alarm.signals).join(", "))));
                    continue;
                }
                Action::StepUp => self.demand_login(&alarm).await,
                Action::End => self.end(&alarm).await,
            };
            self.metrics.acted(result);
        }
    }

    async fn end(&self, alarm: &Alarm) -> ActionResult {
        let reason = reason(alarm);
        let ended = self.revocations.revoke_key(alarm.secret, alarm.kind, alarm.session, &reason, BY).await;
        match ended {
            Ok(()) => {
                self.transmitter.send(&event(alarm, Content::Ended { by: Initiator::Policy, reason: Some(reason) }));
                ActionResult::Ended
            }
            Err(error) => {
                tracing::error!(%error, session = %alarm.session, "a hijacked session could not be ended");
                ActionResult::NotEnded
            }
        }
    }

    async fn demand_login(&self, alarm: &Alarm) -> ActionResult {
        match self.revocations.demand_login(alarm.secret, alarm.session, &reason(alarm), BY).await {
            Ok(()) => ActionResult::Demanded,
            Err(error) => {
                tracing::error!(%error, session = %alarm.session, "a login could not be demanded of a hijacked session");
                ActionResult::NotDemanded
            }
        }
    }

    /// A wrong database of places, or a provider that changes its addresses, must not end everybody's session.
    fn may_end(&self, now: Instant) -> bool {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.0.is_none_or(|begin| now.saturating_duration_since(begin) >= MINUTE) {
            *ends = (Some(now), 0);
        }
        ends.1 = ends.1.saturating_add(1);
        ends.1 <= self.settings.max_ends_per_minute
    }
}

fn names(signals: &[Signal]) -> Vec<&'static str> {
    signals.iter().map(|signal| signal.name()).collect()
}

fn reason(alarm: &Alarm) -> String {
    format!("signs of a hijacked session: {}", names(&alarm.signals).join(", "))
}

fn event(alarm: &Alarm, content: Content) -> transmitter::Event {
    let names = alarm.names.as_deref();
    let subject = Subject {
        kind: alarm.kind,
        key: alarm.session,
        issuer: names.map(|names| names.issuer.clone()),
        sub: names.and_then(|names| names.user.clone()),
        sid: names.and_then(|names| names.session.clone()),
    };
    transmitter::Event { subject, content, at: alarm.at }
}

fn entry(alarm: &Alarm, text: &str) -> Event {
    let signals = names(&alarm.signals).join(",");
    Event {
        kind: Some(alarm.kind.name().to_owned()),
        id: Some(alarm.session.to_string()),
        reason: Some(text.to_owned()),
        ..Event::new(BY, "session.hijack", &signals)
    }
}

impl<'a> Message<'a> {
    fn new(alarm: &'a Alarm, actions: &BTreeSet<Action>) -> Self {
        Self {
            signals: names(&alarm.signals),
            kind: alarm.kind.name(),
            session: alarm.session.to_string(),
            user: alarm.user.map(|user| user.to_string()),
            at: alarm.at,
            before: Place::of(&alarm.before),
            now: Place::of(&alarm.now),
            ends: actions.contains(&Action::End),
            step_up: actions.contains(&Action::StepUp),
        }
    }
}

impl<'a> Place<'a> {
    fn of(client: &'a Client) -> Self {
        let degrees = |hundredths: i16| f64::from(hundredths) / 100.0;
        Self {
            network: client.network.map(|network| format!("{}/{}", network.network(), network.prefix())),
            country: client.country.as_ref().and_then(|country| std::str::from_utf8(country).ok()),
            place: client.place.map(|place| (degrees(place.latitude), degrees(place.longitude))),
        }
    }
}
