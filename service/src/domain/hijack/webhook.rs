//! The webhook: one request for each alarm, in order. What cannot be sent is tried twice more, and then counted.
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::Metrics;
use super::metrics::ActionResult;
use super::settings;
use crate::base::http_agent::{self, HttpAgent};
use crate::base::outbox::{Outbox, Stopping};

/// Alarms that wait. Further ones are counted and not sent.
const MAX_WAITING: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Webhook {
    settings: settings::Webhook,
    outbox: Outbox<String>,
    metrics: Metrics,
}

impl Webhook {
    pub fn new(settings: settings::Webhook, metrics: Metrics) -> Self {
        Self { settings, outbox: Outbox::new(MAX_WAITING), metrics }
    }

    pub fn is_of(&self, settings: &settings::Webhook) -> bool {
        self.settings == *settings
    }

    /// What waits is counted, and not sent any more.
    pub fn end(&self) {
        self.outbox.end();
    }

    /// False: too many wait, or it is ended.
    pub fn enqueue(&self, text: String) -> bool {
        self.outbox.enqueue(text)
    }

    pub fn start(&self, work: &TaskTracker, stop: &watch::Receiver<bool>) {
        let (settings, metrics) = (self.settings.clone(), self.metrics.clone());
        // The CAs of the web are always there.
        let Ok(agent) = HttpAgent::new(None, TIMEOUT) else { return };
        let left = self.metrics.clone();
        let send = move |text: String, stopping| {
            let (agent, settings, metrics) = (agent.clone(), settings.clone(), metrics.clone());
            async move {
                let is_sent = send(&agent, &settings, &text, stopping).await;
                metrics.acted(if is_sent { ActionResult::Sent } else { ActionResult::NotSent });
            }
        };
        self.outbox.start(work, stop, send, move |_| left.acted(ActionResult::NotSent));
    }
}

async fn send(agent: &HttpAgent, settings: &settings::Webhook, text: &str, mut stopping: Stopping) -> bool {
    for tried in 1..=TRIES {
        let (agent, settings, text) = (agent.clone(), settings.clone(), text.to_owned());
        let sent = tokio::task::spawn_blocking(move || post(&agent, &settings, &text)).await;
        match sent {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(error, tried, "the webhook did not take an alarm"),
            Err(error) => tracing::warn!(%error, tried, "the webhook did not take an alarm"),
        }
        if !stopping.pause(PAUSE).await {
            return false;
        }
    }
    false
}

fn post(agent: &HttpAgent, settings: &settings::Webhook, text: &str) -> Result<(), String> {
    let mut request = agent.post(&settings.url).header("content-type", "application/json");
    if let Some(file) = &settings.token_file {
        let token = http_agent::bearer(file).map_err(|error| format!("{} {error}", file.display()))?;
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = request.send(text).map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        status => Err(format!("status {status}")),
    }
}
