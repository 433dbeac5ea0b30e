//! Security events that we send: a session was ended, or shows signs of a hijack. Each receiver gets signed tokens (RFC 8417) by
//! push (RFC 8935). Nobody waits for it: not a request, not a revocation.
mod delivery;
mod event;
mod metrics;
mod settings;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::base::http_agent::without_query;
use crate::base::outbox::Outbox;
use crate::base::throttle::Throttle;
use crate::signing::Signing;
use delivery::Delivery;
pub use event::{Content, Event, Initiator, Subject};
pub use metrics::Metrics;
use metrics::SentResult;
use settings::Receiver;
pub use settings::{EventType, Receivers, ReceiversError};

/// Events that wait for one receiver. Further ones are counted and not sent.
const MAX_WAITING: usize = 1024;
/// The places that only `risk-level-change` gets: a bulk revocation fills the others, and an attack must still be reported.
const FOR_RISKS: usize = 256;

/// Without receivers it does nothing.
#[derive(Debug, Default)]
pub struct Transmitter {
    /// The `iss` of the events.
    issuer: String,
    channels: Vec<Arc<Channel>>,
    metrics: Metrics,
    work: TaskTracker,
}

/// One receiver and what waits for it.
#[derive(Debug)]
struct Channel {
    delivery: Arc<Delivery>,
    outbox: Outbox<event::Waiting>,
    /// Throttles the log of events that were dropped.
    full: Throttle,
}

impl Transmitter {
    /// What waits for a receiver of `former` that is as before goes on waiting.
    ///
    /// # Errors
    /// The CA file of a receiver cannot be used.
    pub fn new(
        receivers: &Receivers,
        issuer: &str,
        signing: &Arc<Signing>,
        metrics: Metrics,
        work: TaskTracker,
        former: &Self,
    ) -> Result<Self, ReceiversError> {
        let channel = |(index, receiver): (usize, &Receiver)| {
            let delivery = Delivery::new(receiver, Arc::clone(signing), metrics.clone());
            let error = |message| ReceiversError { index, field: "ca_file", message };
            let delivery = delivery.map_err(error)?;
            if let Some(channel) = former.channels.iter().find(|channel| channel.delivery.is_like(&delivery)) {
                return Ok(Arc::clone(channel));
            }
            let (delivery, outbox) = (Arc::new(delivery), Outbox::new(MAX_WAITING));
            Ok(Arc::new(Channel { delivery, outbox, full: Throttle::default() }))
        };
        let channels = receivers.receivers.iter().enumerate().map(channel).collect::<Result<_, _>>()?;
        Ok(Self { issuer: issuer.to_owned(), channels, metrics, work })
    }

    /// Sends until `stop`, or until its receiver is ended.
    pub fn start(&self, stop: &watch::Receiver<bool>) {
        for channel in &self.channels {
            let delivery = Arc::clone(&channel.delivery);
            let left = Arc::clone(&delivery);
            let send = move |waiting, stopping| {
                let delivery = Arc::clone(&delivery);
                async move { delivery.deliver(waiting, stopping).await }
            };
            channel.outbox.start(&self.work, stop, send, move |waiting| left.leave(&waiting));
        }
    }

    /// Ends the receivers that `now` does not have: what waits for them is not sent any more. They may have been removed because
    /// they are compromised.
    pub fn end_others(&self, now: &Self) {
        for channel in &self.channels {
            if !now.channels.iter().any(|kept| Arc::ptr_eq(kept, channel)) {
                channel.outbox.end();
            }
        }
    }

    /// Has the event sent to each receiver that gets such events.
    pub fn send(&self, event: &Event) {
        for channel in &self.channels {
            let receiver = channel.delivery.receiver();
            if !receiver.events.contains(&event.content.kind()) || !receiver.is_about(event.subject.issuer.as_deref()) {
                continue;
            }
            let waiting = event::claims(event, &self.issuer, receiver);
            let left_free = match event.content.kind() {
                EventType::RiskLevelChange => 0,
                EventType::SessionRevoked => FOR_RISKS,
            };
            let result = match waiting.map(|waiting| channel.outbox.enqueue_leaving(left_free, waiting)) {
                Some(true) => continue,
                Some(false) => SentResult::Dropped,
                None => SentResult::Unnamed,
            };
            self.metrics.sent(result);
            if let Some(more) = channel.full.pass(std::time::Instant::now()) {
                let (receiver, why) = (without_query(&receiver.url), result.reason());
                tracing::warn!(receiver, why, more, "a security event is not sent");
            }
        }
    }
}

#[cfg(test)]
mod tests;
