//! One event on its way to one receiver (RFC 8935): signed once, then sent until it is taken, refused, or too old.
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use serde::Deserialize;

use super::event::Waiting;
use super::metrics::{Metrics, RetryReason, SentResult};
use super::settings::Receiver;
use crate::base::http_agent::{self, HttpAgent, bounded, without_query};
use crate::base::outbox::Stopping;
use crate::base::throttle::Throttle;
use crate::signing::{SECURITY_EVENT, Signing};

const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often an event is tried whose answers may be about this event. Others wait behind it.
const MAX_TRIES: u32 = 6;
/// The most of an answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 * 1024;

pub struct Delivery {
    receiver: Receiver,
    agent: HttpAgent,
    signing: Arc<Signing>,
    metrics: Metrics,
    /// Throttles the log of failures.
    failed: Throttle,
}

/// How a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// The answer was 400 (section 2.4).
    Refused(Refusal),
    Unreachable(String),
    Status(u16),
    Unsigned(String),
}

/// RFC 8935 section 2.3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Refusal {
    #[serde(default)]
    err: String,
    #[serde(default)]
    description: String,
}

impl Delivery {
    /// # Errors
    /// Why the CA file cannot be used.
    pub fn new(receiver: &Receiver, signing: Arc<Signing>, metrics: Metrics) -> Result<Self, String> {
        let agent = HttpAgent::new(receiver.ca_file.as_deref(), receiver.timeout)?;
        Ok(Self { receiver: receiver.clone(), agent, signing, metrics, failed: Throttle::default() })
    }

    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Whether it sends to the same receiver in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        self.receiver == other.receiver && self.agent.has_same_roots(&other.agent)
    }

    /// It is not sent: its receiver was removed or changed.
    pub fn leave(&self, waiting: &Waiting) {
        self.metrics.sent(SentResult::Expired);
        if let Some(more) = self.failed.pass(std::time::Instant::now()) {
            let (receiver, jti) = (without_query(&self.receiver.url), &waiting.claims.jti);
            tracing::error!(receiver, jti, more, "a security event is given up: its receiver was removed or changed");
        }
    }

    pub async fn deliver(&self, waiting: Waiting, mut stopping: Stopping) {
        let (receiver, jti) = (without_query(&self.receiver.url), &waiting.claims.jti);
        let (mut token, mut tries) = (None, 0_u32);
        loop {
            let failure = match self.attempt(&waiting, &mut token).await {
                Ok(()) => {
                    tracing::debug!(receiver, jti, "a security event was taken");
                    return self.metrics.sent(SentResult::Sent);
                }
                Err(Failure::Refused(refusal)) if !refusal.is_of_all_events() => {
                    let Refusal { err, description } = refusal;
                    tracing::error!(receiver, jti, err, description, "the receiver refused a security event");
                    return self.metrics.sent(SentResult::Refused);
                }
                Err(failure) => failure,
            };
            if matches!(&failure, Failure::Refused(refusal) if refusal.is_about_key()) {
                // The key may be replaced before the next try. The claims, and so the `jti`, stay.
                token = None;
            }
            tries = tries.saturating_add(1);
            let is_over = waiting.since.elapsed() >= self.receiver.retry_for
                || (tries >= MAX_TRIES && !failure.is_of_all_events());
            if is_over || !stopping.pause(jittered(pause(tries))).await {
                tracing::error!(receiver, jti, ?failure, tries, "a security event is given up");
                return self.metrics.sent(SentResult::Expired);
            }
            self.metrics.retried(failure.reason());
            if let Some(more) = self.failed.pass(std::time::Instant::now()) {
                tracing::warn!(
                    receiver,
                    jti,
                    ?failure,
                    tries,
                    more,
                    "a security event was not taken, and is sent again"
                );
            }
        }
    }

    /// `token` is what was signed in an earlier try: it stays the same, unless the receiver does not take its key.
    async fn attempt(&self, waiting: &Waiting, token: &mut Option<String>) -> Result<(), Failure> {
        let text = match token {
            Some(token) => token.clone(),
            None => {
                let signed = self.signing.sign(SECURITY_EVENT, &waiting.claims).await;
                let signed = signed.map_err(|error| Failure::Unsigned(error.to_string()))?;
                token.insert(signed.token).clone()
            }
        };
        let (agent, receiver) = (self.agent.clone(), self.receiver.clone());
        let sent = tokio::task::spawn_blocking(move || post(&agent, &receiver, &text)).await;
        sent.unwrap_or_else(|error| Err(Failure::Unreachable(error.to_string())))
    }
}

