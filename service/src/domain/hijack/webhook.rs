//! The webhook: one request for each alarm, in order. What cannot be sent is tried twice more, and then counted.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::Metrics;
use super::metrics::ActionResult;
use super::settings;

/// Alarms that wait. Further ones are counted and not sent.
const MAX_WAITING: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Webhook {
    settings: settings::Webhook,
    waiting: Sender<String>,
    /// Taken by the task that sends.
    queue: Arc<Mutex<Option<Receiver<String>>>>,
    metrics: Metrics,
}

impl Webhook {
    pub fn new(settings: settings::Webhook, metrics: Metrics) -> Self {
        let (waiting, queue) = channel(MAX_WAITING);
        Self { settings, waiting, queue: Arc::new(Mutex::new(Some(queue))), metrics }
    }

    /// False: too many wait.
    pub fn enqueue(&self, text: String) -> bool {
        self.waiting.try_send(text).is_ok()
    }

    pub fn start(&self, work: &TaskTracker, stop: &watch::Receiver<bool>) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        let (settings, metrics, mut stop) = (self.settings.clone(), self.metrics.clone(), stop.clone());
        let agent = agent();
        work.spawn(async move {
            loop {
                let text = tokio::select! {
                    text = queue.recv() => text,
                    _ = stop.wait_for(|stop| *stop) => None,
                };
                let Some(text) = text else { return };
                let is_sent = send(&agent, &settings, &text).await;
                metrics.acted(if is_sent { ActionResult::Sent } else { ActionResult::NotSent });
            }
        });
    }
}

fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::WebPki);
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // A bearer token must not go to another place.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls.build());
    Agent::new_with_config(config.build())
}

async fn send(agent: &Agent, settings: &settings::Webhook, text: &str) -> bool {
    for tried in 1..=TRIES {
        let (agent, settings, text) = (agent.clone(), settings.clone(), text.to_owned());
        let sent = tokio::task::spawn_blocking(move || post(&agent, &settings, &text)).await;
        match sent {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(error, tried, "the webhook did not take an alarm"),
            Err(error) => tracing::warn!(%error, tried, "the webhook did not take an alarm"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

fn post(agent: &Agent, settings: &settings::Webhook, text: &str) -> Result<(), String> {
    let mut request = agent.post(&settings.url).header("content-type", "application/json");
    if let Some(file) = &settings.token_file {
        let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        request = request.header("authorization", format!("Bearer {}", token.trim()));
    }
    let answer = request.send(text).map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        status => Err(format!("status {status}")),
    }
}