impl Failure {
    fn reason(&self) -> RetryReason {
        match self {
            Self::Refused(_) | Self::Status(_) => RetryReason::Status,
            Self::Unreachable(_) => RetryReason::Unreachable,
            Self::Unsigned(_) => RetryReason::Unsigned,
        }
    }

    /// Any other event would have failed too: the receiver, or its token, is out of order.
    fn is_of_all_events(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unsigned(_) => true,
            Self::Status(status) => matches!(status, 401 | 403 | 408 | 429 | 502..=504),
            Self::Refused(refusal) => refusal.is_of_all_events(),
        }
    }
}

impl Refusal {
    /// It is about the sender's authentication or key, which an operator can mend. The other codes are about this event: the
    /// answer would be the same again.
    fn is_of_all_events(&self) -> bool {
        matches!(self.err.as_str(), "authentication_failed" | "access_denied") || self.is_about_key()
    }

    fn is_about_key(&self) -> bool {
        self.err == "invalid_key"
    }
}

fn post(agent: &HttpAgent, receiver: &Receiver, token: &str) -> Result<(), Failure> {
    let unreachable = |error: String| Failure::Unreachable(bounded(error));
    let request = agent.post(&receiver.url).header("content-type", "application/secevent+jwt");
    let mut request = request.header("accept", "application/json").header("accept-language", "en");
    if let Some(file) = &receiver.token_file {
        let bearer = http_agent::bearer(file).map_err(|error| unreachable(format!("{} {error}", file.display())))?;
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let mut answer = request.send(token).map_err(|error| unreachable(error.to_string()))?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        400 => {
            let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
            let Refusal { err, description } = serde_json::from_slice(&body).unwrap_or_default();
            Err(Failure::Refused(Refusal { err: bounded(err), description: bounded(description) }))
        }
        status => Err(Failure::Status(status)),
    }
}

/// Before the next try, after so many.
fn pause(tries: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
    PAUSE.saturating_mul(doubled).min(MAX_PAUSE)
}

/// From a half of it to all of it: instances that lost the same receiver must not return at the same time.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness it is the whole pause.
    let _ = rand::fill(&mut random);
    let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    pause.mul_f64(1.0 - share / 2.0)
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("receiver", &without_query(&self.receiver.url)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_differ() {
        assert_eq!([1, 2, 3, 7, 8, 100].map(|tries| pause(tries).as_secs()), [1, 2, 4, 60, 60, 60]);
        let all: Vec<_> = (0..50).map(|_| jittered(MAX_PAUSE)).collect();
        assert!(all.iter().all(|pause| (MAX_PAUSE / 2..=MAX_PAUSE).contains(pause)), "{all:?}");
        assert!(all.iter().any(|pause| *pause != all[0]));
    }

    #[test]
    fn what_may_be_about_one_event_does_not_hold_up_the_others_for_long() {
        for status in [401, 403, 408, 429, 502, 503, 504] {
            assert!(Failure::Status(status).is_of_all_events(), "{status}");
        }
        for status in [302, 404, 413, 415, 500] {
            assert!(!Failure::Status(status).is_of_all_events(), "{status}");
        }
        let refused = |err: &str| Failure::Refused(Refusal { err: err.to_owned(), description: String::new() });
        for err in ["authentication_failed", "access_denied", "invalid_key"] {
            assert!(refused(err).is_of_all_events(), "{err}");
        }
        for err in ["", "invalid_request", "invalid_issuer", "invalid_audience", "other"] {
            assert!(!refused(err).is_of_all_events(), "{err}");
        }
    }
}
